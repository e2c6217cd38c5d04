"""What a measured call costs against how much there is: open operations, alert keys, operations' names, kept metrics.

Each point is a ratio to the bare span of the same turns; what grows would show as a slope.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final

from callbot_latency import (
    LatencyMetric,
    OperationStatus,
    OperationType,
    call,
    latency_tracker,
    measure_latency_context,
    record,
)

from ..tools.harness import Chunk, Figure, interleaved, pin, ratio, run_alone, say, timed
from ..tools.setup import bare_tracer, flush, measuring
from . import caller

ROUNDS: Final = 7
CHUNKS: Final = 10
PAUSE_S: Final = 0.12
HOUR_MS: Final = 3_600_000.0
THRESHOLDS: Final[dict[str, Any]] = {"stt_warning_ms": HOUR_MS, "stt_critical_ms": 2 * HOUR_MS}
"""What is open in this benchmark, and the time it takes, is no alert."""
SIZES: Final = {
    "open operations": (1, 1_000, 10_000, 100_000),
    "alert keys": (1, 1_000, 10_000),
    "operation names": (1, 1_000, 10_000),
    "kept metrics": (1, 1_000, 10_000),
}
FLAT: Final = 1.15
"""The last point over the first: what counts as flat."""


@contextlib.contextmanager
def open_operations(amount: int) -> Iterator[Callable[[], object]]:
    """So many that run meanwhile, each in a context of its own."""
    opened = []
    for _ in range(amount):
        context, block = copy_context(), measure_latency_context(OperationType.STT, "transcribe", provider="google")
        context.run(block.__enter__)
        opened.append((context, block))
    yield caller.measured
    for number, (context, block) in enumerate(opened):
        context.run(block.__exit__, None, None, None)
        if number % 1_000 == 999:
            flush()


@contextlib.contextmanager
def alert_keys(amount: int) -> Iterator[Callable[[], object]]:
    """So many breaches, each of a name and a call of its own."""
    for number in range(amount):
        record(
            LatencyMetric(OperationType.STT, f"slow{number}", HOUR_MS, OperationStatus.SUCCESS, call_sid=f"CA{number}")
        )
        if number % 1_000 == 999:
            flush()
    flush()
    yield caller.measured


@contextlib.contextmanager
def operation_names(amount: int) -> Iterator[Callable[[], object]]:
    """A block whose name is another one each time, of so many."""
    names = [f"name{number}" for number in range(amount)]
    place = 0

    def run() -> None:
        nonlocal place
        place = (place + 1) % amount
        with measure_latency_context(OperationType.STT, names[place], provider="google"):
            pass

    yield run


@contextlib.contextmanager
def kept_metrics(amount: int) -> Iterator[Callable[[], object]]:
    """So many that the tracker keeps."""
    latency_tracker.clear_metrics()
    for number in range(amount):
        caller.measured()
        if number % 1_000 == 999:
            flush()
    flush()
    yield caller.measured


GROWING: Final[dict[str, Callable[[int], Any]]] = {
    "open operations": open_operations,
    "alert keys": alert_keys,
    "operation names": operation_names,
    "kept metrics": kept_metrics,
}


@dataclass(frozen=True)
class Point:
    """One size's ratios to the bare span, a round each."""

    what: str
    size: int
    ratios: Sequence[float]


def point(what: str, size: int, bare: Chunk) -> Point:
    """A session of its own for each."""
    with measuring(**THRESHOLDS), call("CA1", stream_sid="MZ1"), GROWING[what](size) as function:
        flush()
        values = interleaved({"ours": timed(function), "bare": bare}, rounds=ROUNDS, chunks=CHUNKS, pause_s=PAUSE_S)
    latency_tracker.reset_stats()
    return Point(what, size, [a / b for a, b in zip(values["ours"], values["bare"], strict=True)])


def points() -> list[Point]:
    """All sizes of all that may grow."""
    pin()
    bare = timed(caller.bare_functions(bare_tracer())[0])
    made = []
    for what, sizes in SIZES.items():
        say(f"  {what}")
        made += [point(what, size, bare) for size in sizes]
    return made


def figures() -> Sequence[Figure]:
    """Each point, and the last over the first of each."""
    made = points()
    rows = [Figure(f"cost / bare span, {each.size:,} {each.what}", "x", each.ratios) for each in made]
    for what in SIZES:
        own = [each for each in made if each.what == what]
        first, last = own[0], own[-1]
        name = f"growth of the cost from {first.size:,} to {last.size:,} {what}"
        rows.append(ratio(name, last.ratios, first.ratios, FLAT, base_unit="x bare span"))
    return rows


if __name__ == "__main__":
    run_alone(figures)
