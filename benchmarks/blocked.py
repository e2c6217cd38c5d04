"""What a reporter that hangs adds to the calls beside it: their latencies, and what holds up an event loop.

The calls with and without it take turns in short chunks of one run; each of 10,000 calls is timed by itself, and the
percentiles of the two are compared. The same of a loop that ticks while calls are measured.
"""

import asyncio
import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from callbot_latency import LatencyConfig, LatencyMetric, call, init, measure_latency, report_manager, shutdown
from callbot_latency.reporters import LatencyReporter

CALLS: Final = 10_000
CHUNK: Final = 500
TICK_S: Final = 0.002
HANGS_S: Final = 60.0


@measure_latency("speech_to_text", "transcribe", provider="google")
def measured() -> int:
    return 1


class Hanging:
    """Takes the first batch and does not return from it, for a minute or until it may."""

    def __init__(self) -> None:
        self.entered, self.may_return = threading.Event(), threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hang."""
        self.entered.set()
        self.may_return.wait(HANGS_S)


class Working:
    """The control: takes everything at once."""

    def __init__(self) -> None:
        self.entered, self.may_return = threading.Event(), threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Take it."""
        self.entered.set()


def calls() -> list[float]:
    """Microseconds of each call of one chunk."""
    took = []
    for _ in range(CHUNK):
        started = time.perf_counter_ns()
        measured()
        took.append((time.perf_counter_ns() - started) / 1e3)
    return took


def ticks() -> list[float]:
    """How many milliseconds late each tick of a loop was, on which calls are measured meanwhile."""

    async def main() -> list[float]:
        late, loop = [], asyncio.get_running_loop()
        for _ in range(CHUNK // 10):
            due_s = loop.time() + TICK_S
            for _ in range(10):
                measured()
            await asyncio.sleep(due_s - loop.time())
            late.append((loop.time() - due_s) * 1e3)
        return late

    return asyncio.run(main())


def beside(reporter: Any, chunk: Callable[[], list[float]]) -> list[float]:
    """One chunk while this reporter has a batch in hand, or has had it."""
    kept: LatencyReporter = reporter
    report_manager.add_reporter(kept)
    try:
        measured()
        reporter.entered.wait(5)
        return chunk()
    finally:
        reporter.may_return.set()
        report_manager.remove_reporter(kept)


def compared(name: str, unit: str, chunk: Callable[[], list[float]], goal: str) -> dict[str, Any]:
    """Chunks beside each of the two in turn, until there were 10,000 calls of each."""
    values: dict[type, list[float]] = {Working: [], Hanging: []}
    for number in range(CALLS // CHUNK * 2):
        kind = (Working, Hanging)[number % 2]
        values[kind] += beside(kind(), chunk)
    row: dict[str, Any] = {"figure": name, "unit": unit, "goal": goal}
    for label, share in (("p50", 50), ("p99", 99)):
        control, hanging = (statistics.quantiles(values[kind], n=100)[share - 1] for kind in (Working, Hanging))
        row |= {f"{label}_control": round(control, 2), f"{label}_hanging": round(hanging, 2)}
        row[f"{label}_added"] = round(hanging - control, 2)
    row |= {"max_control": round(max(values[Working]), 2), "max_hanging": round(max(values[Hanging]), 2)}
    return row


def run() -> list[dict[str, Any]]:
    """Every figure of this module."""
    file = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    init(LatencyConfig(metrics_file_path=file, traces_exporter=(), metrics_exporter=()))
    try:
        with call("CA1", stream_sid="MZ1"):
            calls()
            return [
                compared("a measured call beside a reporter that hangs", "us", calls, "p99_added <= 50 us"),
                compared("a loop's tick beside a reporter that hangs", "ms", ticks, "p99_added <= 5 ms"),
            ]
    finally:
        shutdown()


def main() -> None:
    """Run and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.freeze()
    for row in run():
        print(json.dumps(row))


if __name__ == "__main__":
    main()
