"""Every setting, and what is said of a wrong one."""

import os
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import ConfigError, LatencyConfig, OperationType, init, latency_config, shutdown
from callbot_latency.config import load_config, load_otel_from_dotenv
from callbot_latency.semconv import ENVIRONMENT
from tests.conftest import Start
from tests.support.subprocesses import facts_of, run_python

SETTINGS: dict[str, tuple[str, str, Any]] = {
    "LATENCY_TRACKING_ENABLED": ("false", "tracking_enabled", False),
    "LATENCY_LOGGING_ENABLED": ("0", "logging_enabled", False),
    "LATENCY_FILE_LOGGING_ENABLED": ("False", "file_logging_enabled", False),
    "LATENCY_METRICS_FILE_PATH": ("a/b.jsonl", "metrics_file_path", Path("a/b.jsonl")),
    "LATENCY_METRICS_FILE_MAX_MB": ("0.5", "metrics_file_max_mb", 0.5),
    "LATENCY_METRICS_FILE_BACKUPS": ("3", "metrics_file_backups", 3),
    "LATENCY_STT_WARNING_MS": ("1", "stt_warning_ms", 1.0),
    "LATENCY_STT_CRITICAL_MS": ("9001", "stt_critical_ms", 9001.0),
    "LATENCY_TTS_WARNING_MS": ("1.5", "tts_warning_ms", 1.5),
    "LATENCY_TTS_CRITICAL_MS": ("9002", "tts_critical_ms", 9002.0),
    "LATENCY_SALESFORCE_WARNING_MS": ("3", "salesforce_warning_ms", 3.0),
    "LATENCY_SALESFORCE_CRITICAL_MS": ("9003", "salesforce_critical_ms", 9003.0),
    "LATENCY_RAG_WARNING_MS": ("1e2", "rag_warning_ms", 100.0),
    "LATENCY_RAG_CRITICAL_MS": ("9004", "rag_critical_ms", 9004.0),
    "LATENCY_TRACE_KEY": ("key", "trace_key", "key"),
    "LATENCY_PHONE_NUMBERS": ("hashed", "phone_numbers", "hashed"),
    "LATENCY_SCRUB_PATTERNS_FILE": ("patterns.txt", "scrub_patterns_file", Path("patterns.txt")),
    "LATENCY_PROPAGATE_TO": (" RAG.internal, *.example.com,", "propagate_to", ("rag.internal", "*.example.com")),
    "LATENCY_RAG_URL": ("https://rag.internal/", "rag_url", "https://rag.internal/"),
    "LATENCY_TRACE_URL": ("http://jaeger/trace/{trace_id}", "trace_url", "http://jaeger/trace/{trace_id}"),
    "LATENCY_ALERT_COOLDOWN_S": ("0", "alert_cooldown_s", 0.0),
    "LATENCY_ALERT_BURST": ("5", "alert_burst", 5),
    "LATENCY_ALERT_RULES_FILE": ("rules.toml", "alert_rules_file", Path("rules.toml")),
    "PROMETHEUS_PUSHGATEWAY_URL": ("http://push:9091", "pushgateway_url", "http://push:9091/"),
    "LATENCY_PUSHGATEWAY_JOB": ("bot", "pushgateway_job", "bot"),
    "LATENCY_PUSHGATEWAY_INTERVAL_S": ("5", "pushgateway_interval_s", 5.0),
    "LATENCY_INFLUXDB_TIMEOUT_MS": ("2500", "influxdb_timeout_ms", 2500.0),
    "INFLUXDB_URL": ("http://influx:8086", "influxdb_url", "http://influx:8086/"),
    "INFLUXDB_TOKEN": ("token", "influxdb_token", "token"),
    "INFLUXDB_ORG": ("org", "influxdb_org", "org"),
    "INFLUXDB_BUCKET": ("bucket", "influxdb_bucket", "bucket"),
    "SLACK_WEBHOOK_URL": (
        "https://hooks.slack.com/services/x",
        "slack_webhook_url",
        "https://hooks.slack.com/services/x",
    ),
    "SLACK_CHANNEL": ("#ops", "slack_channel", "#ops"),
    "LATENCY_SLACK_SEVERITY": ("warning", "slack_severity", "warning"),
    "LATENCY_APPRISE_URLS": ("json://host/secret", "apprise_urls", "json://host/secret"),
    "LATENCY_APPRISE_SEVERITY": ("warning", "apprise_severity", "warning"),
    "LATENCY_LANGUAGE": ("fr", "language", "fr"),
    "LATENCY_FOREIGN_SPANS": ("false", "foreign_spans", False),
    "OTEL_SEMCONV_STABILITY_OPT_IN": (
        "http, gen_ai_latest_experimental",
        "semconv_opt_in",
        ("http", "gen_ai_latest_experimental"),
    ),
    "OTEL_TRACES_EXPORTER": ("otlp, console", "traces_exporter", ("otlp", "console")),
    "OTEL_METRICS_EXPORTER": ("prometheus,none", "metrics_exporter", ("prometheus",)),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("http://c:4317", "otlp_endpoint", "http://c:4317"),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("http://t:4317", "otlp_traces_endpoint", "http://t:4317"),
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ("http://m:4317", "otlp_metrics_endpoint", "http://m:4317"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf", "otlp_protocol", "http/protobuf"),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf", "otlp_traces_protocol", "http/protobuf"),
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": ("http/protobuf", "otlp_metrics_protocol", "http/protobuf"),
    "OTEL_EXPORTER_PROMETHEUS_HOST": ("0.0.0.0", "prometheus_host", "0.0.0.0"),
    "OTEL_EXPORTER_PROMETHEUS_PORT": ("9999", "prometheus_port", 9999),
}

