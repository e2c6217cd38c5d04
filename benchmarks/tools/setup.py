"""callbot_latency as a bot runs it, with exporters that send nothing; and the same of OpenTelemetry alone."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from callbot_latency import LatencyConfig, Thresholds, add_alert_callback, init, shutdown
from callbot_latency.measuring.active_session import active
from callbot_latency.pipeline.histograms import views
from callbot_latency.runtime import otel_providers as providers
from callbot_latency.semconv import OPERATION_DURATION, SCOPE

SPAN_NAME: Final = "speech_to_text transcribe"
ATTRIBUTES: Final = {
    "operation_type": "speech_to_text",
    "operation_name": "transcribe",
    "provider": "google",
    "call_sid": "CA1",
    "stream_sid": "MZ1",
    "status": "success",
}
"""What a span of ours carries, so that the bare one carries the same."""


class NullSpanExporter(SpanExporter):
    """Takes spans and does nothing, so that no server's speed is measured."""

    def __init__(self, *_: Any) -> None: ...

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class NullMetricExporter(MetricExporter):
    """Takes metrics and does nothing."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None: ...


@contextmanager
def measuring(*, export: bool = True, **settings: Any) -> Iterator[None]:
    """`init()` with file, tracker, histograms, thresholds, deadlines, alerts to log and callback, and batch export.

    The exporters named ``console`` are replaced by those that do nothing; all else is as `init()` makes it.
    """
    exporters = ("console",) if export else ()
    # Alerts are logged, and by nobody shown.
    logging.getLogger("callbot_latency").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as folder:
        config = LatencyConfig(
            metrics_file_path=Path(folder) / "metrics.jsonl",
            traces_exporter=exporters,
            metrics_exporter=exporters,
            **settings,
        )
        with patch.multiple(providers, ConsoleSpanExporter=NullSpanExporter, ConsoleMetricExporter=NullMetricExporter):
            init(config)
        add_alert_callback(lambda _: None)
        try:
            yield
        finally:
            shutdown(30)


def flush() -> None:
    """Until all that was measured is with the file and the exporters."""
    session = active.session
    if session is None or not session.flush(30) or not providers._relay.force_flush():  # noqa: SLF001
        raise RuntimeError("the worker or an exporter did not end in time")


def bare_provider(*, export: bool = True) -> TracerProvider:
    """OpenTelemetry's own, without our processor."""
    provider = TracerProvider(shutdown_on_exit=False)
    if export:
        provider.add_span_processor(BatchSpanProcessor(NullSpanExporter()))
    return provider


def bare_tracer(*, export: bool = True) -> Tracer:
    """A tracer of that."""
    return bare_provider(export=export).get_tracer("bare")


def bare_meter() -> Meter:
    """One whose histogram has the View of ours."""
    reader = PeriodicExportingMetricReader(NullMetricExporter())
    return MeterProvider([reader], shutdown_on_exit=False, views=views(Thresholds())).get_meter(SCOPE)


def bare_histogram(meter: Meter) -> Any:
    """The duration of operations."""
    return meter.create_histogram(OPERATION_DURATION, unit="s")
