"""Where telemetry is sent: to a good Collector, to one that is down or hangs, to Prometheus, to nobody."""

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.collectors import BROKEN, COLLECTORS, HANGING_EXPORTS, LOCALHOST, free_port
from tests.support.subprocesses import facts_of, run_python, written

PROTOCOLS = ("grpc", "http/protobuf")
EXIT_BOUND_S = 10.0
"""Our own bound is 2 s, and an export that nobody takes would go on for 60 s."""

MEASURE_50 = """
init()
for _ in range(50):
    listen()
until(lambda: has_delivered(50))
"""


def beside_each_broken_collector(code: str, folder: Path) -> Iterator[tuple[str, dict[str, Any], float, Path]]:
    """Run `code` beside each fault and protocol, all at once: what it told, when it was over, and where it ran."""

    def beside(fault: str, protocol: str) -> tuple[str, dict[str, Any], float, Path]:
        cwd = folder / f"{fault} {protocol.partition('/')[0]}"
        cwd.mkdir()
        with BROKEN[fault]() as url:
            environment = {
                **HANGING_EXPORTS,
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            }
            done = run_python(code, cwd, environment)
            over_s = monotonic()
        assert "Traceback" not in done.stderr
        return fault, facts_of(done), over_s, cwd

    with ThreadPoolExecutor() as pool:
        yield from pool.map(beside, *zip(*itertools.product(BROKEN, PROTOCOLS), strict=True))


@pytest.mark.promise("end-in-time")
def test_shutdown_keeps_its_bound(tmp_path: Path) -> None:
    """Whatever the Collector does, `shutdown()` returns in time, and the interpreter waits no second time."""
    code = """
began_s = time.monotonic()
on_time = shutdown(timeout_s=2.0)
tell(took_s=time.monotonic() - began_s, on_time=on_time, ended_at_s=time.monotonic())
"""
    for fault, facts, over_s, cwd in beside_each_broken_collector(MEASURE_50 + code, tmp_path):
        assert facts["took_s"] < EXIT_BOUND_S, cwd.name
        assert over_s - facts["ended_at_s"] < EXIT_BOUND_S, cwd.name
        assert fault != "silent" or facts["on_time"] is False
        assert len(written(cwd)) == 50


@pytest.mark.promise("end-in-time")
def test_the_interpreter_exits_in_time(tmp_path: Path) -> None:
    """Without `shutdown()` the exit itself is bounded, and what was measured stands in the file."""
    code = MEASURE_50 + "keep_the_bound()\ntell(ended_at_s=time.monotonic())"
    for _, facts, over_s, cwd in beside_each_broken_collector(code, tmp_path):
        assert over_s - facts["ended_at_s"] < EXIT_BOUND_S, cwd.name
        assert len(written(cwd)) == 50


@pytest.mark.promise("hanging-consumer")
def test_a_silent_collector_costs_the_caller_nothing(tmp_path: Path) -> None:
    """5,000 measurements, more than the spans' queue holds, end while an export may hang for ten minutes."""
    with BROKEN["silent"]() as url:
        done = run_python(
            """
            init()
            slowest_s = 0.0
            for n in range(5_000):
                started_s = time.monotonic()
                listen()
                slowest_s = max(slowest_s, time.monotonic() - started_s)
            until(lambda: has_delivered(5_000))
            keep_the_bound()
            tell(slowest_s=slowest_s)
            """,
            tmp_path,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
                "OTEL_BSP_EXPORT_TIMEOUT": "600000",
            },
        )
    assert facts_of(done)["slowest_s"] < 10.0
    assert len(written(tmp_path)) == 5_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_good_collector_receives_spans_and_metrics(protocol: str, tmp_path: Path) -> None:
    """By each protocol, with service name, resource attributes and headers, all sent before the exit."""
    with COLLECTORS[protocol]() as received:
        done = run_python(
            """
            init()
            with cl.call("CA1"):
                listen()
            listen()
            """,
            tmp_path,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-team=voice",
                "OTEL_SERVICE_NAME": "bot",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,region=eu",
            },
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(span.name for span in received.spans()) == ["call", "speech_to_text listen", "speech_to_text listen"]
    assert {"callbot.operation.duration", "callbot.operations.active"} <= received.metric_names()
    for resource in received.resources():
        assert resource["service.name"] == "bot"
        assert resource["deployment.environment.name"] == "prod"
        assert resource["region"] == "eu"
        assert resource["service.instance.id"]
    assert received.headers
    assert all(headers["x-team"] == "voice" for headers in received.headers)


