"""2,000 measurements a second for 60 s through the real Collector: what is dropped, what memory grows.

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
from callbot_latency.drops import dropped
from callbot_latency.tracker import KEPT
from deploy.stack import Stack, missing_servers

SERVERS: Final = ("collector", "jaeger", "prometheus", "influxdb")
TICK_S: Final = 0.01
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


def run(rate: int, seconds: float) -> dict[str, Any]:
    """Start the servers, measure in a process of its own, and ask the Collector."""
    missing = missing_servers(SERVERS)
    if missing:
        raise SystemExit("\n".join(missing.values()))
    with Stack(SERVERS) as stack, tempfile.TemporaryDirectory() as folder:
        settings = {"LATENCY_METRICS_FILE_PATH": f"{folder}/metrics.jsonl", "OTEL_SERVICE_NAME": "sustained"}
        command = [sys.executable, "-m", "benchmarks.sustained", "--measure", f"--rate={rate}", f"--seconds={seconds}"]
        print(f"measuring {rate} operations a second for {seconds:g} s ...", flush=True)
        environment = {**os.environ, **stack.environment(), "OTEL_METRIC_EXPORT_INTERVAL": "5000", **settings}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        report["lines_in_the_file"] = len(Path(settings["LATENCY_METRICS_FILE_PATH"]).read_text().splitlines())
        report["spans_accepted_by_the_collector"] = accepted_spans(stack)
    return report


def main() -> None:
    """`make bench-stack`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sustained", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="measurements a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="for how long (%(default)s)")
    parser.add_argument("--measure", action="store_true", help="measure in this process, with the servers of OTEL_*")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_for(options.rate, options.seconds)))
        return
    report = run(options.rate, options.seconds)
    print(json.dumps(report, indent=1))
    whole = report["measured"] == report["counted"] == report["lines_in_the_file"]
    # One more span than operations: the call's own.
    if not whole or report["dropped"] or report["spans_accepted_by_the_collector"] != report["measured"] + 1:
        raise SystemExit("something was dropped")


if __name__ == "__main__":
    main()
