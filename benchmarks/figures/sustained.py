"""2,000 measurements a second for 60 s through the real Collector: what is dropped, what memory grows; then how fast
it can go until something is dropped.

The process that measures is one of its own, paced by the clock; it tells its drops and its memory, the Collector what
it accepted, and Jaeger, Prometheus and InfluxDB are running behind it.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from callbot_latency import call, init, latency_tracker, measure_latency_context, shutdown
from callbot_latency.base.drop_counters import dropped
from callbot_latency.pipeline.tracker import KEPT
from devservers.stack import Stack, missing_servers

from ..tools.harness import Figure, amount, machine, say, table

SERVERS: Final = ("collector", "jaeger", "prometheus", "influxdb")
TICK_S: Final = 0.01
KEPT_SHARE: Final = 0.98
"""A rate is kept where so much of it is reached."""
HIGHEST: Final = 64_000
STEP: Final = 0.1
"""The highest rate is found to such a share of it."""
ACCEPTED: Final = "otelcol_receiver_accepted_spans"


def resident_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class _Warnings(logging.Handler):
    """Keeps what OpenTelemetry warns of: its queue's drops are told in the log alone."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def measure_for(rate: int, seconds: float) -> dict[str, Any]:
    """Measure `rate` operations a second for so many seconds; what was dropped and what memory grew by."""
    warnings = _Warnings()
    logging.getLogger("opentelemetry").addHandler(warnings)
    init()
    at_kept_mb, count = None, 0
    started_s = time.perf_counter()
    cpu_s = time.process_time()
    with call("CAsustained", stream_sid="MZsustained"):
        while (elapsed_s := time.perf_counter() - started_s) < seconds:
            while count < rate * elapsed_s:
                with measure_latency_context("speech_to_text", "transcribe", provider="google"):
                    pass
                count += 1
            if at_kept_mb is None and count > 1.5 * KEPT:
                at_kept_mb = resident_mb()
            time.sleep(TICK_S)
    elapsed_s, at_end_mb = time.perf_counter() - started_s, resident_mb()
    cpu_s = time.process_time() - cpu_s
    (stats,) = latency_tracker.get_stats().values()
    on_time = shutdown(30)
    return {
        "measured": count,
        "counted": stats["count"],
        "per_second": round(count / elapsed_s, 1),
        "dropped": dropped.by_reason(),
        "opentelemetry_warnings": warnings.messages[:5],
        "memory_mb_once_kept": at_kept_mb,
        "memory_mb_at_the_end": at_end_mb,
        "memory_growth_mb": None if at_kept_mb is None else round(at_end_mb - at_kept_mb, 2),
        "cpu_share_of_one_core": round(cpu_s / elapsed_s, 3),
        "delivered_in_time": on_time,
    }


def accepted_spans(stack: Stack) -> int:
    """How many spans the Collector says that it took in."""
    text = httpx.get(f"{stack.url('telemetry')}/metrics", timeout=10).text
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(ACCEPTED))


def run(stack: Stack, rate: int, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own, and ask the Collector."""
    before = accepted_spans(stack)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"LATENCY_METRICS_FILE_PATH": f"{folder}/metrics.jsonl", "OTEL_SERVICE_NAME": "sustained"}
        command = [
            sys.executable,
            "-m",
            "benchmarks.figures.sustained",
            "--measure",
            f"--rate={rate}",
            f"--seconds={seconds}",
        ]
        say(f"measuring {rate:,} operations a second for {seconds:g} s ...")
        environment = {**os.environ, **stack.environment(), "OTEL_METRIC_EXPORT_INTERVAL": "5000", **settings}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        with Path(settings["LATENCY_METRICS_FILE_PATH"]).open() as file:
            report["lines_in_the_file"] = sum(1 for _ in file)
    report["spans_accepted_by_the_collector"] = accepted_spans(stack) - before
    report["lost"] = lost(report)
    report["kept_the_rate"] = report["per_second"] >= KEPT_SHARE * rate
    say(f"  {report['per_second']:,.0f}/s, {report['lost']} lost, {report['cpu_share_of_one_core']:.2f} of a core")
    return report


def lost(report: dict[str, Any]) -> int:
    """The most that is missing anywhere: counted, in the file, at the Collector, or told as dropped."""
    measured: int = report["measured"]
    # One more span than operations: the call's own.
    arrived = (report["counted"], report["lines_in_the_file"], report["spans_accepted_by_the_collector"] - 1)
    missing: list[int] = [measured - each for each in arrived]
    told: list[int] = [*report["dropped"].values()]
    return max(*missing, *told)


def holds(report: dict[str, Any]) -> bool:
    """Whether the rate was kept, and nothing lost."""
    return bool(report["kept_the_rate"]) and not report["lost"]


def highest(stack: Stack, rate: int, seconds: float) -> list[dict[str, Any]]:
    """Runs from a rate that holds: doubled until one does not hold, and then those between."""
    runs: list[dict[str, Any]] = []

    def try_out(rate: int) -> bool:
        runs.append({"rate": rate} | run(stack, rate, seconds))
        return holds(runs[-1])

    low, high = rate, 2 * rate
    while high <= HIGHEST and try_out(high):
        low, high = high, 2 * high
    while high - low > low * STEP and high <= HIGHEST:
        middle = (low + high) // 2
        low, high = (middle, high) if try_out(middle) else (low, middle)
    return runs


def figures(report: dict[str, Any], runs: list[dict[str, Any]], rate: int, seconds: float) -> list[Figure]:
    """What the goals name."""
    through = f"{rate:,} a second for {seconds:g} s through the Collector"
    rows = [
        amount(f"{through}: reached", [report["per_second"]], "/s", KEPT_SHARE * rate, at_least=True),
        amount(f"{through}: lost", [report["lost"]], "measurements", 0),
        amount(f"{through}: CPU", [report["cpu_share_of_one_core"]], "of a core"),
    ]
    if report["memory_growth_mb"] is not None:
        growth = [report["memory_growth_mb"]]
        rows.append(amount(f"{through}: memory grows, once {KEPT:,} are kept", growth, "MB", 5))
    if runs:
        best = max([rate, *(each["rate"] for each in runs if holds(each))])
        rows.append(amount("highest rate that was kept and lost nothing", [best], "/s"))
    return rows


def main() -> None:
    """`make bench-stack`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures.sustained", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="measurements a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="for how long (%(default)s)")
    parser.add_argument(
        "--step-seconds", type=float, default=10, help="of each run in search of the highest rate; 0: none"
    )
    parser.add_argument("--json", type=Path, default=Path("outputs/bench/sustained.json"), help="(%(default)s)")
    parser.add_argument("--measure", action="store_true", help="measure in this process, with the servers of OTEL_*")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_for(options.rate, options.seconds)))
        return
    missing = missing_servers(SERVERS)
    if missing:
        raise SystemExit("\n".join(missing.values()))
    with Stack(SERVERS, say=say) as stack:
        report = run(stack, options.rate, options.seconds)
        searches = options.step_seconds and holds(report)
        runs = highest(stack, options.rate, options.step_seconds) if searches else []
    rows = [figure.to_dict() for figure in figures(report, runs, options.rate, options.seconds)]
    print(table(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    everything = {"machine": machine(), "figures": rows, "report": report, "search": runs}
    options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if report["lost"]:
        raise SystemExit("something was lost")


if __name__ == "__main__":
    main()
