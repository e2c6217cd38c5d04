"""Fifty secrets, sent through a bot by every way there is: none of them is in anything that leaves it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import ConfigError, init
from callbot_latency.config import load_config
from tests.support.scripted_http import ECHO, OK, Answer, Request, Server, scripted, webhook
from tests.support.subprocesses import facts_of, run_python

PHONES = {
    "+33612345701": "612345701",
    "+33 6 12 34 57 02": "612345702",
    "0033612345703": "612345703",
    "00 33 6 12 34 57 04": "612345704",
    "+33 (0)6 12 34 57 05": "612345705",
    "06 12 34 57 06": "612345706",
    "06.12.34.57.07": "612345707",
    "06-12-34-57-08": "612345708",
    "0612345709": "612345709",
    "06/12/34/57/10": "612345710",
    "+33\u00a06\u00a012\u00a034\u00a057\u00a011": "612345711",
    "+33\u20116\u201112\u201134\u201157\u201112": "612345712",
    "%2B33612345713": "612345713",
    "(415) 555-5714": "4155555714",
    "415-555-5715": "4155555715",
    "+1 (415) 555-5716": "4155555716",
    "1-415-555-5717": "4155555717",
    "+44 20 7946 5718": "2079465718",
    "0 800 123 719": "800123719",
    "my number is 06 12 34 57 20, thank you": "612345720",
    "rappelez-moi au 06.12.34.57.21 s'il vous plaît": "612345721",
    "+33\u0666\u0661\u0662\u0663\u0664\u0665\u0667\u0662\u0662": "612345722",
}
CREDENTIALS = {
    "https://hooks.slack.com/services/T0/B0/hush-slack-1": "hush-slack-1",
    "HTTPS://HOOKS.SLACK.COM/services/T0/B0/hush-slack-2": "hush-slack-2",
    "<https://hooks.slack.com/workflows/hush-slack-3>": "hush-slack-3",
    "Authorization: Token hush-influx-1==": "hush-influx-1",
    "INFLUXDB_TOKEN=hush-influx-2==": "hush-influx-2",
    "'token': 'hush-influx-3'": "hush-influx-3",
    "401 for Bearer hush-bearer-1": "hush-bearer-1",
    "authorization=bearer hush.bearer~2": "hush.bearer~2",
    "Authorization: Basic aHVzaC1iYXNpYw==": "aHVzaC1iYXNpYw",
    "basic aHVzaC1iYXNpYy0y": "aHVzaC1iYXNpYy0y",
    "https://svc:hush-basic-3@db.example/x": "hush-basic-3",
    "postgres://svc:hush-basic-4@10.0.0.1:5432/x": "hush-basic-4",
    "redis://:hush-basic-5@cache": "hush-basic-5",
    "https://AC0123:hush-twilio-1@api.twilio.com/": "hush-twilio-1",
    "Incorrect API key provided: sk-proj-hush-openai-1": "hush-openai-1",
    "sk-ant-hush-key-2": "hush-key-2",
    "xoxb-hush-slack-bot": "hush-slack-bot",
    '{"api_key": "hush-api-1"}': "hush-api-1",
    "x-api-key: hush-api-2": "hush-api-2",
    "GET https://speech.example/v1?key=AIzaSyHUSH0123456789012345678901234567": "AIzaSyHUSH",
    "password=hush-password-1": "hush-password-1",
    "client_secret=hush-client-1&x=y": "hush-client-1",
    "session_id=hush-session-1": "hush-session-1",
    "00D5g000004abcD!AQEAQHushHushHush": "HushHushHush",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodXNoIn0.hush_jwt_1": "eyJzdWIiOiJodXNoIn0",
}
ADDRESSES = {
    "jean.hush1@example.com": "hush1",
    "mailto:hush2+rdv@example.co.uk": "hush2",
    "Jean <hush3@exämple.fr>": "hush3",
}
CANARIES = {**PHONES, **CREDENTIALS, **ADDRESSES}
SECRET_KEYS = ("api_key", "password", "twilio_auth_token")
"""Keys of metadata that name a secret: there it may look like anything."""

OF_SETTINGS = ("hush-set-influx", "hush-set-key", "hush-set-apprise", "hush-set-push", "hush-set-url", "T0HUSH")

BOT = """
import asyncio, contextlib, logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from callbot_latency import LatencyMetric, TransientError, PermanentError, attempt, call, record, report_manager, turn
from callbot_latency.semconv import SCOPE

