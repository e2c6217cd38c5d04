"""Bytes that a kept metric and an open operation hold: what `tracemalloc` sees Python allocate, on every thread."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from callbot_latency import OperationType, call, latency_tracker, measure_latency

from ..tools.harness import Figure, amount, run_alone, say
from ..tools.setup import ATTRIBUTES, SPAN_NAME, bare_tracer, flush, measuring
from .caller import measured, measured_block

ROUNDS: Final = 7
OPEN: Final = 2_000
OPERATIONS_A_CALL: Final = 20
METRICS: Final = 2_000
"""Kept at once; the tracker keeps more, at the same price each."""


def held() -> int:
    """Bytes, once all is gone that can go."""
    flush()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def fill() -> None:
    """So many metrics, of calls of twenty operations."""
    for number in range(METRICS // OPERATIONS_A_CALL):
        with call(f"CA{number:032x}", stream_sid=f"MZ{number:032x}"):
            for _ in range(OPERATIONS_A_CALL // 2):
                measured()
                measured_block()
        if number % 20 == 19:
            flush()


def kept_bytes() -> list[float]:
    """A kept metric: all of them, less what stays when they are forgotten."""
    values = []
    fill()
    for _ in range(ROUNDS):
        latency_tracker.clear_metrics()
        before = held()
        fill()
        values.append((held() - before) / METRICS)
    return values


def waiting_functions() -> dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]]:
    """A coroutine that waits: nothing around it, ours, a bare span."""
    tracer = bare_tracer()

    async def plain(event: asyncio.Event) -> None:
        await event.wait()

    async def bare(event: asyncio.Event) -> None:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            await event.wait()

    return {
        "plain": plain,
        "ours": measure_latency(OperationType.STT, "transcribe", provider="google")(plain),
        "bare": bare,
    }


async def waiting_bytes(function: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> float:
    """Of one of so many tasks that wait at once."""
    event = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    before = held()
    with call("CA1", stream_sid="MZ1"):
        tasks += [asyncio.create_task(function(event)) for _ in range(OPEN)]
        # In the next pass of the loop each of them begins, and waits.
        await asyncio.sleep(0)
        after = held()
        event.set()
        await asyncio.gather(*tasks)
    return (after - before) / OPEN


def figures() -> Sequence[Figure]:
    """Both, while all is on that a bot has."""
    with measuring():
        tracemalloc.start()
        say("  kept metrics")
        kept = kept_bytes()
        say("  open operations")
        values: dict[str, list[float]] = {}
        with asyncio.Runner() as runner:
            for number in range(ROUNDS + 1):
                for name, function in waiting_functions().items():
                    waiting = runner.run(waiting_bytes(function))
                    if number:  # the first one loads what loads on first use
                        values.setdefault(name, []).append(waiting)
        tracemalloc.stop()
    ours, bare = ([a - b for a, b in zip(values[name], values["plain"], strict=True)] for name in ("ours", "bare"))
    return [
        amount("memory of a kept metric", kept, "B", 600),
        amount(
            "memory of an open operation, its span included",
            ours,
            "B",
            2000,
            ours=min(ours),
            theirs=min(bare),
            base_unit="B",
        ),
    ]


if __name__ == "__main__":
    run_alone(figures)
