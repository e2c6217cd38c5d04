"""What one measurement costs its caller, against the OpenTelemetry span that it contains.

Every figure is a ratio (or a difference) within one run: the variants take turns in short chunks, a round's value is
the median of its chunks, and the minimum and the median over the rounds are reported.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from callbot_latency import (
    LatencyConfig,
    OperationType,
    call,
    init,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    shutdown,
    turn,
)

ROUNDS = 9
CHUNKS = 60
CALLS = 50

Chunk = Callable[[int], float]


class NullExporter(SpanExporter):
    """Takes spans and does nothing, so that no server's speed is measured."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


ATTRIBUTES = {
    "operation_type": "speech_to_text",
    "operation_name": "transcribe",
    "provider": "google",
    "call_sid": "CA1",
    "stream_sid": "MZ1",
    "status": "success",
}
SPAN_NAME = "speech_to_text transcribe"


def plain() -> int:
    return 1


async def plain_async() -> int:
    return 1


def plain_items() -> Iterator[int]:
    yield from range(CALLS)


async def plain_waiting() -> int:
    await asyncio.sleep(0)
    return 1


measured_waiting = measure_latency(OperationType.STT, "transcribe", provider="google")(plain_waiting)
measured = measure_latency(OperationType.STT, "transcribe", provider="google")(plain)
measured_async = measure_latency(OperationType.STT, "transcribe", provider="google")(plain_async)
measured_items = measure_latency(OperationType.STT, "transcribe", provider="google")(plain_items)


def measured_block() -> int:
    with measure_latency_context(OperationType.STT, "transcribe", provider="google"):
        return 1


def timed(function: Callable[[], object]) -> Chunk:
    def chunk(calls: int) -> float:
        started = time.perf_counter_ns()
        for _ in range(calls):
            function()
        return (time.perf_counter_ns() - started) / calls / 1000

    return chunk


def timed_async(function: Callable[[], Any]) -> Chunk:
    async def loop(calls: int) -> float:
        started = time.perf_counter_ns()
        for _ in range(calls):
            await function()
        return (time.perf_counter_ns() - started) / calls / 1000

    def chunk(calls: int) -> float:
        # Driven by hand: nothing here ever waits for an event loop.
        coroutine = loop(calls)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return float(done.value)
        raise AssertionError("the coroutine waited")

    return chunk


def timed_items(function: Callable[[], Iterator[int]]) -> Chunk:
    def chunk(_: int) -> float:
        started = time.perf_counter_ns()
        for _item in function():
            pass
        return (time.perf_counter_ns() - started) / CALLS / 1000

    return chunk


