"""Each file of the deployment is read by the server it is meant for; they agree with each other and with the code."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from prometheus_client.utils import floatToGoString

from callbot_latency import semconv
from callbot_latency.deploy.rule_file import rule_file, yaml_text
from callbot_latency.model.metric import LatencyMetric
from callbot_latency.model.operation import OperationStatus, OperationType, ThresholdsMs
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.reporters.jsonl import JsonlReporter
from devservers import servers
from devservers.processes import free_ports

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "callbot.yml"
RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "callbot-latency.json"
SECRETS = {"GRAFANA_ADMIN_PASSWORD": "a-password", "INFLUXDB_PASSWORD": "b-password", "INFLUXDB_TOKEN": "a-token"}
WITHOUT_HEALTHCHECK = {"otel-collector", "volumes-init"}

Binary = Callable[[str], Path]


def run(*command: object, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def compose_config(env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [
        Path(sys.executable).parent / "docker-compose",
        "--env-file",
        ".env.example",
        "config",
        "--format",
        "json",
    ]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(
        command, cwd=ROOT, env={**kept, **env}, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = compose_config(SECRETS)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_has_no_secret_of_its_own(missing: str) -> None:
    done = compose_config({**SECRETS, missing: ""})
    assert done.stdout == ""  # the wheel's wrapper returns 0 whatever the binary did
    assert f"{missing} is missing a value: set it in .env" in done.stderr


def test_every_service_is_bounded_restarted_and_watched(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name == "volumes-init" else "unless-stopped"), name
        assert int(service["mem_limit"]) > 0, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert ("healthcheck" in service) != (name in WITHOUT_HEALTHCHECK), name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert volume["read_only"], volume["source"]


def test_images_have_exact_versions_the_tested_ones_where_there_are_some(services: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in services.items() if "image" in service}
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image) for image in images.values()), images
    assert images["otel-collector"].endswith(f":{servers.COLLECTOR_VERSION}")
    assert images["jaeger"].endswith(f":{servers.JAEGER_VERSION}")
    assert images["alertmanager"].endswith(f":v{servers.ALERTMANAGER_VERSION}")


def test_compose_sets_what_the_files_read(services: dict[str, Any]) -> None:
    for name, file in (("otel-collector", ROOT / "otel-collector.yaml"), ("jaeger", DEPLOY / "jaeger.yaml")):
        read = set(re.findall(r"\$\{env:(\w+)", file.read_text()))
        assert read == services[name]["environment"].keys() - {"GOMEMLIMIT"}
    collector = services["otel-collector"]["environment"]
    for listening in ("CALLBOT_OTLP_GRPC", "CALLBOT_OTLP_HTTP", "COLLECTOR_PROMETHEUS", "COLLECTOR_HEALTH"):
        assert collector[f"{listening}_ENDPOINT"].startswith("0.0.0.0:")
    assert int(collector["COLLECTOR_MEMORY_LIMIT_MIB"]) * 2**20 < int(services["otel-collector"]["mem_limit"])
    ours = services["callbot"]["environment"].keys()
    assert {name for name in ours if not name.startswith("OTEL_")} <= set(semconv.ENVIRONMENT)


def test_prometheus_takes_its_configuration(binary: Binary) -> None:
    run(binary("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_targets_are_services(services: dict[str, Any]) -> None:
    config = loaded(DEPLOY / "prometheus" / "prometheus.yml")
    static = [s for job in config["scrape_configs"] for s in job["static_configs"]]
    targets = {target.split(":")[0] for s in static for target in s["targets"]}
    assert targets - {"localhost"} <= services.keys()
    scrape_ms = int(config["global"]["scrape_interval"].removesuffix("s")) * 1000
    assert int(services["callbot"]["environment"]["OTEL_METRIC_EXPORT_INTERVAL"]) >= scrape_ms


def test_promtool_finds_nothing_wrong_with_the_rules(binary: Binary) -> None:
    run(binary("promtool"), "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_rules_do_what_their_unit_tests_say(binary: Binary, file: Path) -> None:
    run(binary("promtool"), "test", "rules", file)


def test_every_alert_is_unit_tested_and_says_what_to_do() -> None:
    alerts = [rule for group in loaded(RULES)["groups"] for rule in group["rules"] if "alert" in rule]
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description", "runbook", "dashboard"}
    tests = [test for file in RULE_TESTS for test in loaded(file)["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    assert {alert["alert"] for alert in alerts} == {case["alertname"] for case in cases if case["exp_alerts"]}
    assert {alert["alert"] for alert in alerts} == {case["alertname"] for case in cases if not case["exp_alerts"]}


def test_every_alert_is_explained() -> None:
    """docs/operations.md has a row for each; the files speak of no alert that there is not."""
    names = {rule["alert"] for group in loaded(RULES)["groups"] for rule in group["rules"] if "alert" in rule}
    rows = re.findall(r"^\| `(Callbot\w+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(names)
    for file in (DEPLOY / "alertmanager" / "alertmanager.yml", ROOT / "docker-compose.yml"):
        assert set(re.findall(r"\bCallbot[A-Z]\w+", file.read_text())) <= names
    assert len(names) == 12


def test_each_type_is_compared_with_its_own_edge(binary: Binary, tmp_path: Path) -> None:
    """Whatever the thresholds, and whoever wrote the edges: 3 of 4 are over the one, 1 of 4 over the other."""
    by_type = {"speech_to_text": (2000, 5000), "text_to_speech": (800.5, 801), "rag_inference": (10_000, 2_000_000)}
    thresholds = Thresholds({name: ThresholdsMs(*both) for name, both in by_type.items()})
    (tmp_path / "rules.yml").write_text(yaml_text(rule_file(thresholds)))
    series, samples = [], []
    name = "operation_type_provider_severity:callbot_operations_slow:ratio_increase5m"
    for operation_type, both in by_type.items():
        for provider, written in (("collector", floatToGoString), ("pushgateway", lambda s: f"{s:.15g}")):
            of = f'operation_type="{operation_type}", provider="{provider}"'
            at = [f', le="{written(ms / 1000)}"' for ms in both]
            for part, step in (("_count", 4), ("_bucket", 1), ("_bucket", 3)):
                le = at[step // 3] if part == "_bucket" else ""
                one = f'callbot_operation_duration_seconds{part}{{{of}, status="success"{le}}}'
                series.append({"series": one, "values": f"0+{step}x40"})
            for severity, share in (("warning", 0.75), ("critical", 0.25)):
                samples.append({"labels": f'{name}{{{of}, severity="{severity}"}}', "value": share})
    known = "|".join(by_type)
    test = {"eval_time": "8m", "expr": f'{name}{{operation_type=~"{known}"}}', "exp_samples": samples}
    file = tmp_path / "test.yml"
    unit = {"interval": "15s", "input_series": series, "promql_expr_test": [test]}
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [unit]}))
    run(binary("promtool"), "test", "rules", file)


ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"


def test_alertmanager_takes_its_configuration(binary: Binary) -> None:
    told = run(binary("amtool"), "check-config", ALERTMANAGER)
    assert "1 templates" in told


@pytest.mark.parametrize(
    "labels", [["severity=critical"], ["severity=warning"], []], ids=["critical", "warning", "other"]
)
def test_every_alert_goes_to_slack(binary: Binary, labels: list[str]) -> None:
    """As amtool walks the routes."""
    verify = ["--verify.receivers=slack", f"--config.file={ALERTMANAGER}"]
    run(binary("amtool"), "config", "routes", "test", *verify, "alertname=CallbotOperationSlow", *labels)


def test_no_address_of_a_webhook_stands_in_the_repository() -> None:
    """It comes from a file that docker compose makes of the environment."""
    config = loaded(ALERTMANAGER)
    assert config["global"]["slack_api_url_file"] == "/run/secrets/slack_webhook"
    assert "hooks.slack.com" not in "".join(file.read_text() for file in DEPLOY.rglob("*.yml"))


def test_compose_mounts_rules_and_templates(services: dict[str, Any]) -> None:
    mounted = {
        Path(volume["source"]).relative_to(ROOT): volume["target"]
        for name in ("prometheus", "alertmanager")
        for volume in services[name]["volumes"]
        if volume["type"] == "bind"
    }
    assert mounted == {
        Path("deploy/prometheus/prometheus.yml"): "/etc/prometheus/prometheus.yml",
        Path("deploy/prometheus/rules"): "/etc/prometheus/rules",
        Path("deploy/alertmanager"): "/etc/alertmanager",
    }
    assert services["alertmanager"]["secrets"][0]["source"] == "slack_webhook"


# -- the gateway ------------------------------------------------------------------------------------------------------


def gateway_environment(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "CALLBOT_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{ports['grpc']}",
        "CALLBOT_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{ports['http']}",
        "COLLECTOR_HEALTH_ENDPOINT": f"127.0.0.1:{ports['health']}",
        "COLLECTOR_TELEMETRY_PORT": str(ports["telemetry"]),
        "COLLECTOR_STORAGE_DIR": str(folder / "storage"),
        "COLLECTOR_KEEP_PERCENT": "0",
    }


@contextmanager
def started(command: list[object], ready: str, log: Path, env: Mapping[str, str]) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen([str(c) for c in command], env={**os.environ, **env}, stdout=out, stderr=out)
        try:
            deadline_s = time.monotonic() + 100
            while True:
                try:
                    if httpx.get(ready, timeout=20).is_success:
                        break
                except httpx.HTTPError:
                    pass
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(60)


def test_the_gateway_is_valid_without_warnings(binary: Binary) -> None:
    assert run(binary("otelcol"), "validate", "--config", DEPLOY / "collector-gateway.yaml") == ""


def test_the_gateway_keeps_a_whole_call_with_a_late_breach_and_no_normal_one(binary: Binary, tmp_path: Path) -> None:
    ports = free_ports("grpc", "http", "health", "telemetry")
    kept = tmp_path / "kept.jsonl"
    over = tmp_path / "to_a_file.yaml"
    over.write_text(
        yaml.safe_dump(
            {
                "exporters": {"file": {"path": str(kept), "flush_interval": "50ms"}},
                "service": {"pipelines": {"traces": {"exporters": ["file"]}}},
            }
        )
    )
    files = ["--config", DEPLOY / "collector-gateway.yaml", "--config", over]
    log = tmp_path / "log"

    def names() -> set[str]:
        lines = kept.read_text().splitlines() if kept.exists() else []
        groups = [group for line in lines for r in json.loads(line)["resourceSpans"] for group in r["scopeSpans"]]
        return {span["name"] for group in groups for span in group["spans"]}

    environment = gateway_environment(tmp_path, ports)
    with started([binary("otelcol"), *files], f"http://127.0.0.1:{ports['health']}", log, environment):
        provider = TracerProvider()
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{ports['http']}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("test")

        def step(call: trace.Span, name: str, took_s: float = 0.01, **attributes: str) -> None:
            now_ns = time.time_ns()
            context = trace.set_span_in_context(call)
            start_ns = now_ns - int(took_s * 1e9)
            tracer.start_span(name, context, attributes=attributes, start_time=start_ns).end(now_ns)

        breached, normal, unwrapped = (tracer.start_span(semconv.CALL_SPAN) for _ in range(3))
        for call, prefix in ((breached, "breached"), (normal, "normal"), (unwrapped, "unwrapped")):
            step(call, f"{prefix} greeting")
        time.sleep(1)
        step(breached, "breached answer", severity="critical", operation_type="rag_inference")
        step(unwrapped, "unwrapped slow lookup", took_s=4)
        # Long, but below the threshold that its type has.
        step(normal, "normal answer", took_s=4, operation_type="rag_inference")
        step(breached, "breached goodbye")
        normal.end()
        expected = {"breached greeting", "breached answer", "breached goodbye"}
        expected |= {"unwrapped greeting", "unwrapped slow lookup"}
        deadline_s = time.monotonic() + 100
        while not expected <= names() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        time.sleep(0.5)
        assert names() == expected
        for call in (breached, unwrapped):
            call.end()
        provider.shutdown()
    assert "\twarn\t" not in log.read_text()


def test_the_file_of_the_load_balancer_fits_over_the_collectors() -> None:
    """As YAML only: the Collector of the tests has no load_balancing exporter."""
    over, under = loaded(DEPLOY / "collector-loadbalancing.yaml"), loaded(ROOT / "otel-collector.yaml")
    balancer = over["exporters"]["load_balancing"]
    assert balancer["routing_key"] == "traceID"
    assert balancer["sending_queue"]["storage"] in under["extensions"]
    assert over["service"]["pipelines"].keys() <= under["service"]["pipelines"].keys()
    assert over["service"]["pipelines"]["traces"]["exporters"] == ["load_balancing"]


def test_jaeger_starts(binary: Binary, tmp_path: Path) -> None:
    ports = free_ports("grpc", "http", "query", "query_grpc", "health", "telemetry")
    places = {
        "receivers.otlp.protocols.grpc.endpoint": "grpc",
        "receivers.otlp.protocols.http.endpoint": "http",
        "extensions.jaeger_query.http.endpoint": "query",
        "extensions.jaeger_query.grpc.endpoint": "query_grpc",
        "extensions.healthcheckv2.http.endpoint": "health",
    }
    settings = [f"--set={key}=127.0.0.1:{ports[name]}" for key, name in places.items()]
    settings.append("--set=service.telemetry.metrics.level=none")
    command = [binary("jaeger"), "--config", DEPLOY / "jaeger.yaml", *settings]
    with started(command, f"http://127.0.0.1:{ports['health']}/status", tmp_path / "log", {}):
        assert httpx.get(f"http://127.0.0.1:{ports['query']}/api/v3/services").status_code == 200


# -- Grafana ----------------------------------------------------------------------------------------------------------


def dashboard_queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [target["expr"] for target in targets if "expr" in target]


def prometheus_names() -> set[str]:
    histograms = (
        semconv.OPERATION_DURATION,
        semconv.OPERATION_TIME_TO_FIRST_OUTPUT,
        semconv.TURN_RESPONSE,
        semconv.TURN_CONTRIBUTION,
        semconv.ATTEMPT_DURATION,
    )
    counters = (semconv.THRESHOLD_BREACHES, semconv.TELEMETRY_DROPPED, semconv.TURNS_UNMEASURED)
    names = {f"{h.replace('.', '_')}_seconds_{part}" for h in histograms for part in ("bucket", "sum", "count")}
    names |= {f"{counter.replace('.', '_')}_total" for counter in counters}
    return names | {semconv.OPERATIONS_ACTIVE.replace(".", "_")}


def test_every_query_is_of_metrics_and_labels_that_exist(binary: Binary, tmp_path: Path) -> None:
    sources = DEPLOY / "grafana" / "provisioning" / "datasources" / "callbot.yaml"
    text = DASHBOARD.read_text() + sources.read_text()
    assert set(re.findall(r"\bcallbot_[a-z_]+(?=[{\[)\s,])", text)) <= prometheus_names()
    rule_text = re.sub(r"[\w]+:callbot_\w+:\w+", "", RULES.read_text())
    groups = {group["name"] for group in loaded(RULES)["groups"]}
    assert set(re.findall(r"\bcallbot_[a-z_]+(?=[{\[)\s])", rule_text)) <= prometheus_names() | groups
    labels = {label for q in dashboard_queries() for label in re.findall(r"([a-z_]+)(?:=~|!=|=)\"", q)}
    labels |= {n.strip() for q in dashboard_queries() for by in re.findall(r"by \(([^)]*)\)", q) for n in by.split(",")}
    assert labels <= {*semconv.METRIC_LABELS, "job", "le"}
    # Prometheus itself reads each query, as a rule, with values for Grafana's variables.
    rules = []
    for number, query in enumerate(dashboard_queries()):
        filled = re.sub(r"\$__(rate_interval|range)", "5m", query)
        rules.append({"record": f"query_{number}", "expr": re.sub(r"\$\w+", ".*", filled)})
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run(binary("promtool"), "check", "rules", file)


def test_the_dashboard_uses_provisioned_data_sources_and_shows_every_metric() -> None:
    sources = loaded(DEPLOY / "grafana" / "provisioning" / "datasources" / "callbot.yaml")["datasources"]
    uids = {source["uid"] for source in sources}
    used = set(re.findall(r'"uid": "(\w+)"', DASHBOARD.read_text()))
    assert used == {"prometheus", "influxdb"} <= uids
    (exemplars,) = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == semconv.TRACE_ID
    assert exemplars["datasourceUid"] in uids
    shown = " ".join(dashboard_queries())
    assert all(metric.replace(".", "_") in shown for metric in semconv.METRICS)
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"provider", "operation_type", "call_sid"} <= {v["name"] for v in dashboard["templating"]["list"]}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


# -- logrotate --------------------------------------------------------------------------------------------------------


WRITE_ON = """
import json, os, sys, time
from pathlib import Path
from callbot_latency import LatencyMetric
from callbot_latency.base.drop_counters import dropped
from callbot_latency.reporters.jsonl import JsonlReporter

