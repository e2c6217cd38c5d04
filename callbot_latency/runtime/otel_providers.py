"""OpenTelemetry's providers: the application's where it has one, else ours, with exporters as the settings say."""

import contextlib
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from ..base.internal_errors import call_safely
from ..base.scrubbing import scrub
from ..config import ConfigError, LatencyConfig, otel_names
from ..interop.span_processor import LatencySpanProcessor
from ..pipeline.histograms import views
from ..semconv import LOGGER_PROVIDERS, OTEL_EXPORTER_PROMETHEUS_HOST, OTEL_EXPORTER_PROMETHEUS_PORT
from ..tracing.sdk_internals import AttributeWriting, attributes_are_a_dict, is_roomy

__all__ = ["Providers", "open_providers"]

_log = logging.getLogger(LOGGER_PROVIDERS)

_OTLP: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
_with_our_processor: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class _ExporterRelay(LatencySpanProcessor):
    """Our processor, which also passes spans on to the exporters of the running session.

    OpenTelemetry allows one global provider a process and none of its processors to be removed; through the relay
    the first provider of ours goes on exporting after `shutdown()` and a second `init()`.
    """

    def __init__(self) -> None:
        self.targets: tuple[SpanProcessor, ...] = ()

    def on_end(self, span: ReadableSpan) -> None:
        LatencySpanProcessor.on_end(self, span)
        for target in self.targets:
            target.on_end(span)

    def shutdown(self) -> None:
        targets, self.targets = self.targets, ()
        for target in targets:
            target.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        flushed = [target.force_flush(timeout_millis) for target in self.targets]
        return all(flushed)


_relay: Final = _ExporterRelay()


class Providers:
    """The tracer and meter provider of a session, and how to end those of them that are ours."""

    def __init__(
        self, tracers: trace.TracerProvider, meters: metrics.MeterProvider, closers: Sequence[Callable[[], Any]]
    ) -> None:
        self.tracers = tracers
        self.meters = meters
        self._closers = tuple(closers)
        self._closing: list[threading.Thread] = []
        self._begin = threading.Event()

    def start(self) -> None:
        """Start the threads that will flush and shut down what is ours; also in a forked child, which has none.

        The SDK's own shutdown has no bound of its own, so each runs on a daemon thread that `wait_closed` waits for.
        They wait from the beginning, since from Python 3.12 on none can be started once the interpreter ends.
        """
        self._begin = begin = threading.Event()
        self._closing = [
            threading.Thread(target=_close_on, args=(begin, close), name="callbot_latency.shutdown", daemon=True)
            for close in self._closers
        ]
        for thread in self._closing:
            thread.start()

    def begin_close(self) -> None:
        """Let those threads begin."""
        self._begin.set()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for what `begin_close` began; False when that took longer than `timeout_s`, or no thread could."""
        deadline_s = monotonic() + timeout_s
        started = [thread for thread in self._closing if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, deadline_s - monotonic()))
        return len(started) == len(self._closing) and not any(thread.is_alive() for thread in started)


def _close_on(begin: threading.Event, close: Callable[[], Any]) -> None:
    begin.wait()
    call_safely(close)


def open_providers(config: LatencyConfig) -> Providers:
    """The application's providers where it has set them, else ours, made global; all or nothing.

    Raises:
        ConfigError: OpenTelemetry refuses a setting, or the Prometheus port is taken.

    """
    closers: list[Callable[[], Any]] = []
    resource: Resource | None = None
    try:
        tracers = _application_tracers()
        if tracers is None:
            with _naming_settings():
                resource = _resource()
                tracers = _our_tracers(config, resource)
            closers.append(_relay.shutdown)
        else:
            _add_our_processor(tracers)
        meters = _application_meters()
        if meters is None:
            with _naming_settings():
                meters = _our_meters(config, resource or _resource())
            closers.append(meters.shutdown)
    except BaseException:
        for close in closers:
            call_safely(close)
        raise
    return Providers(tracers, meters, closers)


@contextlib.contextmanager
def _naming_settings() -> Iterator[None]:
    """The SDK reads its own ``OTEL_*`` as it is built, and does not always say which of them it refuses."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        text = scrub(str(error)) or type(error).__name__
        names = [name for name in otel_names() if name in text] or otel_names()
        raise ConfigError(
            f"OpenTelemetry refuses a setting ({text}); it stands in {' or '.join(names) or 'none of OTEL_*'}"
        ) from error


def _resource() -> Resource:
    # Two processes that report the same series under the same instance would overwrite each other.
    ours = Resource({"service.instance.id": str(uuid4())})
    return ours.merge(Resource.create())


