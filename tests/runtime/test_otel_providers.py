"""Whose providers, and where telemetry goes. OpenTelemetry's globals want a process each."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import ConfigError, init
from tests.conftest import Start
from tests.support.subprocesses import at_once, facts_of, run_python

pytestmark = pytest.mark.real_time


def test_ours_become_the_global_ones_and_stay_over_a_second_init(tmp_path: Path) -> None:
    """OpenTelemetry takes one a process: the second session is measured all the same, and once."""
    code = """
    from opentelemetry import metrics, trace
    init()
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    seen = []
    for n in range(3):
        listen()
        with trace.get_tracer("library").start_as_current_span("x", attributes={"operation_type": "rag_inference"}):
            pass
        shutdown(60)
        seen.append(len(latency_tracker.metrics))
        init()
    tell(names=[type(tracers).__name__, type(meters).__name__], seen=seen,
         same=tracers is trace.get_tracer_provider() and meters is metrics.get_meter_provider())
    """
    done = run_python(code, tmp_path)
    told = facts_of(done)
    assert told == {"names": ["_OurTracerProvider", "_OurMeterProvider"], "seen": [2, 4, 6], "same": True}
    assert done.stderr == ""


def test_an_applications_providers_are_used_and_left_alone(tmp_path: Path) -> None:
    """Its exporters get our spans; they work on after our shutdown."""
    code = """
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    init()
    listen()
    shutdown(60)
    trace.get_tracer("library").start_span("after").end()
    names = [m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics]
    tell(spans=[span.name for span in exporter.get_finished_spans()], measured="callbot.operation.duration" in names)
    """
    done = run_python(code, tmp_path)
    assert facts_of(done) == {"spans": ["speech_to_text listen", "after"], "measured": True}
    assert done.stderr == ""


def test_without_an_exporter_nothing_is_sent_and_nothing_said(tmp_path: Path) -> None:
    """No endpoint, no attempt."""
    done = run_python("init(); listen(); shutdown(60); tell()", tmp_path)
    assert facts_of(done) == {}
    assert done.stderr == ""


def test_console_exporters_write_spans_and_metrics(tmp_path: Path) -> None:
    """OTEL_*_EXPORTER=console, also in a second session; each span is written once."""
    code = """
    init()
    listen()
    shutdown(60)
    init()
    with measure_latency_context("rag_inference", "ask"):
        pass
    shutdown(60)
    """
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    done = run_python(code, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"name": "speech_to_text listen"') == 1
    assert done.stdout.count('"name": "rag_inference ask"') == 1
    assert '"name": "callbot.operation.duration"' in done.stdout


def test_the_resource_names_service_and_instance(tmp_path: Path) -> None:
    """What OTEL_RESOURCE_ATTRIBUTES says wins; each process has an instance of its own."""
    code = """
    init()
    providers = cl.runtime.lifecycle._runtime.providers
    resources = providers.tracers.resource, providers.meters._sdk_config.resource
    tell(tracers=dict(resources[0].attributes), meters=dict(resources[1].attributes))
    """
    environments = {"OTEL_SERVICE_NAME": "bot"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine"}
    one, two = map(facts_of, at_once(lambda each: run_python(code, tmp_path, each), environments))
    assert one["tracers"] == one["meters"]
    assert one["tracers"]["service.name"] == "bot"
    assert len(one["tracers"]["service.instance.id"]) == 36
    assert two["tracers"]["service.instance.id"] == "mine"


def test_prometheus_is_served_and_its_port_given_back(tmp_path: Path) -> None:
    """A second `init()` serves on the same port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = """
    import urllib.request
    pages = []
    for _ in range(2):
        init()
        listen()
        cl.runtime.lifecycle._runtime.pipeline.flush(60)
        with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['OTEL_EXPORTER_PROMETHEUS_PORT']}/metrics") as page:
            pages.append(page.read().decode())
        shutdown(60)
    name = "callbot_operation_duration_seconds_count"
    lines = [[row for row in page.splitlines() if row.startswith(name)] for page in pages]
    tell(lines=lines)
    """
    environment = {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
    }
    told: Any = facts_of(run_python(code, tmp_path, environment))
    for (row,) in told["lines"]:
        assert 'operation_name="listen"' in row
        assert 'status="success"' in row
        assert "call_sid" not in row
        assert row.endswith(" 1.0")


def test_a_port_that_is_taken_is_a_config_error(start: Start) -> None:
    """Naming the variables and the address; nothing is left running, and a better setting works."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"OTEL_EXPORTER_PROMETHEUS_PORT: expected .* got 127.0.0.1:{port} \("):
            start(metrics_exporter=("prometheus",), prometheus_host="127.0.0.1", prometheus_port=port)
    start()


def test_a_provider_that_takes_no_processor_is_measured_all_the_same(tmp_path: Path) -> None:
    """An application's own kind of provider: what we open counts."""
    code = """
    from opentelemetry import trace
    class Own(trace.TracerProvider):
        def get_tracer(self, *args, **kwargs):
            return trace.NoOpTracer()
    trace.set_tracer_provider(Own())
    init()
    listen()
    tell(metrics=[m.to_dict()["operation_name"] for m in latency_tracker.metrics])
    """
    assert facts_of(run_python(code, tmp_path)) == {"metrics": ["listen"]}
    assert json.loads((tmp_path / "outputs/logs/latency_metrics.jsonl").read_text())["operation_name"] == "listen"


@pytest.mark.promise("wrong-settings")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "foo"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "foo"),
    ],
)
def test_what_the_sdk_refuses_is_a_config_error_that_names_the_variable(name: str, value: str, tmp_path: Path) -> None:
    """The SDK raises whatever it happens to, often without the name; a better setting works afterwards."""
    code = f"""
    try:
        init()
    except cl.ConfigError as error:
        said = str(error)
    del os.environ[{name!r}]
    init()
    tell(said=said)
    os._exit(0)
    """
    environment = {name: value, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    told = facts_of(run_python(code, tmp_path, environment))
    assert told["said"].startswith("OpenTelemetry refuses a setting (")
    assert name in told["said"]


def test_init_says_what_it_expects_of_its_config() -> None:
    """A path or a dict is no LatencyConfig."""
    with pytest.raises(TypeError, match="config: expected a LatencyConfig, got str"):
        init("settings.toml")  # type: ignore[arg-type]