BESIDE = {
    "INFLUXDB_URL": {"INFLUXDB_TOKEN": "token", "INFLUXDB_ORG": "org", "INFLUXDB_BUCKET": "bucket"},
    "LATENCY_PHONE_NUMBERS": {"LATENCY_TRACE_KEY": "key"},
}
"""What a setting needs beside it."""


def value_of(config: Any, field: str) -> Any:
    value = getattr(config, field)
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    return str(value) if type(value).__name__ == "AnyHttpUrl" else value


def test_every_name_is_checked_here() -> None:
    """A new setting needs a line above."""
    assert set(SETTINGS) == set(ENVIRONMENT)


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("name", SETTINGS)
def test_each_name_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an empty one is as good as none."""
    text, field, value = SETTINGS[name]
    default = value_of(load_config(), field)
    assert default != value
    monkeypatch.setenv(name, "")
    assert value_of(load_config(), field) == default
    for beside, needed in {name: text, **BESIDE.get(name, {})}.items():
        monkeypatch.setenv(beside, needed)
    assert value_of(load_config(), field) == value


@pytest.mark.parametrize("name", [name for name in SETTINGS if not name.startswith("OTEL_")])
def test_each_name_is_read_from_a_dotenv_file(name: str, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment goes before the file, and a keyword before both."""
    text, field, value = SETTINGS[name]
    lines = [f'{key}="{given}"\n' for key, given in {name: text, **BESIDE.get(name, {})}.items()]
    (isolated / ".env").write_text("".join([*lines, "SOMEBODY_ELSES=1\n"]))
    assert value_of(load_config(), field) == value
    if field.endswith("_ms"):
        given = 777 if field.endswith("_warning_ms") else 77777
        monkeypatch.setenv(name, str(given))
        assert value_of(load_config(), field) == given
        keyword: Any = {field: given + 1}
        assert value_of(LatencyConfig(**keyword), field) == given + 1