reporter, n = JsonlReporter(Path(sys.argv[1])), 0
reporter.start()
while not Path(sys.argv[2]).exists():
    reporter.report([LatencyMetric("speech_to_text", f"p{os.getpid()}", k, "success") for k in range(n, n + 5)])
    n += 5
reporter.close()
print(json.dumps({"name": f"p{os.getpid()}", "wrote": n, "dropped": dropped.by_reason()}))
"""


def lines_of(folder: Path) -> Iterator[Any]:
    for file in folder.glob("latency_metrics.jsonl*"):
        data = file.read_bytes()
        for line in (gzip.decompress(data) if file.suffix == ".gz" else data).splitlines():
            yield json.loads(line)


@pytest.mark.promise("shared-file")
@pytest.mark.parametrize("name", ["latency_metrics.conf", "latency_metrics_copytruncate.conf"])
def test_logrotate_under_writers_loses_no_line(name: str, tmp_path: Path, binary: Binary) -> None:
    """Four rotations while three processes write as fast as they can; what they wrote is there once and whole."""
    logrotate, path, done = binary("logrotate"), tmp_path / "latency_metrics.jsonl", tmp_path / "done"
    config = tmp_path / "config"
    text = (DEPLOY / "logrotate" / name).read_text()
    assert "/var/log/callbot/latency_metrics.jsonl {" in text
    config.write_text(text.replace("/var/log/callbot/latency_metrics.jsonl", str(path)))
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    run(logrotate, "-d", "-s", tmp_path / "state", config)
    command = [sys.executable, "-c", WRITE_ON, str(path), str(done)]
    writers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for _ in range(4):
            began_s = time.time()
            # The names of what logrotate moves tell seconds apart, and each rotation needs lines.
            until(lambda: time.time() > began_s + 1.1 and path.exists() and path.stat().st_size > 10_000)  # noqa: B023
            run(logrotate, "-f", "-s", tmp_path / "state", config)
        until(lambda: path.exists() and path.stat().st_size > 0)
    finally:
        done.touch()
        told = [json.loads(writer.communicate(timeout=100)[0]) for writer in writers]
    assert len(list(tmp_path.glob("latency_metrics.jsonl-*"))) == 4
    found = Counter((row["operation_name"], row["latency_ms"]) for row in lines_of(tmp_path))
    assert found == Counter((fact["name"], float(n)) for fact in told for n in range(fact["wrote"]))
    assert [fact["dropped"] for fact in told] == [{}] * 3


def until(true: Callable[[], bool], timeout_s: float = 100) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_logrotate_that_is_killed_holds_the_file_for_nobody(tmp_path: Path) -> None:
    """The lock that its script took for copytruncate ends with it: the file is not truncated, and written again."""
    text = (DEPLOY / "logrotate" / "latency_metrics_copytruncate.conf").read_text()
    script = text.partition("prerotate\n")[2].partition("endscript")[0]
    path = tmp_path / "latency_metrics.jsonl"
    reporter = JsonlReporter(path)
    reporter.report([LatencyMetric(OperationType.STT, "transcribe", 12.0, OperationStatus.SUCCESS)])
    # As logrotate runs it: a shell of its own, whose end is not the end of logrotate.
    parent = 'sh -c "$1" logrotate_script "$2"; echo taken; exec sleep 60'
    with subprocess.Popen(["sh", "-c", parent, "sh", script, path], stdout=subprocess.PIPE, text=True) as logrotate:
        assert logrotate.stdout
        assert logrotate.stdout.readline() == "taken\n"
        writer = threading.Thread(
            target=reporter.report, args=([LatencyMetric(OperationType.STT, "late", 1.0, OperationStatus.SUCCESS)],)
        )
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert len(path.read_text().splitlines()) == 1
        logrotate.kill()
    writer.join(60)
    reporter.close()
    assert len(path.read_text().splitlines()) == 2
