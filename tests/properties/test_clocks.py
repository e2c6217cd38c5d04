"""What holds however the wall clock is set."""

from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callbot_latency.measuring.measurement import operation_of
from callbot_latency.measuring.session import Session
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.pipeline.tracker import LatencyTracker
from callbot_latency.pipeline.worker import Pipeline
from callbot_latency.tracing.spans import SpanFactory

S = 10**9
DAY_NS, HOUR_NS = 86_400 * S, 3_600 * S

runs = st.lists(st.tuples(st.integers(0, 600 * S), st.integers(-DAY_NS, DAY_NS)), min_size=1, max_size=20)
"""How long each operation takes, and by how much the wall clock is set meanwhile, in nanoseconds."""


@pytest.mark.promise("wall-clock")
@given(runs)
@example([(S, -S), (S, HOUR_NS), (S, -HOUR_NS)])
@example([(S, S // 2000)] * 20)
def test_no_step_of_the_wall_clock_changes_a_duration(runs: list[tuple[int, int]]) -> None:
    """Up to a day either way, daylight saving and a slewing NTP among them: metric and span last what passed."""
    monotonic_ns, wall_ns, exporter, tracker = 7 * S, 1_735_732_800 * S, InMemorySpanExporter(), LatencyTracker()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline = Pipeline(tracker, [], Thresholds())
    session, operation = Session(SpanFactory.on(provider), Thresholds(), pipeline), operation_of("speech_to_text", "f")
    with (
        patch("callbot_latency.measuring.session.perf_counter_ns", lambda: monotonic_ns),
        patch("callbot_latency.measuring.session.time_ns", lambda: wall_ns),
    ):
        for elapsed_ns, step_ns in runs:
            measurement = session.open(operation)
            monotonic_ns += elapsed_ns
            wall_ns += elapsed_ns + step_ns
            session.close(measurement, None)
    pipeline.drain()
    spans = exporter.get_finished_spans()
    assert [(span.end_time or 0) - (span.start_time or 0) for span in spans] == [elapsed_ns for elapsed_ns, _ in runs]
    assert [metric.latency_ms for metric in tracker.metrics] == [elapsed_ns / 1e6 for elapsed_ns, _ in runs]
