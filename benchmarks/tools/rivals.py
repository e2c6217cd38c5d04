"""The same work, done with others: a span with the same attributes, a histogram, and whether a threshold was reached.

Each runs in a process of its own, with the bare span beside it: ``python -m benchmarks.tools.rivals NAME`` answers
every line of its standard input with a line of microseconds a call, one round.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final, NamedTuple

from callbot_latency import call

from ..figures import caller
from .harness import CALLS, pin, timed
from .setup import (
    ATTRIBUTES,
    SPAN_NAME,
    NullMetricExporter,
    NullSpanExporter,
    bare_histogram,
    bare_meter,
    bare_provider,
    bare_tracer,
    measuring,
)

CHUNKS: Final = 20
PAUSE_S: Final = 0.1
WARNING_MS: Final = 2000.0
LABELS: Final = {name: ATTRIBUTES[name] for name in ("operation_type", "operation_name", "provider", "status")}


class Rival(NamedTuple):
    """A measured call, what stands for the phone call around fifty of them, and how it does each part."""

    function: Callable[[], object]
    around: Callable[[], AbstractContextManager[Any]]


def severity(took_s: float) -> str | None:
    """What everybody but us and autometrics compares by hand."""
    return None if took_s * 1000 < WARNING_MS else "warning"


def ours() -> Rival:
    """`@measure_latency`, with the call of the whole run around it."""
    return Rival(caller.measured, nullcontext)


def by_hand() -> Rival:
    """OpenTelemetry's span, prometheus_client's histogram and counter."""
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    tracer = bare_tracer()
    histogram = Histogram("operation_duration_seconds", "How long.", list(LABELS), registry=registry)
    breaches = Counter("threshold_breaches", "How often.", ["severity"], registry=registry)

    def run() -> None:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES) as span:
            started_ns = time.perf_counter_ns()
            took_s = (time.perf_counter_ns() - started_ns) / 1e9
            histogram.labels(**LABELS).observe(took_s)
            if (level := severity(took_s)) is not None:
                breaches.labels(level).inc()
                span.set_attribute("severity", level)

    return Rival(run, nullcontext)


def opentelemetry() -> Rival:
    """OpenTelemetry's span, histogram and counter."""
    tracer, meter = bare_tracer(), bare_meter()
    histogram, breaches = bare_histogram(meter), meter.create_counter("threshold_breaches")

    def run() -> None:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES) as span:
            started_ns = time.perf_counter_ns()
            took_s = (time.perf_counter_ns() - started_ns) / 1e9
            histogram.record(took_s, LABELS)
            if (level := severity(took_s)) is not None:
                breaches.add(1, {"severity": level})
                span.set_attribute("severity", level)

    return Rival(run, nullcontext)


def logfire() -> Rival:
    """Its span, its histogram; console and its own service off, the same null exporters."""
    import logfire as library
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    library.configure(
        send_to_logfire=False,
        console=False,
        additional_span_processors=[BatchSpanProcessor(NullSpanExporter())],
        metrics=library.MetricsOptions(additional_readers=[PeriodicExportingMetricReader(NullMetricExporter())]),
    )
    histogram = library.metric_histogram("operation.duration", unit="s")

    def run() -> None:
        with library.span(SPAN_NAME, **ATTRIBUTES) as span:
            started_ns = time.perf_counter_ns()
            took_s = (time.perf_counter_ns() - started_ns) / 1e9
            histogram.record(took_s, LABELS)
            if (level := severity(took_s)) is not None:
                span.set_attribute("severity", level)

    return Rival(run, nullcontext)


def ddtrace() -> Rival:
    """Its span; its own statistics are the histogram. The agent is a server that says yes."""
    os.environ |= {
        "DD_TRACE_STATS_COMPUTATION_ENABLED": "true",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }
    from ddtrace.trace import tracer

    def run() -> None:
        started_ns = time.perf_counter_ns()
        with tracer.trace(SPAN_NAME, service="callbot") as span:
            span.set_tags(ATTRIBUTES)
            took_s = (time.perf_counter_ns() - started_ns) / 1e9
            if (level := severity(took_s)) is not None:
                span.set_tag("severity", level)

    return Rival(run, lambda: tracer.trace("call"))


def sentry() -> Rival:
    """Its span in a transaction of fifty, its distribution; the transport does nothing."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class NullTransport(Transport):
        def capture_envelope(self, envelope: Any) -> None: ...

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=NullTransport, traces_sample_rate=1.0, default_integrations=False
    )

    def run() -> None:
        with sentry_sdk.start_span(op="speech_to_text", name=SPAN_NAME) as span:
            started_ns = time.perf_counter_ns()
            for name, value in ATTRIBUTES.items():
                span.set_data(name, value)
            took_s = (time.perf_counter_ns() - started_ns) / 1e9
            sentry_sdk.metrics.distribution("operation.duration", took_s, unit="second", attributes=LABELS)
            if (level := severity(took_s)) is not None:
                span.set_data("severity", level)

    return Rival(run, lambda: sentry_sdk.start_transaction(name="call"))


def autometrics() -> Rival:
    """Its histogram with an objective, which is its threshold; it has no span, so OpenTelemetry's is around it."""
    import autometrics as library
    from autometrics.objectives import Objective, ObjectiveLatency, ObjectivePercentile

    library.init(tracker="prometheus", service_name="bench")
    objective = Objective("stt", latency=(ObjectiveLatency.Ms2500, ObjectivePercentile.P99))
    tracer = bare_tracer()

    @library.autometrics(objective=objective)
    def run() -> int:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            return 1

    return Rival(run, nullcontext)


RIVALS: Final[dict[str, Callable[[], Rival]]] = {
    "ours": ours,
    "OpenTelemetry + prometheus_client by hand": by_hand,
    "OpenTelemetry alone by hand": opentelemetry,
    "logfire": logfire,
    "ddtrace": ddtrace,
    "sentry-sdk": sentry,
    "autometrics + OpenTelemetry's span": autometrics,
}


@contextmanager
def surroundings(name: str) -> Iterator[None]:
    """What the whole run happens in: ours measures, and all spans have a parent."""
    with ExitStack() as stack:
        if name == "ours":
            stack.enter_context(measuring())
            stack.enter_context(call("CA1", stream_sid="MZ1"))
        else:
            stack.enter_context(bare_provider().get_tracer("bare").start_as_current_span("call"))
        yield


def main() -> None:
    """Answer line by line."""
    name = sys.argv[1]
    pin()
    with surroundings(name):
        function, around = RIVALS[name]()
        bare, _ = caller.bare_functions(bare_tracer())

        def fifty() -> None:
            with around():
                for _ in range(CALLS):
                    function()

        chunk, bare_chunk = timed(fifty), timed(bare)
        for _ in sys.stdin:
            taken: tuple[list[float], list[float]] = ([], [])
            for number in range(CHUNKS):
                taken[0].append(chunk(1) / CALLS)
                taken[1].append(bare_chunk(CALLS))
                if number % 10 == 9:
                    time.sleep(PAUSE_S)
            print(json.dumps([statistics.median(each) for each in taken]), flush=True)


if __name__ == "__main__":
    main()