def _application_tracers() -> trace.TracerProvider | None:
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider) or getattr(provider, "callbot_latency", False):
        return None
    return provider


def _application_meters() -> metrics.MeterProvider | None:
    provider = metrics.get_meter_provider()
    if type(provider).__name__ == "_ProxyMeterProvider" or getattr(provider, "callbot_latency", False):
        return None
    return provider


def _add_our_processor(provider: Any) -> None:
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        _log.info("%s takes no span processor: only what callbot_latency opens is measured", type(provider).__name__)
    elif provider not in _with_our_processor:
        add(LatencySpanProcessor())
        _with_our_processor.add(provider)


class _OurTracerProvider(TracerProvider):
    """Ours: made by `open_providers`, and recognised by it later."""

    callbot_latency = True

    def __init__(self, resource: Resource) -> None:
        limits = SpanLimits()
        super().__init__(resource=resource, shutdown_on_exit=False, span_limits=limits)
        super().add_span_processor(_relay)
        self.writing = AttributeWriting(bypass_checks=is_roomy(limits) and attributes_are_a_dict())

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """The application's processor may look at a span that starts: from now on it is started with attributes."""
        self.writing.bypass_checks = False
        super().add_span_processor(span_processor)


class _OurMeterProvider(MeterProvider):
    callbot_latency = True


def _our_tracers(config: LatencyConfig, resource: Resource) -> TracerProvider:
    provider = _OurTracerProvider(resource)
    # Each exporter first: one that cannot be made leaves no thread of another's behind.
    exporters = [_span_exporter(name, config) for name in config.traces_exporters()]
    _relay.targets = tuple(BatchSpanProcessor(exporter) for exporter in exporters)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return provider


def _our_meters(config: LatencyConfig, resource: Resource) -> MeterProvider:
    # Prometheus first: its port may be taken, and then no other reader has started a thread.
    names = sorted(config.metrics_exporters(), key=lambda name: name != "prometheus")
    provider = _OurMeterProvider(
        metric_readers=[_metric_reader(name, config) for name in names],
        resource=resource,
        shutdown_on_exit=False,
        views=views(config.thresholds),
    )
    if not getattr(metrics.get_meter_provider(), "callbot_latency", False):
        metrics.set_meter_provider(provider)
    return provider


def _span_exporter(name: str, config: LatencyConfig) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    protocol = config.otlp_traces_protocol or config.otlp_protocol
    endpoint = config.otlp_traces_endpoint or _endpoint(config, protocol, "v1/traces")
    module = importlib.import_module(f"{_OTLP[protocol]}.trace_exporter")
    exporter: SpanExporter = module.OTLPSpanExporter(endpoint=endpoint)
    return exporter


def _metric_reader(name: str, config: LatencyConfig) -> MetricReader:
    if name == "prometheus":
        return _prometheus_reader(config)
    if name == "console":
        return PeriodicExportingMetricReader(ConsoleMetricExporter())
    protocol = config.otlp_metrics_protocol or config.otlp_protocol
    endpoint = config.otlp_metrics_endpoint or _endpoint(config, protocol, "v1/metrics")
    module = importlib.import_module(f"{_OTLP[protocol]}.metric_exporter")
    return PeriodicExportingMetricReader(module.OTLPMetricExporter(endpoint=endpoint))


def _endpoint(config: LatencyConfig, protocol: str, signal: str) -> str | None:
    """Where a signal goes by the endpoint for all: over HTTP each has its path beneath it (OTLP exporter spec)."""
    if config.otlp_endpoint is None or protocol == "grpc":
        return config.otlp_endpoint
    return f"{config.otlp_endpoint.rstrip('/')}/{signal}"


def _prometheus_reader(config: LatencyConfig) -> MetricReader:
    import prometheus_client
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    owner = os.getpid()

    class Served(PrometheusMetricReader):
        """Gives its port back, so that a second `init()` can have it."""

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            # A forked child has the socket, but not the thread that its shutdown would wait for.
            if os.getpid() == owner:
                server.shutdown()
            server.server_close()
            super().shutdown(timeout_millis, **kwargs)

    try:
        server, _ = prometheus_client.start_http_server(config.prometheus_port, config.prometheus_host)
    except OSError as error:
        raise ConfigError(
            f"{OTEL_EXPORTER_PROMETHEUS_HOST}, {OTEL_EXPORTER_PROMETHEUS_PORT}: expected an address to listen on, "
            f"got {config.prometheus_host}:{config.prometheus_port} ({error.strerror})"
        ) from None
    return Served()
