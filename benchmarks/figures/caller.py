"""What one measured call costs its caller, against OpenTelemetry's bare span with the same attributes.

Ours has everything on that a bot has: file, tracker, histograms, thresholds, deadlines, alerts, ids bound by `call()`,
batch export. Theirs is a provider without our processor and with its own batch export.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Final

from opentelemetry.trace import Tracer

from callbot_latency import OperationType, call, measure_latency, measure_latency_context, turn

from ..tools.harness import Chunk, Figure, difference, interleaved, pin, ratio, run_alone, say, timed, timed_async
from ..tools.setup import ATTRIBUTES, SPAN_NAME, bare_tracer, measuring

ITEMS: Final = (50, 500)
"""Of a short stream, and of a long one, whose span is shared by more."""
PAUSE_S: Final = 0.12


def plain() -> int:
    return 1


async def plain_async() -> int:
    return 1


def plain_items(amount: int) -> Iterator[int]:
    yield from range(amount)


async def plain_async_items(amount: int) -> Any:
    for item in range(amount):
        yield item


async def plain_waiting() -> int:
    await asyncio.sleep(0)
    return 1


_measured = measure_latency(OperationType.STT, "transcribe", provider="google")
measured = _measured(plain)
measured_async = _measured(plain_async)
measured_items = _measured(plain_items)
measured_async_items = _measured(plain_async_items)
measured_waiting = _measured(plain_waiting)


def measured_block() -> int:
    with measure_latency_context(OperationType.STT, "transcribe", provider="google"):
        return 1


def bare_functions(tracer: Tracer) -> tuple[Callable[[], int], Callable[[], Any]]:
    """The span around a function, and around a coroutine function."""

    def bare() -> int:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            return 1

    async def bare_async() -> int:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            return 1

    return bare, bare_async


def consumed(items: Callable[[int], Iterator[int]], amount: int) -> Chunk:
    """A stream read to its end: microseconds an item."""

    def consume() -> None:
        for _ in items(amount):
            pass

    chunk = timed(consume)
    return lambda _: chunk(1) / amount


def consumed_async(items: Callable[[int], Any], amount: int) -> Chunk:
    """The same of an async stream."""

    async def consume() -> None:
        async for _ in items(amount):
            pass

    chunk = timed_async(consume)
    return lambda _: chunk(1) / amount


def item_figures() -> list[Figure]:
    """Streams of both lengths, measured and not."""
    variants: dict[str, Chunk] = {}
    for amount in ITEMS:
        variants |= {
            f"bare generator {amount}": consumed(plain_items, amount),
            f"generator {amount}": consumed(measured_items, amount),
            f"bare async generator {amount}": consumed_async(plain_async_items, amount),
            f"async generator {amount}": consumed_async(measured_async_items, amount),
        }
    with call("CA1", stream_sid="MZ1"):
        values = interleaved(variants, pause_s=PAUSE_S, chunks=20)
    return [
        difference(
            f"item of {kind} over the bare one, its span shared by {amount}",
            values[f"{kind.split(' ', 1)[1]} {amount}"],
            values[f"bare {kind.split(' ', 1)[1]} {amount}"],
            2.0,
        )
        for amount in ITEMS
        for kind in ("a generator", "an async generator")
    ]


def caller_figures(*, export: bool) -> list[Figure]:
    """The variants of one set-up, in turns."""
    bare, bare_async = bare_functions(bare_tracer(export=export))
    variants = {
        "bare": timed(bare),
        "function": timed(measured),
        "context": timed(measured_block),
        "bare_async": timed_async(bare_async),
        "async": timed_async(measured_async),
    }
    with call("CA1", stream_sid="MZ1"):
        values = interleaved(variants, pause_s=PAUSE_S)
    how = "batch export" if export else "no export"
    span = "start_as_current_span"
    return [
        ratio(f"decorated function / {span}, {how}", values["function"], values["bare"], 1.0),
        ratio(f"async function / {span}, {how}", values["async"], values["bare_async"], 1.0),
        ratio(f"context manager / {span}, {how}", values["context"], values["bare"], 1.0),
    ]


def timed_on_loop(runner: asyncio.Runner, *, in_turn: bool) -> Chunk:
    """Microseconds an operation on an event loop, where each waits once."""

    async def loop(calls: int) -> float:
        with turn() if in_turn else nullcontext() as current:
            if current is not None:
                current.speech_ended()
            clock = asyncio.get_running_loop().time
            started_s = clock()
            for _ in range(calls):
                await measured_waiting()
            return (clock() - started_s) / calls * 1e6

    return lambda calls: runner.run(loop(calls))


def turn_figure() -> Figure:
    """What an operation costs more in a turn, where its waits are noted, and the passes of the loop."""
    with asyncio.Runner() as runner, call("CA1", stream_sid="MZ1"):
        variants = {f"{in_turn}": timed_on_loop(runner, in_turn=in_turn) for in_turn in (False, True)}
        values = interleaved(variants, pause_s=PAUSE_S, chunks=20)
    return ratio("async function that waits once, in a turn / outside of one", values["True"], values["False"])


def figures() -> Sequence[Figure]:
    """Without export, and with it."""
    pin()
    rows: list[Figure] = []
    for export in (True, False):
        say(f"  {'with' if export else 'without'} batch export")
        with measuring(export=export):
            rows += caller_figures(export=export)
            rows += [*item_figures(), turn_figure()] if export else []
    return rows


if __name__ == "__main__":
    run_alone(figures)