class Told(logging.Handler):
    def __init__(self): super().__init__(); self.told = []
    def emit(self, record): self.told.append(self.format(record) + repr(vars(record)))

log, spans, provider = Told(), InMemorySpanExporter(), TracerProvider()
logging.basicConfig(level=logging.DEBUG, handlers=[log, logging.StreamHandler()])
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
texts, keys = json.load(open("canaries.json"))

def chained(text):
    try:
        try: raise KeyError(text)
        except KeyError as inner: raise ConnectionError(f"refused: {text}") from inner
    except ConnectionError as outer:
        error = RuntimeError(f"no answer: {text}")
        error.add_note(text)
        raise error from outer

def metadata(text):
    known = {key: "hush-key-of-its-own" for key in keys}
    return {"said": text, "all": [text, {"of": text}], text: 1, **known}

@measure_latency("rag_inference")
def function(text): chained(text)
@measure_latency("rag_inference")
async def coroutine(text): chained(text)
@measure_latency("rag_inference")
def generator(text):
    yield 1
    chained(text)
@measure_latency("rag_inference")
async def async_generator(text):
    yield 1
    chained(text)
def attempts(text):
    with measure_latency_context("rag_inference", "asked", metadata=metadata(text)) as handle:
        handle.set_metadata(**{"later": text, "api_key": "hush-key-of-its-own"})
        with contextlib.suppress(RuntimeError), attempt("mistral", metadata=metadata(text)): chained(text)
        with attempt("openai") as other:
            other.set_metadata(whom=text)
            chained(text)
def iterated(text): list(generator(text))
async def awaited(text): await coroutine(text)
async def aiterated(text):
    async for _ in async_generator(text): pass
def decorated(text):
    @measure_latency("rag_inference", metadata=metadata(text))
    def late(): chained(text)
    late()

def through(text, number):
    with call(f"CA{number}", metadata=metadata(text)), turn(metadata=metadata(text)):
        for function_ in (function, iterated, attempts, decorated):
            with contextlib.suppress(RuntimeError): function_(text)
        for coroutine_ in (awaited, aiterated):
            with contextlib.suppress(RuntimeError): asyncio.run(coroutine_(text))
    with contextlib.suppress(RuntimeError), call(f"CB{number}"), turn(): chained(text)
    record(LatencyMetric("rag_inference", "handed in", 9e3, "error", error_message=text, metadata=metadata(text)))
    theirs = trace.get_tracer("theirs").start_span("foreign", attributes={
        "operation_type": "rag_inference", "metadata.said": text})
    theirs.set_status(trace.Status(trace.StatusCode.ERROR, text))
    theirs.end()

class Fails:
    def __init__(self, name, error, transient=False): self.name, self.error, self.texts = name, error, iter(texts)
    def report(self, batch): raise self.error(f"refused {next(self.texts, texts[0])}\\n{texts[0]}")
    def notify(self, alert): raise self.error(f"refused {next(self.texts, texts[0])}\\n{texts[0]}")

def callback(alert): chained(next(left, texts[0]))
async def async_callback(alert): chained(next(left, texts[0]))

left = iter(texts * 2)
for function_ in (callback, async_callback): cl.add_alert_callback(function_)
for name, error in (("busy", TransientError), ("refuses", PermanentError), ("broken", ValueError)):
    report_manager.add_reporter(Fails(name, error))
