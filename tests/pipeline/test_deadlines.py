"""An operation that hangs is told while the caller waits, once."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callbot_latency import (
    Alert,
    OperationStatus,
    OperationType,
    Severity,
    add_alert_callback,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    shutdown,
)
from callbot_latency.measuring.measurement import operation_of
from callbot_latency.model.operation import ThresholdsMs
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.pipeline.converter import claim_deadline_report, to_metric
from callbot_latency.pipeline.deadlines import Deadlines
from callbot_latency.runtime import lifecycle as runtime_module
from tests.conftest import Start, ticking

pytestmark = pytest.mark.usefixtures("fresh_callbacks")


class Heard:
    """Alerts as a callback gets them."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.came = threading.Event()
        add_alert_callback(self)

    def __call__(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.came.set()


@pytest.fixture
def quick(start: Start) -> Callable[[], Heard]:
    def begin() -> Heard:
        start(salesforce_warning_ms=10, salesforce_critical_ms=30)
        return Heard()

    return begin


def test_it_is_told_before_it_ends(quick: Callable[[], Heard], caplog: pytest.LogCaptureFixture) -> None:
    """The alert comes while the block runs; the end brings the final duration to callbacks, and no second line."""
    caplog.set_level(logging.INFO, "callbot_latency.alerting")
    heard = quick()
    with measure_latency_context("salesforce_api", "query", provider="salesforce", call_sid="CA1"):
        assert heard.came.wait(60)
    assert shutdown(60)
    first, last = heard.alerts
    assert (first.in_flight, first.severity, first.metric.status) == (True, Severity.CRITICAL, OperationStatus.RUNNING)
    assert first.metric.latency_ms >= 30
    assert first.metric.call_sid == "CA1"
    assert (last.in_flight, last.metric.told_in_flight, last.slow) == (False, True, 1)
    assert last.metric.latency_ms >= first.metric.latency_ms
    lines = [line.getMessage() for line in caplog.records if line.name == "callbot_latency.alerting"]
    assert len(lines) == 1
    assert lines[0].startswith("critical: still running: salesforce_api query (salesforce) for ")


def test_it_counts_once(quick: Callable[[], Heard]) -> None:
    """The tracker knows finished operations alone."""
    heard = quick()
    with measure_latency_context("salesforce_api", "query"):
        assert heard.came.wait(60)
        assert latency_tracker.get_stats() == {}
    (stats,) = latency_tracker.get_stats().values()
    assert stats["count"] == 1


def test_cancelled_after_its_deadline_it_keeps_its_severity(quick: Callable[[], Heard]) -> None:
    """The breach was told; the caller hung up later. Percentiles stay without it."""
    heard, exporter = quick(), InMemorySpanExporter()
    running = runtime_module._runtime
    assert running is not None
    provider: Any = running.providers.tracers
    TracerProvider.add_span_processor(provider, SimpleSpanProcessor(exporter))

    @measure_latency(OperationType.SALESFORCE)
    async def hang() -> None:
        await asyncio.sleep(600)

    async def main() -> None:
        task = asyncio.create_task(hang())
        assert await asyncio.to_thread(heard.came.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    (metric,) = latency_tracker.get_recent_metrics()
    assert (metric.status, metric.severity) == (OperationStatus.CANCELLED, Severity.CRITICAL)
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["severity"] == "critical"
    assert latency_tracker.get_stats()["salesforce_api/hang"]["p50_ms"] is None


def test_what_ends_in_time_is_not_told(quick: Callable[[], Heard], monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is only slow is told at its end."""
    heard, clock = quick(), ticking(monkeypatch)
    monkeypatch.setattr("callbot_latency.pipeline.deadlines.perf_counter_ns", clock)
    running = runtime_module._runtime
    assert running is not None
    for after_ms in (0, 9.9, 29.9):
        with measure_latency_context("salesforce_api", "query"):
            clock.passes(after_ms)
            running.deadlines._look()
    assert shutdown(60)
    (slow,) = heard.alerts
    assert (slow.in_flight, slow.severity, slow.metric.latency_ms) == (False, Severity.WARNING, 29.9)


def test_each_of_many_is_told_once(quick: Callable[[], Heard]) -> None:
    """One thread for all deadlines."""
    heard = quick()
    told_all = threading.Event()
    add_alert_callback(lambda _: told_all.set() if len(heard.alerts) >= 100 else None)

    async def one(number: int) -> None:
        with measure_latency_context("salesforce_api", f"query{number}"):
            assert await asyncio.to_thread(told_all.wait, 60)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(main())
    assert shutdown(60)
    in_flight = [alert.metric.operation_name for alert in heard.alerts if alert.in_flight]
    assert sorted(in_flight) == sorted(f"query{number}" for number in range(100))
    assert len(heard.alerts) == 200
    for thread in threading.enumerate():
        if thread.name.startswith("callbot_latency"):
            thread.join(60)
            assert not thread.is_alive(), thread.name


def test_what_still_runs_has_no_real_time_factor(quick: Callable[[], Heard]) -> None:
    """Its audio is known and its time is not."""
    heard = quick()
    with measure_latency_context("salesforce_api", "query") as handle:
        handle.set_audio(duration_ms=10)
        assert heard.came.wait(60)
    assert shutdown(60)
    first, last = (alert.metric for alert in heard.alerts)
    assert (first.audio_ms, first.real_time_factor) == (10, None)
    assert last.real_time_factor == last.latency_ms / 10


def test_whoever_comes_first_decides(start: Start) -> None:
    """An operation that was converted is not told any more; one that was told says so at its end."""
    start(salesforce_warning_ms=600_000, salesforce_critical_ms=600_000)  # the thread itself claims neither
    running = runtime_module._runtime
    assert running is not None
    operation = operation_of("salesforce_api", "query")
    ended, told = (running.session.start(operation) for _ in range(2))
    for measurement in (ended, told):
        measurement.elapsed_ns = 1
    assert to_metric(ended, Thresholds()).told_in_flight is None
    assert not claim_deadline_report(ended)
    assert claim_deadline_report(told)
    assert not claim_deadline_report(told)
    assert to_metric(told, Thresholds()).told_in_flight is True
    for measurement in (ended, told):
        del running.session.open_measurements[measurement.key]


def test_a_tiny_threshold_does_not_have_it_spin() -> None:
    """Between two looks it sleeps 5 ms, however soon something could be due."""
    thresholds = Thresholds({OperationType.STT.value: ThresholdsMs(0.001, 0.001)})
    looking = Deadlines({}, thresholds, lambda metric: pytest.fail(str(metric)))
    assert looking._look() == 0.005
