"""The slowest of the measured calls: the 99th percentile over the bare span's, and what a reporter that hangs adds.

Each call is timed by itself. They come as those of a bot do, a few at a time with pauses between, so that the worker
and the exporters run beside them.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from callbot_latency import LatencyMetric, call, report_manager

from ..tools.harness import ROUNDS, Figure, difference, run_alone
from ..tools.setup import bare_tracer, flush, measuring
from .caller import bare_functions, measured

CHUNKS: Final = 10
BURSTS: Final = 25
AT_ONCE: Final = 10
"""In a round each variant has so many turns, of so many bursts, of so many calls: 2,500."""
PAUSE_S: Final = 0.002
HANGS_S: Final = 60.0
SHARE: Final = 0.99

Chunk = Callable[[], list[float]]


class Hanging:
    """Takes the first batch and does not return from it, for a minute or until it may."""

    def __init__(self) -> None:
        self.entered, self.may_return = threading.Event(), threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hang."""
        self.entered.set()
        self.may_return.wait(HANGS_S)


@contextmanager
def a_reporter_that_hangs() -> Iterator[None]:
    """It has a batch in hand meanwhile."""
    reporter = Hanging()
    report_manager.add_reporter(reporter)
    try:
        measured()
        if not reporter.entered.wait(10):
            raise RuntimeError("no batch came")
        yield
    finally:
        reporter.may_return.set()
        report_manager.remove_reporter(reporter)


def each_call(function: Callable[[], object]) -> Chunk:
    """Microseconds of each."""

    def chunk() -> list[float]:
        took_us = []
        for _ in range(BURSTS):
            for _ in range(AT_ONCE):
                started_ns = time.perf_counter_ns()
                function()
                took_us.append((time.perf_counter_ns() - started_ns) / 1e3)
            time.sleep(PAUSE_S)
        return took_us

    return chunk


def each_tick(function: Callable[[], object]) -> Chunk:
    """How many milliseconds late an event loop was each time, on which the calls run."""

    async def main() -> list[float]:
        late_ms = []
        for _ in range(BURSTS):
            for _ in range(AT_ONCE):
                function()
            due_s = time.perf_counter() + PAUSE_S
            await asyncio.sleep(PAUSE_S)
            late_ms.append((time.perf_counter() - due_s) * 1e3)
        return late_ms

    return lambda: asyncio.run(main())


def beside(chunk: Chunk) -> Chunk:
    """The same beside a reporter that hangs."""

    def hindered() -> list[float]:
        with a_reporter_that_hangs():
            return chunk()

    return hindered


def slowest(variants: dict[str, Chunk]) -> dict[str, list[float]]:
    """The 99th percentile of each variant, one value a round, in turns."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(CHUNKS):
            for name, chunk in variants.items():
                taken[name] += chunk()
                flush()
        for name, each in taken.items():
            values[name].append(sorted(each)[int(len(each) * SHARE)])
    return values


def figures() -> Sequence[Figure]:
    """Over the bare span, and over itself without the reporter."""
    bare, _ = bare_functions(bare_tracer())
    with measuring(), call("CA1", stream_sid="MZ1"):
        calls = slowest({"bare": each_call(bare), "ours": each_call(measured), "beside": beside(each_call(measured))})
        ticks = slowest({"ours": each_tick(measured), "beside": beside(each_tick(measured))})
    return [
        difference("99th percentile of a call over a bare span's", calls["ours"], calls["bare"], 50),
        difference("99th percentile of a call, added by a reporter that hangs", calls["beside"], calls["ours"], 50),
        difference(
            "99th percentile of a loop's delay, added by a reporter that hangs",
            ticks["beside"],
            ticks["ours"],
            5,
            unit="ms",
        ),
    ]


if __name__ == "__main__":
    run_alone(figures)