def test_traces_and_metrics_may_go_different_ways(tmp_path: Path) -> None:
    """OTEL_EXPORTER_OTLP_TRACES_* and OTEL_EXPORTER_OTLP_METRICS_* each with a protocol of its own."""
    with COLLECTORS["grpc"]() as traces, COLLECTORS["http/protobuf"]() as metrics:
        done = run_python(
            "init(); listen()",
            tmp_path,
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.url,
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{metrics.url}/v1/metrics",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            },
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(traces.spans()) == 1
    assert traces.metrics == []
    assert "callbot.operation.duration" in metrics.metric_names()
    assert metrics.traces == []


def test_spans_go_on_to_the_collector_after_a_second_init(tmp_path: Path) -> None:
    """`init()` after `shutdown()` sends again, each span once."""
    with COLLECTORS["http/protobuf"]() as received:
        done = run_python(
            """
            for _ in range(3):
                init()
                listen()
                shutdown()
                listen()
            """,
            tmp_path,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        )
    assert done.returncode == 0, done.stderr
    assert len(received.spans()) == 3
    assert len({span.span_id for span in received.spans()}) == 3
    assert len(written(tmp_path)) == 3


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}], ids=["unset", "none"]
)
def test_without_an_exporter_nothing_is_sent(environment: dict[str, str], tmp_path: Path) -> None:
    """No socket is opened, no name resolved and nothing tried again."""
    done = run_python(
        """
        touched = []
        sys.addaudithook(lambda event, args: event.startswith("socket.") and touched.append(event))
        init()
        for _ in range(100):
            listen()
        shutdown()
        sockets = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
                   and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")]
        tell(touched=touched, sockets=sockets, grpc="grpc" in sys.modules)
        """,
        tmp_path,
        environment,
    )
    assert facts_of(done) == {"touched": [], "sockets": [], "grpc": False}
    assert done.stderr == ""
    assert len(written(tmp_path)) == 100


