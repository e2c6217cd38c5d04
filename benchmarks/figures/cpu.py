"""CPU of the whole process a measurement: caller, worker, file, exporters, until all of it is flushed.

Theirs is what gives a span and a histogram by OpenTelemetry alone: `start_as_current_span` and `histogram.record` with
the same View. Theirs writes no file, keeps no statistics and knows no threshold.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from callbot_latency import call

from ..tools.harness import Figure, interleaved, pin, ratio, run_alone
from ..tools.setup import ATTRIBUTES, SPAN_NAME, bare_histogram, bare_meter, bare_provider, flush, measuring
from .caller import measured

MEASUREMENTS = 400
"""At once before a flush: less than a batch of the SDK's, and what comes in 0.2 s at 2,000 a second."""


def theirs() -> tuple[Callable[[], int], Callable[[], Any]]:
    """A span and a histogram by hand, and how to flush them."""
    provider = bare_provider()
    tracer, histogram = provider.get_tracer("bare"), bare_histogram(bare_meter())
    names = ("operation_type", "operation_name", "provider", "status")

    def run() -> int:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            started_ns = time.perf_counter_ns()
            try:
                return 1
            finally:
                took_s = (time.perf_counter_ns() - started_ns) / 1e9
                histogram.record(took_s, {name: ATTRIBUTES[name] for name in names})

    return run, provider.force_flush


def spent(function: Callable[[], object], flushed: Callable[[], object]) -> Callable[[int], float]:
    """Microseconds of CPU of all threads, a call."""

    def chunk(calls: int) -> float:
        started_ns = time.process_time_ns()
        for _ in range(calls):
            function()
        flushed()
        return (time.process_time_ns() - started_ns) / calls / 1000

    return chunk


def figures() -> Sequence[Figure]:
    """With the file, and without what theirs does not do."""
    pin()
    run, flush_theirs = theirs()
    rows = []
    for how, settings in (("everything on", {}), ("without the file", {"file_logging_enabled": False})):
        with measuring(**settings), call("CA1", stream_sid="MZ1"):
            variants = {"ours": spent(measured, flush), "theirs": spent(run, flush_theirs)}
            values = interleaved(variants, chunks=15, calls=MEASUREMENTS)
        goal = 1.6 if not settings else None
        rows.append(ratio(f"CPU of all threads / span + histogram, {how}", values["ours"], values["theirs"], goal))
    return rows


if __name__ == "__main__":
    run_alone(figures)