init()
print(cl.latency_config, repr(cl.latency_config), str(cl.latency_config.trace_key))
for number, text in enumerate(texts): through(text, number)
kept = [str(m) for m in latency_tracker.get_recent_metrics(limit=10_000)]
kept += [str(t) for t in latency_tracker.get_turns()]
for kind in ("json", "jsonl", "csv"): latency_tracker.export_metrics(f"export.{kind}", format=kind)
stats = str(latency_tracker.get_stats(by_provider=True))
status = [str(each) for each in report_manager.status().values()] + [repr(report_manager)]
shutdown()
status += [str(each) for each in report_manager.status().values()]
ours = [span for span in spans.get_finished_spans() if span.instrumentation_scope.name == SCOPE]
json.dump({"spans": [span.to_json() for span in ours], "kept": kept, "status": status + [stats], "log": log.told},
          open("told.json", "w"))
tell(spans=len(ours), kept=len(kept), alerts=sum("the alert callback" in line for line in log.told))
"""


def quoting(status: int) -> Callable[[Request], Answer]:
    """An answer that says what was asked, headers and all."""
    return lambda request: Answer(status, repr(request.headers).encode() + b" " + request.path.encode() + request.body)


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server, Server]]:
    """Slack, which answers badly now and then, a Pushgateway and an InfluxDB, which refuse and quote everything."""
    with (
        webhook(quoting(500), OK, ECHO, quoting(401), OK) as slack,
        scripted(quoting(500), quoting(401)) as push,
        scripted(quoting(401), quoting(500), quoting(400)) as influx,
    ):
        yield slack, push, influx


def settings(slack: Server, push: Server, influx: Server) -> dict[str, str]:
    """Every provider setting that holds a secret, in force."""
    return {
        "SLACK_WEBHOOK_URL": slack.url,
        "LATENCY_SLACK_SEVERITY": "warning",
        "LATENCY_ALERT_COOLDOWN_S": "0",
        "LATENCY_ALERT_BURST": "100000",
        "LATENCY_RAG_WARNING_MS": "0.000001",
        "LATENCY_ALERT_RULES_FILE": "rules.toml",
        "PROMETHEUS_PUSHGATEWAY_URL": push.url.replace("http://", "http://svc:hush-set-push@"),
        "LATENCY_PUSHGATEWAY_INTERVAL_S": "0.2",
        "INFLUXDB_URL": influx.url,
        "INFLUXDB_TOKEN": "hush-set-influx",
        "INFLUXDB_ORG": "org",
        "INFLUXDB_BUCKET": "bucket",
        "LATENCY_TRACE_KEY": "hush-set-key",
        "LATENCY_APPRISE_URLS": f"json://svc:hush-set-apprise@{slack.where}/hush-set-apprise",
        "LATENCY_APPRISE_SEVERITY": "warning",
        "LATENCY_TRACE_URL": "http://svc:hush-set-url@jaeger/trace/{trace_id}",
        "LATENCY_RAG_URL": "https://svc:hush-set-url@rag/",
    }


RULES = """
[[rule]]
name = "every"
channels = ["log", "slack"]
text = "of {metadata.said}, {metadata.all}, {metadata.api_key}"
condition = { kind = "latency", threshold_ms = 0.000001 }
cooldown_s = 0
"""


def digits_joined(text: str) -> str:
    """`text` with its digits as ASCII, and nothing between those of one number."""
    text = "".join(str(int(char)) if char.isdecimal() else char for char in text)
    return re.sub(r"(?<=\d)[\s().\u2010-\u2015/-]{1,3}(?=\d)", "", text)


def found_in(text: str) -> list[str]:
    """The canaries that `text` has, also where it is JSON that has escaped them."""
    plain = re.sub(r"\\u([\da-f]{4})", lambda escaped: chr(int(escaped[1], 16)), text)
    joined = digits_joined(plain)
    secrets = [*CREDENTIALS.values(), *ADDRESSES.values(), *OF_SETTINGS, "hush-key-of-its-own"]
    numbers = [written for written, digits in PHONES.items() if re.search(rf"{digits}(?!\d)", joined)]
    return [secret for secret in secrets if secret in plain] + numbers


@pytest.mark.promise("secrets")
def test_a_canary_would_be_found() -> None:
    """Each of the fifty, as it is written and as JSON writes it."""
    assert len(CANARIES) == 50
    for written in CANARIES:
        assert len(found_in(written)) == 1, written
        assert len(found_in(json.dumps(written))) == 1, written


@pytest.mark.promise("secrets")
def test_no_canary_leaves_the_bot(servers: tuple[Server, Server, Server], tmp_path: Path) -> None:
    """Not by spans, file, log, messages, pushes, what the tracker gives, status or output; the alerts are told."""
    (tmp_path / "canaries.json").write_text(json.dumps([list(CANARIES), SECRET_KEYS]))
    (tmp_path / "rules.toml").write_text(RULES)
    done = run_python(BOT, tmp_path, settings(*servers), timeout_s=115)
    facts = facts_of(done)
    told: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    texts = {name: "\n".join(each) for name, each in told.items()}
    texts |= {path.name: path.read_text() for path in tmp_path.glob("export.*")}
    texts["file"] = (tmp_path / "outputs/logs/latency_metrics.jsonl").read_text()
    for name, server in zip(("slack", "push", "influx"), servers, strict=True):
        texts[name] = "\n".join(request.body.decode() for request in server.requests)
    texts |= {"stdout": done.stdout, "stderr": done.stderr}
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}
    assert min(map(len, texts.values())) > 100
    assert facts["spans"] >= 50 * 10
    assert facts["alerts"] >= 100
    for word in ("[phone]", "[secret]", "[email]", "[slack-webhook]", "[credentials]", "[jwt]"):
        assert word in texts["spans"]
        assert word in texts["file"]


@pytest.mark.promise("secrets")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/services/hush-set-url"),
        ("SLACK_WEBHOOK_URL", "https://:hush-set-url"),
        ("SLACK_CHANNEL", "https://hooks.slack.com/services/hush-set-url"),
        ("LATENCY_APPRISE_URLS", "nothing://hush-set-apprise"),
        ("INFLUXDB_URL", "http://svc:hush-set-url@influx:port"),
        ("INFLUXDB_URL", "http://svc:hush-set-url@influx/?a=b#c"),
        ("PROMETHEUS_PUSHGATEWAY_URL", "svc:hush-set-push@push"),
        ("PROMETHEUS_PUSHGATEWAY_URL", "http://svc:hush-set-push@push/?a"),
        ("LATENCY_TRACE_URL", "http://svc:hush-set-url@jaeger/"),
        ("LATENCY_RAG_URL", "svc:hush-set-url@rag"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "svc:hush-set-url@collector"),
        ("LATENCY_PHONE_NUMBERS", "Bearer hush-set-key"),
        ("LATENCY_STT_WARNING_MS", "token hush-set-influx"),
        ("LATENCY_LANGUAGE", "password=hush-set-key"),
        ("LATENCY_PROPAGATE_TO", "https://svc:hush-set-url@rag"),
    ],
)
def test_no_error_about_a_setting_tells_a_secret(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Whichever setting is wrong, those that are right too are not quoted."""
    right = {
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0HUSH/B/x",
        "INFLUXDB_URL": "http://influx:8086",
        "INFLUXDB_TOKEN": "hush-set-influx",
        "INFLUXDB_ORG": "org",
        "INFLUXDB_BUCKET": "bucket",
        "LATENCY_TRACE_KEY": "hush-set-key",
    }
    for each, what in {**right, name: value}.items():
        monkeypatch.setenv(each, what)
    with pytest.raises(ConfigError) as told:
        init()
    text, error = "", told.value
    while error is not None:
        text += f"{error}{error!r}"
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert found_in(text) == []
    assert name in text


@pytest.mark.promise("secrets")
def test_no_canary_is_in_what_settings_look_like(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed, or as a repr, whatever stands in which of them."""
    for name in ("INFLUXDB_ORG", "INFLUXDB_BUCKET", "SLACK_CHANNEL", "LATENCY_PUSHGATEWAY_JOB"):
        for written in CANARIES:
            monkeypatch.setenv(name, written)
            config = load_config()
            assert found_in(f"{config} {config!r}") == []
