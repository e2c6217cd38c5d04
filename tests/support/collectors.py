"""Collectors, good and bad, that run in the test's own process."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.support.scripted_http import LOCALHOST, Answer, Request, scripted


def free_port() -> int:
    """A port on which nobody listens, of those that the system gives to nobody by itself: it stays free."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOCALHOST, port))
            return port


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """The URL of a Collector that is down: every connection is refused while the port is held."""
    with socket.socket() as held:
        held.bind((LOCALHOST, 0))
        yield f"http://{LOCALHOST}:{held.getsockname()[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """The URL of a Collector that hangs: it accepts every connection and never answers."""
    with socket.socket() as listening:
        listening.bind((LOCALHOST, 0))
        listening.listen(64)
        accepted: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://{LOCALHOST}:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


HANGING_EXPORTS = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
    "OTEL_BSP_EXPORT_TIMEOUT": "60000",
    "OTEL_METRIC_EXPORT_TIMEOUT": "60000",
}
"""An export that nobody takes goes on for a minute: whoever waits for it takes far longer than any bound of ours."""
BROKEN = {"refusing": refusing, "silent": silent}


@dataclass
class Received:
    """What a good Collector was sent."""

    url: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def spans(self) -> list[Any]:
        """Every span."""
        return [s for request in self.traces for r in request.resource_spans for sc in r.scope_spans for s in sc.spans]

    def metric_names(self) -> set[str]:
        """The name of every metric."""
        return {
            m.name
            for request in self.metrics
            for r in request.resource_metrics
            for s in r.scope_metrics
            for m in s.metrics
        }

    def resources(self) -> list[dict[str, str]]:
        """The resource of every span and metric request, as text."""
        both = [r for request in self.traces for r in request.resource_spans]
        both += [r for request in self.metrics for r in request.resource_metrics]
        return [{a.key: a.value.string_value for a in each.resource.attributes} for each in both]


@contextlib.contextmanager
def http_collector() -> Iterator[Received]:
    """A Collector that takes OTLP by HTTP and protobuf."""
    received = Received()

    def take(request: Request) -> Answer:
        received.headers.append(request.headers)
        if request.path == "/v1/traces":
            received.traces.append(trace_service_pb2.ExportTraceServiceRequest.FromString(request.body))
        elif request.path == "/v1/metrics":
            received.metrics.append(metrics_service_pb2.ExportMetricsServiceRequest.FromString(request.body))
        return Answer(200, headers={"Content-Type": "application/x-protobuf"})

    with scripted(take) as server:
        received.url = server.url
        yield received


@contextlib.contextmanager
def grpc_collector() -> Iterator[Received]:
    """A Collector that takes OTLP by gRPC."""
    received = Received()

    def seen(context: Any) -> None:
        received.headers.append({key: str(value) for key, value in context.invocation_metadata()})

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            seen(context)
            received.traces.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            seen(context)
            received.metrics.append(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    received.url = f"http://{LOCALHOST}:{server.add_insecure_port(f'{LOCALHOST}:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


COLLECTORS = {"grpc": grpc_collector, "http/protobuf": http_collector}