def rounds(variants: dict[str, Chunk], pause_s: float) -> dict[str, list[float]]:
    """Microseconds a call of each variant, one value a round."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        chunks: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(CHUNKS):
            for name, chunk in variants.items():
                chunks[name].append(chunk(CALLS))
            if number % 10 == 9:
                # The worker takes its turn here, and not in the middle of somebody's chunk.
                time.sleep(pause_s)
        for name, measurements in chunks.items():
            values[name].append(statistics.median(measurements))
    return values


def bare_span(export: bool) -> Callable[[], int]:
    provider = TracerProvider(shutdown_on_exit=False)
    if export:
        provider.add_span_processor(BatchSpanProcessor(NullExporter()))
    tracer = provider.get_tracer("bare")

    def bare() -> int:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            return 1

    return bare


def bare_span_async(bare: Callable[[], int]) -> Callable[[], Any]:
    async def run() -> int:
        return bare()

    return run


def _row(name: str, ours: list[float], theirs: list[float], goal: str) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "figure": name,
        "ours_us": round(min(ours), 2),
        "theirs_us": round(min(theirs), 2),
        "ratio_min": round(min(ratios), 3),
        "ratio_median": round(statistics.median(ratios), 3),
        "goal": goal,
    }


def caller_cost(export: bool) -> list[dict[str, Any]]:
    bare = bare_span(export)
    variants = {
        "bare": timed(bare),
        "function": timed(measured),
        "context": timed(measured_block),
        "bare_async": timed_async(bare_span_async(bare)),
        "async": timed_async(measured_async),
        "plain_items": timed_items(plain_items),
        "items": timed_items(measured_items),
    }
    with call("CA1", stream_sid="MZ1"):
        values = rounds(variants, 0.15)
    how = "batch export" if export else "no export"
    per_item = [a - b for a, b in zip(values["items"], values["plain_items"], strict=True)]
    return [
        _row(f"decorated function / start_as_current_span, {how}", values["function"], values["bare"], "<= 1.0"),
        _row(f"async function / start_as_current_span, {how}", values["async"], values["bare_async"], "<= 1.0"),
        _row(f"context manager / start_as_current_span, {how}", values["context"], values["bare"], "<= 1.0"),
        {
            "figure": f"item of a generator over the bare one (its span shared by {CALLS}), {how}",
            "difference_us_min": round(min(per_item), 3),
            "difference_us_median": round(statistics.median(per_item), 3),
            "goal": "<= 2 us",
        },
    ]


def timed_on_loop(runner: asyncio.Runner, *, in_turn: bool) -> Chunk:
    async def loop(calls: int) -> float:
        with turn() if in_turn else nullcontext() as current:
            if current is not None:
                current.speech_ended()
            started = time.perf_counter_ns()
            for _ in range(calls):
                await measured_waiting()
            return (time.perf_counter_ns() - started) / calls / 1000

    return lambda calls: runner.run(loop(calls))


def turn_cost() -> dict[str, Any]:
    """What an operation costs more in a turn, where its waits are noted, and the passes of the loop."""
    with asyncio.Runner() as runner, call("CA1", stream_sid="MZ1"):
        variants = {f"{in_turn}": timed_on_loop(runner, in_turn=in_turn) for in_turn in (False, True)}
        values = rounds(variants, 0.15)
    return _row("async function that waits once, in a turn / outside of one", values["True"], values["False"], "-")


def off_cost() -> list[dict[str, Any]]:
    latency_tracker.enabled = False
    variants = {
        "plain": timed(plain),
        "function": timed(measured),
        "plain_async": timed_async(plain_async),
        "async": timed_async(measured_async),
    }
    values = rounds(variants, 0.0)
    latency_tracker.enabled = True
    rows = []
    for name, base, goal in (("function", "plain", "<= 0.3 us"), ("async", "plain_async", "<= 0.5 us")):
        over = [a - b for a, b in zip(values[name], values[base], strict=True)]
        rows.append(
            {
                "figure": f"tracking off, over the bare {name}",
                "difference_us_min": round(min(over), 3),
                "difference_us_median": round(statistics.median(over), 3),
                "goal": goal,
            }
        )
    return rows


def stats_cost() -> list[dict[str, Any]]:
    names = ("transcribe", "answer", "speak", "look_up", "log_call")
    while len(latency_tracker.metrics) < 10_000:
        for name in names:
            with measure_latency_context(OperationType.STT, name):
                pass
    cold, cached = [], []
    for _ in range(ROUNDS):
        measured()
        latency_tracker.get_recent_metrics(1)
        started = time.perf_counter_ns()
        latency_tracker.get_stats()
        cold.append((time.perf_counter_ns() - started) / 1e6)
        started = time.perf_counter_ns()
        latency_tracker.get_stats()
        cached.append((time.perf_counter_ns() - started) / 1e6)
    return [
        {"figure": "get_stats over 10,000 metrics, cold", "ms_min": round(min(cold), 3),
         "ms_median": round(statistics.median(cold), 3), "goal": "<= 10 ms"},
        {"figure": "get_stats over 10,000 metrics, cached", "ms_min": round(min(cached), 4),
         "ms_median": round(statistics.median(cached), 4), "goal": "<= 0.1 ms"},
    ]  # fmt: skip


def import_cost() -> dict[str, Any]:
    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    seconds("callbot_latency"), seconds("opentelemetry.sdk.trace")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds("callbot_latency, callbot_latency.measure") * 1e6)
        theirs.append(seconds("opentelemetry.sdk.trace") * 1e6)
    return _row("import with the decorator loaded / import opentelemetry.sdk.trace", ours, theirs, "<= 1.3")


def machine() -> dict[str, Any]:
    packages = ("opentelemetry-sdk", "opentelemetry-api", "structlog", "pydantic-settings")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "pinned_to": sorted(os.sched_getaffinity(0)),
        "packages": {name: version(name) for name in packages},
        "rounds": ROUNDS,
    }


def run() -> dict[str, Any]:
    """Every figure of this module."""
    folder = tempfile.mkdtemp()
    rows: list[dict[str, Any]] = []
    for export in (False, True):
        print(f"caller's cost, {'with' if export else 'without'} batch export ...", file=sys.stderr)
        init(LatencyConfig(metrics_file_path=Path(folder) / "metrics.jsonl", traces_exporter=(), metrics_exporter=()))
        if export:
            from callbot_latency import providers

            providers._relay.targets = (BatchSpanProcessor(NullExporter()),)  # noqa: SLF001
        rows += caller_cost(export)
        rows += [turn_cost()] if export else []
        if not export:
            print("tracking off, statistics ...", file=sys.stderr)
            rows += off_cost() + stats_cost()
        shutdown()
    print("import ...", file=sys.stderr)
    return {"machine": machine(), "figures": [*rows, import_cost()]}


def show(report: dict[str, Any]) -> None:
    """The figures as a table."""
    print(json.dumps(report["machine"], indent=1))
    for row in report["figures"]:
        values = "  ".join(f"{key} {value}" for key, value in row.items() if key not in {"figure", "goal"})
        print(f"{row['figure']:<75} {values:<75} goal {row['goal']}")


def main() -> None:
    """Run, print, and write the JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("outputs/bench/cost.json"), help="where the figures go")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.freeze()
    report = run()
    show(report)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
