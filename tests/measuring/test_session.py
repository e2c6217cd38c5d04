"""Measuring while it is on: each operation is told exactly once, and nothing is left behind."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace

from callbot_latency import LatencyConfig, LatencyMetric, latency_tracker, measure_latency_context, record
from callbot_latency.measuring.active_session import active
from callbot_latency.measuring.measurement import Measurement, operation_of
from callbot_latency.measuring.session import Session
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.pipeline.tracker import LatencyTracker
from callbot_latency.pipeline.worker import Pipeline
from callbot_latency.tracing.spans import SpanFactory

STT = operation_of("speech_to_text", "listen")


@pytest.fixture
def unsampled() -> tuple[Session, LatencyTracker, Pipeline]:
    """A session on no SDK, whose pipeline runs when it is drained."""
    tracker = LatencyTracker()
    pipeline = Pipeline(tracker, [], Thresholds())
    return Session(SpanFactory.on(trace.NoOpTracerProvider()), Thresholds(), pipeline), tracker, pipeline


def test_without_a_recording_span_it_is_told_directly(
    unsampled: tuple[Session, LatencyTracker, Pipeline],
) -> None:
    """The same metric, without ids of a span that is nowhere to be found."""
    session, tracker, pipeline = unsampled
    measurement = session.open(STT, None, "CA1", "MZ1", {"a": 1})
    assert list(session.open_measurements.values()) == [measurement]
    session.close(measurement, None)
    pipeline.drain()
    (told,) = tracker.metrics
    assert (told.operation_name, told.call_sid, told.stream_sid, told.metadata) == ("listen", "CA1", "MZ1", {"a": 1})
    assert (told.trace_id, told.span_id) == (None, None)
    assert not session.open_measurements


def test_many_open_at_once_without_spans_are_all_told(unsampled: tuple[Session, LatencyTracker, Pipeline]) -> None:
    """Their keys do not collide."""
    session, tracker, pipeline = unsampled
    opened = [session.start(STT) for _ in range(500)]
    assert len(session.open_measurements) == 500
    for measurement in opened:
        measurement.elapsed_ns = 1
        session.end(measurement, None)
    pipeline.drain()
    assert len(tracker.metrics) == 500


def test_the_table_holds_what_runs(measuring: LatencyConfig) -> None:
    """By span id, from opening to closing, and only then."""
    session: Any = active.session
    with measure_latency_context("speech_to_text", "a") as a, measure_latency_context("speech_to_text", "b") as b:
        assert list(session.open_measurements.values()) == [a, b]
        assert list(session.open_measurements) == [m.span_context.span_id for m in (a, b)]  # type: ignore[attr-defined]
    assert not session.open_measurements


@pytest.mark.promise("weeks-of-running")
def test_an_ended_measurement_keeps_no_span_alive(measuring: LatencyConfig) -> None:
    """What waits for the worker is small."""
    with measure_latency_context("speech_to_text", "a") as handle:
        assert isinstance(handle, Measurement)
        span = weakref.ref(handle.span)
    gc.collect()
    assert span() is None
    assert not hasattr(handle, "context")


@pytest.mark.promise("weeks-of-running")
def test_no_measurement_outlives_its_task(measuring: LatencyConfig) -> None:
    """A thousand tasks, kept after they ended with the contexts that they ran in: none keeps what it measured."""
    alive: list[weakref.ref[Any]] = []

    async def work() -> None:
        with measure_latency_context("speech_to_text", "outer") as outer:
            async with measure_latency_context("rag_inference", "inner") as inner:
                await asyncio.sleep(0)
            alive.extend([weakref.ref(outer), weakref.ref(inner)])

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(work()) for _ in range(1_000)]
        await asyncio.gather(*tasks)
        return tasks

    tasks = asyncio.run(main())
    session: Any = active.session
    assert session.flush(60)
    gc.collect()
    assert len(tasks) == 1_000
    assert len(alive) == 2_000
    assert not [reference for reference in alive if reference() is not None]


def test_threads_at_once_are_each_told_once(measuring: LatencyConfig) -> None:
    """No measurement is lost or told twice, and none stays open."""
    barrier = threading.Barrier(8)

    def work(n: int) -> None:
        barrier.wait(60)
        for i in range(200):
            with measure_latency_context("speech_to_text", f"t{n}", metadata={"i": i}):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    told = sorted((m.operation_name, m.metadata["i"]) for m in latency_tracker.metrics)
    assert told == sorted((f"t{n}", i) for n in range(8) for i in range(200))
    assert active.session is not None
    assert not active.session.open_measurements


def test_record_while_off_is_nothing(measuring: LatencyConfig) -> None:
    """As every other operation."""
    latency_tracker.enabled = False
    record(LatencyMetric("speech_to_text", "f", 1, "success"))  # type: ignore[arg-type]
    latency_tracker.enabled = True
    assert not latency_tracker.metrics