def test_the_console_exporters_write_on_stdout(tmp_path: Path) -> None:
    """OTEL_TRACES_EXPORTER=console and OTEL_METRICS_EXPORTER=console."""
    done = run_python(
        "init(); listen()", tmp_path, {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"name": "speech_to_text listen"' in done.stdout
    assert "callbot.operation.duration" in done.stdout


def test_prometheus_fetches_real_text(tmp_path: Path) -> None:
    """The port serves the histogram, gives the port back at `shutdown()`, and serves again after a second `init()`."""
    done = run_python(
        """
        from urllib.request import urlopen
        url = f"http://127.0.0.1:{os.environ['OTEL_EXPORTER_PROMETHEUS_PORT']}/metrics"
        texts = []
        for _ in range(2):
            init()
            listen()
            len(latency_tracker.metrics)
            fetched = lambda: urlopen(url, timeout=60).read().decode()
            until(lambda: "_bucket{" in fetched())
            texts.append(fetched())
            shutdown()
        tell(texts=texts)
        """,
        tmp_path,
        {
            "OTEL_METRICS_EXPORTER": "prometheus",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(free_port()),
            "OTEL_EXPORTER_PROMETHEUS_HOST": LOCALHOST,
        },
    )
    for text in facts_of(done)["texts"]:
        bucket = next(
            line for line in text.splitlines() if line.startswith("callbot_operation_duration_seconds_bucket{")
        )
        assert 'operation_type="speech_to_text"' in bucket
        assert 'provider="google"' in bucket
        assert "call_sid" not in text
    assert done.stderr == ""


def test_a_taken_port_stops_init_with_the_variables_names(tmp_path: Path) -> None:
    """One ConfigError says what to change; nothing was started, and the next `init()` works."""
    with socket.socket() as taken:
        taken.bind((LOCALHOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_python(
            """
            threads = threading.active_count()
            try:
                init()
            except cl.ConfigError as error:
                told = str(error)
            left = threading.active_count() - threads
            listen()
            os.environ["OTEL_METRICS_EXPORTER"] = "none"
            init()
            listen()
            tell(told=told, left=left)
            """,
            tmp_path,
            {
                "OTEL_METRICS_EXPORTER": "prometheus",
                "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
                "OTEL_EXPORTER_PROMETHEUS_HOST": LOCALHOST,
            },
        )
    facts = facts_of(done)
    assert "OTEL_EXPORTER_PROMETHEUS_HOST" in facts["told"]
    assert "OTEL_EXPORTER_PROMETHEUS_PORT" in facts["told"]
    assert str(port) in facts["told"]
    assert facts["left"] == 0
    assert len(written(tmp_path)) == 1


def test_a_taken_port_leaves_no_exporter_of_spans_behind(tmp_path: Path) -> None:
    """Where the metrics' port is taken, the spans' exporter and its thread are gone too."""
    with socket.socket() as taken, COLLECTORS["http/protobuf"]() as received:
        taken.bind((LOCALHOST, 0))
        taken.listen()
        done = run_python(
            """
            threads = threading.active_count()
            for _ in range(3):
                try:
                    init()
                except cl.ConfigError:
                    pass
            tell(left=threading.active_count() - threads)
            """,
            tmp_path,
            {
                "OTEL_METRICS_EXPORTER": "prometheus",
                "OTEL_EXPORTER_PROMETHEUS_PORT": str(taken.getsockname()[1]),
                "OTEL_EXPORTER_PROMETHEUS_HOST": LOCALHOST,
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{received.url}/v1/traces",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
        )
    assert facts_of(done) == {"left": 0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_endpoint_given_to_init_is_where_telemetry_goes(protocol: str, tmp_path: Path) -> None:
    """`LatencyConfig(otlp_endpoint=...)` says it all, without a variable of the environment."""
    code = f"""
    init(cl.LatencyConfig(otlp_endpoint=os.environ["GIVEN"], otlp_protocol={protocol!r}))
    listen()
    tell(on_time=shutdown(timeout_s=60))
    """
    with COLLECTORS[protocol]() as received:
        assert facts_of(run_python(code, tmp_path, {"GIVEN": received.url})) == {"on_time": True}
    assert [span.name for span in received.spans()] == ["speech_to_text listen"]
    assert "callbot.operation.duration" in received.metric_names()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dotenv_file_is_read_for_a_config_made_by_hand_too(protocol: str, tmp_path: Path) -> None:
    """What a .env file says of the SDK itself, such as its headers, holds with `init(LatencyConfig())`."""
    with COLLECTORS[protocol]() as received:
        (tmp_path / ".env").write_text(
            f"OTEL_EXPORTER_OTLP_ENDPOINT={received.url}\nOTEL_EXPORTER_OTLP_PROTOCOL={protocol}\n"
            "OTEL_EXPORTER_OTLP_HEADERS=x-team=voice\n"
        )
        code = "init(cl.LatencyConfig()); listen(); tell(on_time=shutdown(timeout_s=60))"
        assert facts_of(run_python(code, tmp_path)) == {"on_time": True}
    assert [span.name for span in received.spans()] == ["speech_to_text listen"]
    assert all(headers["x-team"] == "voice" for headers in received.headers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_text_that_is_no_unicode_costs_no_batch(protocol: str, tmp_path: Path) -> None:
    """Half of a surrogate pair, from a broken decoder: OTLP has no word for it, and would refuse the whole batch."""
    code = f"""
    init(cl.LatencyConfig(otlp_endpoint=os.environ["GIVEN"], otlp_protocol={protocol!r}))
    listen()
    broken = "a" + chr(0xD800)
    with cl.call(broken, metadata={{broken: broken}}):
        try:
            about = {{"provider": broken, "metadata": {{broken: [broken]}}}}
            with measure_latency_context("rag_inference", broken, **about) as run:
                run.set_provider(broken)
                run.set_metadata(more=broken)
                raise ValueError(broken)
        except ValueError:
            pass
    latency_tracker.export_metrics("out.csv", "csv")
    tell(on_time=shutdown(timeout_s=60))
    """
    with COLLECTORS[protocol]() as received:
        assert facts_of(run_python(code, tmp_path, {"GIVEN": received.url})) == {"on_time": True}
    assert {span.name for span in received.spans()} == {"speech_to_text listen", "rag_inference a\ufffd", "call"}
    assert "callbot.operation.duration" in received.metric_names()
    assert written(tmp_path)[-1]["error_message"] == "a\ufffd"
    assert "a\ufffd" in (tmp_path / "out.csv").read_text()