def test_opentelemetrys_names_of_a_dotenv_file_go_to_the_environment(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the SDK reads them; what the environment has already stays."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["OTEL_TRACES_EXPORTER"] = "none"
    (isolated / ".env").write_text("OTEL_SERVICE_NAME=bot\nOTEL_TRACES_EXPORTER=console\nOTEL_EMPTY=\nOTHER=1\n")
    load_otel_from_dotenv()
    config = load_config()
    assert os.environ["OTEL_SERVICE_NAME"] == "bot"
    assert os.environ["OTEL_TRACES_EXPORTER"] == "none"
    assert config.traces_exporters() == ()
    assert not {"OTEL_EMPTY", "OTHER"} & set(os.environ)


@pytest.mark.real_time
def test_the_dotenv_file_names_the_service_of_our_resource(tmp_path: Path) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES reach spans."""
    (tmp_path / ".env").write_text("OTEL_SERVICE_NAME=bot\nOTEL_RESOURCE_ATTRIBUTES=deployment.environment=test\n")
    code = """
    init()
    attributes = cl.runtime.lifecycle._runtime.providers.tracers.resource.attributes
    tell(service=attributes["service.name"], where=attributes["deployment.environment"])
    """
    assert facts_of(run_python(code, tmp_path, timeout_s=100)) == {"service": "bot", "where": "test"}


@pytest.mark.promise("wrong-settings")
@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("LATENCY_STT_WARNING_MS", "soon", "expected a number of milliseconds above 0, got 'soon'"),
        ("LATENCY_STT_WARNING_MS", "0", "expected a number of milliseconds above 0, got '0'"),
        ("LATENCY_RAG_CRITICAL_MS", "-5", "expected a number of milliseconds above 0, got '-5'"),
        ("LATENCY_RAG_CRITICAL_MS", "nan", "expected a number of milliseconds above 0, got 'nan'"),
        ("LATENCY_TTS_CRITICAL_MS", "inf", "expected a number of milliseconds above 0, got 'inf'"),
        ("LATENCY_METRICS_FILE_MAX_MB", "-1", "expected a number of MB, or 0 for no rotation, got '-1'"),
        ("LATENCY_METRICS_FILE_MAX_MB", "inf", "expected a number of MB, or 0 for no rotation, got 'inf'"),
        ("LATENCY_METRICS_FILE_BACKUPS", "1.5", "expected how many rotated files are kept, 0 or more, got '1.5'"),
        ("LATENCY_ALERT_COOLDOWN_S", "-1", "expected a number of seconds, 0 or more, got '-1'"),
        ("LATENCY_ALERT_COOLDOWN_S", "soon", "expected a number of seconds, 0 or more, got 'soon'"),
        ("LATENCY_ALERT_BURST", "0", "expected how many messages a minute, 1 or more, got '0'"),
        ("LATENCY_TRACE_URL", "http://jaeger", "expected a URL with {trace_id} in it, such as"),
        ("LATENCY_PROPAGATE_TO", "http://rag", "expected hosts such as rag.internal or *.example.com, separated by"),
        ("LATENCY_PROPAGATE_TO", "rag,*", "expected hosts such as rag.internal or *.example.com, separated by"),
        ("LATENCY_TRACKING_ENABLED", "maybe", "expected true or false, got 'maybe'"),
        ("INFLUXDB_URL", "influx", "expected a URL such as http://host:port, got 'influx'"),
        ("PROMETHEUS_PUSHGATEWAY_URL", "ftp://x", "expected a URL such as http://host:port, got 'ftp://x'"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "65536", "expected a port from 0 to 65535, got '65536'"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "x", "expected a port from 0 to 65535, got 'x'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "expected 'grpc' or 'http/protobuf', got 'udp'"),
        ("OTEL_TRACES_EXPORTER", "jaeger", "expected a comma-separated list of none, console, otlp, got"),
        ("OTEL_METRICS_EXPORTER", "x", "expected a comma-separated list of none, console, otlp, prometheus, got"),
        ("SLACK_WEBHOOK_URL", "T000/B000/secret", "expected a URL that starts with https://"),
        ("LATENCY_SLACK_SEVERITY", "all", "expected 'warning' or 'critical', got 'all'"),
        ("LATENCY_APPRISE_SEVERITY", "all", "expected 'warning' or 'critical', got 'all'"),
        ("LATENCY_PHONE_NUMBERS", "always", "expected 'never' or 'hashed', got 'always'"),
        ("LATENCY_PHONE_NUMBERS", "hashed", "expected LATENCY_TRACE_KEY beside 'hashed': without a secret, all"),
        ("LATENCY_LANGUAGE", "de", "expected 'en' or 'fr', got 'de'"),
    ],
)
def test_a_bad_value_is_one_error_that_says_it_all(
    name: str, given: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable, what was expected, what was given; nothing was started."""
    monkeypatch.setenv(name, given)
    with pytest.raises(ConfigError) as raised:
        init()
    message = str(raised.value)
    assert message.startswith(f"{name}: {says}")
    assert len(message.splitlines()) == 1
    assert raised.value.__cause__ is None
    assert isinstance(raised.value, ValueError)
    if name == "SLACK_WEBHOOK_URL":
        assert "secret" not in message


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("key", ["", "   "])
def test_phone_numbers_are_not_hashed_without_a_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks are none; with a key it is shown nowhere."""
    monkeypatch.setenv("LATENCY_TRACE_KEY", key)
    monkeypatch.setenv("LATENCY_PHONE_NUMBERS", "hashed")
    with pytest.raises(ConfigError, match="^LATENCY_PHONE_NUMBERS: expected LATENCY_TRACE_KEY beside"):
        load_config()
    monkeypatch.setenv("LATENCY_TRACE_KEY", "hidden-key")
    assert "hidden-key" not in repr(load_config())
    monkeypatch.setenv("LATENCY_PHONE_NUMBERS", "hash")
    with pytest.raises(ConfigError) as raised:
        load_config()
    assert "hidden-key" not in str(raised.value)


@pytest.mark.promise("wrong-settings")
@pytest.mark.usefixtures("isolated")
def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each."""
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "x")
    monkeypatch.setenv("LATENCY_TRACKING_ENABLED", "maybe")
    with pytest.raises(ConfigError) as raised:
        load_config()
    told = {line.partition(":")[0] for line in str(raised.value).splitlines()}
    assert told == {"LATENCY_STT_WARNING_MS", "LATENCY_TRACKING_ENABLED"}


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("kind", ["STT", "TTS", "SALESFORCE", "RAG"])
def test_a_warning_above_its_critical_names_both(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones are fine; a warning above the default critical counts too."""
    warning, critical = f"LATENCY_{kind}_WARNING_MS", f"LATENCY_{kind}_CRITICAL_MS"
    monkeypatch.setenv(warning, "500")
    monkeypatch.setenv(critical, "500")
    assert load_config()
    monkeypatch.setenv(warning, "501")
    with pytest.raises(ConfigError, match=f"^{warning}: expected at most {critical}, got 501 and 500$"):
        load_config()
    monkeypatch.delenv(critical)
    monkeypatch.setenv(warning, "90000")
    with pytest.raises(ConfigError, match=f"^{warning}: expected at most {critical}, got 90000 and "):
        load_config()


@pytest.mark.usefixtures("isolated")
def test_defaults() -> None:
    """What stands in the documentation."""
    config = load_config()
    assert (config.tracking_enabled, config.logging_enabled, config.file_logging_enabled) == (True, True, True)
    assert config.metrics_file_path == Path("outputs/logs/latency_metrics.jsonl")
    assert (config.metrics_file_max_mb, config.metrics_file_backups) == (100, 14)
    assert config.traces_exporters() == config.metrics_exporters() == ()
    for kind, thresholds in {
        "speech_to_text": (2000, 5000),
        "text_to_speech": (1500, 3000),
        "salesforce_api": (1000, 3000),
        "rag_inference": (3000, 8000),
    }.items():
        assert config.thresholds.of(kind) == thresholds


@pytest.mark.usefixtures("isolated", "fresh_types")
def test_thresholds_of_the_settings_and_of_registered_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one place."""
    monkeypatch.setenv("LATENCY_SALESFORCE_WARNING_MS", "123")
    crm = OperationType.register("crm_lookup", warning_ms=5, critical_ms=6)
    thresholds = load_config().thresholds
    assert thresholds.of("salesforce_api") == (123, 3000)
    assert thresholds.of(crm) == (5, 6)


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, ("otlp",), ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, ("otlp",), ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, (), ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, (), ("otlp",)),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, (), ("prometheus",)),
    ],
)
def test_where_telemetry_goes(
    environment: dict[str, str], traces: Any, metrics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an exporter variable names; else OTLP where an endpoint is set; else nowhere."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = load_config()
    assert (config.traces_exporters(), config.metrics_exporters()) == (traces, metrics)


def test_settings_do_not_change(measuring: LatencyConfig) -> None:
    """A running session's are what it was started with."""
    with pytest.raises(ValueError, match="frozen"):
        measuring.tracking_enabled = False


# -- the effective ones ---------------------------------------------------------------------------------------------


def test_latency_config_before_init_shows_what_init_would_find(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read when asked, not when imported."""
    assert latency_config.stt_warning_ms == 2000
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "1234")
    assert latency_config.stt_warning_ms == 1234
    assert latency_config.thresholds.get_warning_threshold(OperationType.STT) == 1234
    assert latency_config.thresholds.get_critical_threshold("speech_to_text") == 5000
    assert "1234" in repr(latency_config)
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "soon")
    with pytest.raises(ConfigError):
        _ = latency_config.stt_warning_ms


def test_latency_config_while_measuring_shows_what_is_in_force(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the environment has changed since."""
    start(stt_warning_ms=42)
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "1234")
    assert latency_config.stt_warning_ms == 42
    shutdown()
    assert latency_config.stt_warning_ms == 1234


@pytest.mark.promise("secrets")
@pytest.mark.usefixtures("isolated")
def test_secrets_are_hidden_in_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are marked, and credentials within URLs."""
    monkeypatch.setenv("INFLUXDB_TOKEN", "hush-token")
    monkeypatch.setenv("LATENCY_TRACE_KEY", "hush-key")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/hush")
    monkeypatch.setenv("INFLUXDB_ORG", "org")
    monkeypatch.setenv("INFLUXDB_BUCKET", "bucket")
    monkeypatch.setenv("INFLUXDB_URL", "http://user:hush@influx:8086")
    monkeypatch.setenv("PROMETHEUS_PUSHGATEWAY_URL", "http://user:hush@push:9091")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hush@otel:4317")
    config = load_config()
    for text in (repr(config), str(config), repr(latency_config)):
        assert "hush" not in text
        assert "influx:8086" in text


def test_a_keyword_that_is_no_setting_is_refused_with_the_one_that_was_meant() -> None:
    """A slip of the pen would otherwise set nothing, silently."""
    with pytest.raises(TypeError, match="unknown setting 'stt_warnings_ms'; did you mean 'stt_warning_ms'"):
        LatencyConfig(stt_warnings_ms=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown setting 'zzz'$"):
        LatencyConfig(zzz=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("protocol", "endpoint", "fits"),
    [
        ("grpc", "http://localhost:4317", True),
        ("grpc", "localhost:4317", True),
        ("grpc", "https://user:password@collector.example:443/path", True),
        ("grpc", "unix:///run/otel.sock", True),
        ("grpc", "nonsense", False),
        ("grpc", "ftp://x:1", False),
        ("grpc", "http://", False),
        ("http/protobuf", "http://[::1]:4318", True),
        ("http/protobuf", "https://collector.example/otlp", True),
        ("http/protobuf", "localhost:4318", False),
        ("http/protobuf", "nonsense", False),
    ],
)
def test_an_endpoint_is_one_that_its_protocol_can_use(
    protocol: str, endpoint: str, fits: bool, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everything would go nowhere, and nobody say so."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    if fits:
        assert load_config().otlp_endpoint == endpoint
    else:
        with pytest.raises(
            ConfigError, match="^OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL such as http://localhost:43"
        ):
            load_config()


def test_a_dotenv_file_that_is_no_utf8_is_said(isolated: Path) -> None:
    """By its name."""
    (isolated / ".env").write_bytes(b"LATENCY_TRACE_KEY=\xff\xfe\n")
    for read in (load_config, load_otel_from_dotenv):
        with pytest.raises(ConfigError, match="^.env: expected text in UTF-8"):
            read()


def test_settings_are_not_changed_by_assignment() -> None:
    """It would seem to work, and change nothing."""
    with pytest.raises(AttributeError, match="latency_config.stt_warning_ms: settings are read once"):
        latency_config.stt_warning_ms = 1
