"""Spans of frameworks count like our own operations, and once.

`tests/recordings/*.json` are what the tracing of the real packages wrote, of the versions in their names, while
`pipecat_bot.py` and `livekit_bot.py` beside them ran: real pipelines and sessions, engines played by stubs. They are
written again here through the real SDK, with their scopes, attributes, times and parents. The names of OpenTelemetry's
GenAI conventions are from the text of open-telemetry/semantic-conventions-genai.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, Status, StatusCode

from callbot_latency import (
    Alert,
    LatencyConfig,
    LatencyMetric,
    OperationStatus,
    OperationType,
    Severity,
    add_alert_callback,
    call,
    latency_tracker,
    measure_latency_context,
    shutdown,
)
from callbot_latency.interop.framework_spans import CALL_IDS, FIRST_OUTPUT, PROVIDERS, TABLE
from callbot_latency.runtime import lifecycle as runtime_module
from callbot_latency.semconv import SCOPE
from tests.conftest import Start
from tests.support.subprocesses import ROOT

SID = "CA0123456789abcdef0123456789abcdef"
RECORDINGS = ROOT / "tests" / "recordings"


def provider() -> Any:
    running = runtime_module._runtime
    assert running is not None
    return running.providers.tracers


def exported() -> Callable[[], Sequence[ReadableSpan]]:
    exporter = InMemorySpanExporter()
    TracerProvider.add_span_processor(provider(), SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


def begin(name: str, scope: str = "some.client", **attributes: Any) -> Span:
    span: Span = provider().get_tracer(scope).start_span(name)
    span.set_attributes({key.replace("__", "."): value for key, value in attributes.items()})
    return span


def under(span: Span) -> Any:
    return trace.use_span(span, end_on_exit=True)


def chat(**attributes: Any) -> Span:
    return begin("chat gpt-4o", **{"gen_ai__operation__name": "chat", **attributes})


def only() -> LatencyMetric:
    [metric] = latency_tracker.metrics
    return metric


def replay(name: str) -> list[dict[str, Any]]:
    """Write a recording's spans again, each started beneath its parent, and ended in their order."""
    recorded: list[dict[str, Any]] = json.loads((RECORDINGS / name).read_text())
    by_id = {span["span_id"]: span for span in recorded}
    spans: dict[int, Span] = {}

    def started(record: dict[str, Any]) -> Span:
        if record["span_id"] not in spans:
            parent = by_id.get(record["parent_id"])
            context = trace.set_span_in_context(started(parent)) if parent else None
            tracer = provider().get_tracer(record["scope"])
            span = tracer.start_span(record["name"], context, start_time=record["start"])
            span.set_attributes(record["attributes"])
            spans[record["span_id"]] = span
        return spans[record["span_id"]]

    for record in recorded:
        started(record)
    for record in sorted(recorded, key=lambda record: int(record["end"])):
        spans[record["span_id"]].end(record["end"])
    return recorded


def told() -> list[tuple[Any, ...]]:
    return [
        (m.operation_type.value, m.operation_name, m.provider, m.metadata.get("model")) for m in latency_tracker.metrics
    ]


def test_pipecat(measuring: LatencyConfig) -> None:
    """A turn is three operations, each with its call; STT is what the caller waited for, not how long he spoke."""
    recorded = {span["name"]: span for span in replay("pipecat-1.14.0.json")}
    assert told() == [
        ("speech_to_text", "stt", "google", "latest_long"),
        ("rag_inference", "llm", "openai", "gpt-4o"),
        ("text_to_speech", "tts", "cartesia", "sonic"),
    ]
    stt, llm, tts = latency_tracker.metrics
    assert stt.latency_ms == recorded["stt"]["attributes"]["metrics.ttfb"] * 1000
    assert stt.latency_ms < (recorded["stt"]["end"] - recorded["stt"]["start"]) / 1e6
    assert llm.latency_ms == (recorded["llm"]["end"] - recorded["llm"]["start"]) / 1e6
    assert llm.time_to_first_output_ms == recorded["llm"]["attributes"]["metrics.ttfb"] * 1000
    assert {(m.call_sid, m.turn, m.status) for m in (stt, llm, tts)} == {(SID, 1, OperationStatus.SUCCESS)}


def test_livekit_agents(measuring: LatencyConfig) -> None:
    """Of spans within spans for the same work the outermost counts: two steps of the model, a tool, the voice."""
    replay("livekit-agents-1.8.9.json")
    assert sorted(told(), key=str) == [
        ("rag_inference", "llm_node", "openai", "gpt-4o"),
        ("rag_inference", "llm_node", "openai", "gpt-4o"),
        ("salesforce_api", "salesforce_find_order", None, None),
        ("text_to_speech", "tts_node", "cartesia", "sonic"),
    ]
    for metric in latency_tracker.metrics:
        if metric.operation_type is not OperationType.SALESFORCE:
            assert metric.time_to_first_output_ms == pytest.approx(100, abs=30)


def test_livekits_user_turn_is_speech_to_text(measuring: LatencyConfig) -> None:
    """The delay from the end of speech to the transcript; LiveKit writes 0 where it does not know, which is none."""
    for delay in (0.35, 0):
        begin("user_turn", "livekit-agents", lk__transcription_delay=delay, gen_ai__provider__name="deepgram").end()
    assert (only().operation_type, only().provider, only().latency_ms) == (OperationType.STT, "deepgram", 350.0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chat", "rag_inference"),
        ("generate_content", "rag_inference"),
        ("text_completion", "rag_inference"),
        ("retrieval", "rag_inference"),
        ("speech_to_text", "speech_to_text"),
        ("text_to_speech", "text_to_speech"),
        ("invoke_agent", None),
        ("embeddings", None),
        ("execute_tool", None),
    ],
)
def test_gen_ai_operations(measuring: LatencyConfig, name: str, kind: str | None) -> None:
    """By the operation's name, whoever wrote the span; what is structure, or has no type, is not counted."""
    begin(f"{name} m", gen_ai__operation__name=name, gen_ai__system="openai", gen_ai__request__model="m").end()
    assert told() == ([] if kind is None else [(kind, name, "openai", "m")])


def test_gen_ai_facts(measuring: LatencyConfig) -> None:
    """Provider, model, time to the first chunk, and the call where the conversation is one."""
    chat(
        gen_ai__provider__name="openai",
        gen_ai__response__time_to_first_chunk=0.25,
        gen_ai__conversation__id=SID,
        gen_ai__request__model="gpt-4o",
    ).end()
    metric = only()
    assert (metric.provider, metric.time_to_first_output_ms, metric.call_sid) == ("openai", 250.0, SID)
    assert metric.metadata == {"model": "gpt-4o"}


def test_a_conversation_that_is_no_call_is_none(measuring: LatencyConfig) -> None:
    """Another id is not taken for a call_sid; the bound call is."""
    with call(SID):
        chat(gen_ai__conversation__id="thread_42").end()
    chat(gen_ai__conversation__id="thread_42").end()
    assert [metric.call_sid for metric in latency_tracker.metrics] == [SID, None]


def test_types_that_the_application_registered_are_preferred(fresh_types: None, start: Start) -> None:
    """`llm` and `tool` have thresholds of their own, once registered."""
    for name in ("llm", "tool"):
        OperationType.register(name, warning_ms=1, critical_ms=10_000)
    start()
    chat().end()
    begin("execute_tool weather", gen_ai__operation__name="execute_tool", gen_ai__tool__name="weather").end()
    assert [(m.operation_type.value, m.operation_name) for m in latency_tracker.metrics] == [
        ("llm", "chat"),
        ("tool", "weather"),
    ]


def test_thresholds_alerts_file_and_statistics(fresh_callbacks: None, start: Start) -> None:
    """What is recognised goes the way of every operation."""
    config = start(rag_warning_ms=0.000001)
    alerts: list[Alert] = []
    add_alert_callback(alerts.append)
    chat(gen_ai__provider__name="openai").end()
    metric = only()
    assert metric.severity is Severity.WARNING
    assert latency_tracker.get_stats(by_provider=True)["rag_inference/chat/openai"]["count"] == 1
    assert shutdown(60)
    assert [alert.metric for alert in alerts] == [metric]
    assert LatencyMetric.from_dict(json.loads(config.metrics_file_path.read_text())) == metric


@pytest.mark.parametrize(
    ("attributes", "failed", "status"),
    [
        ({}, False, "success"),
        ({}, True, "error"),
        ({"error__type": "openai.APITimeoutError"}, True, "timeout"),
        ({"error__type": "timeout"}, False, "timeout"),
        ({"error__type": "asyncio.exceptions.CancelledError"}, True, "cancelled"),
        ({"tts__interrupted": True}, False, "cancelled"),
        ({"error__type": "500"}, True, "error"),
    ],
)
def test_how_it_ended(measuring: LatencyConfig, attributes: dict[str, Any], failed: bool, status: str) -> None:
    """From the span's status and error.type; what was interrupted is cancelled."""
    span = chat(**attributes)
    if failed:
        span.set_status(Status(StatusCode.ERROR, "call +33612345678 failed"))
    span.end()
    assert only().status.value == status
    assert "+33612345678" not in str(only().error_message)


def test_an_exception_event_says_what_error_type_does_not(measuring: LatencyConfig) -> None:
    """As the SDK's own context manager leaves a span."""
    with pytest.raises(TimeoutError), under(chat()):
        raise TimeoutError
    assert only().status is OperationStatus.TIMEOUT


# -- once -------------------------------------------------------------------------------------------------------------


def test_within_an_operation_of_ours_nothing_counts_again(measuring: LatencyConfig) -> None:
    """A client's own instrumentation beneath our decorator; work of another type counts."""
    with measure_latency_context("rag_inference", "answer"):
        chat().end()
        begin("tts", gen_ai__operation__name="text_to_speech").end()
    assert [m.operation_name for m in latency_tracker.metrics] == ["text_to_speech", "answer"]


def test_around_an_operation_of_ours_nothing_counts_again(measuring: LatencyConfig) -> None:
    """A framework's node that calls our decorated function, some spans deeper."""
    answer = measure_latency_context("rag_inference", "answer")
    with under(begin("llm_node", "livekit-agents")), under(begin("between")), answer:
        pass
    assert only().operation_name == "answer"


def test_a_span_with_our_attributes_counts_for_the_one_around_it(measuring: LatencyConfig) -> None:
    """Another library that writes `operation_type` is believed, and not doubled."""
    with under(begin("llm_node", "livekit-agents")):
        begin("ask", operation_type="rag_inference", operation_name="ask").end()
    assert only().operation_name == "ask"


def test_the_outermost_counts(measuring: LatencyConfig) -> None:
    """A node holds its retries and the client's own span; without a node, the request counts."""
    with under(begin("llm_node", "livekit-agents")), under(begin("llm_request", "livekit-agents")):
        chat().end()
    with under(begin("llm_request", "livekit-agents")):
        chat().end()
    assert [m.operation_name for m in latency_tracker.metrics] == ["llm_node", "llm_request"]


def test_our_spans_are_never_foreign(start: Start) -> None:
    """Also where they carry the GenAI names."""
    start(semconv_opt_in=("gen_ai_latest_experimental",))
    with measure_latency_context("rag_inference", "answer"):
        pass
    begin("chat", SCOPE, gen_ai__operation__name="chat").end()
    assert only().operation_name == "answer"


def test_switched_off_they_do_not_count(start: Start) -> None:
    """Spans that carry our own attributes do, as ever."""
    start(foreign_spans=False)
    chat().end()
    begin("ask", operation_type="rag_inference", operation_name="ask").end()
    assert only().operation_name == "ask"


def test_what_began_before_init_is_left_alone(start: Start) -> None:
    """Nothing is known of what is around it."""
    start()
    running = runtime_module._runtime
    assert running is not None
    running.session.follows_foreign = False
    span = chat()
    running.session.follows_foreign = True
    span.end()
    assert list(latency_tracker.metrics) == []


def test_the_table_stands_in_the_docs() -> None:
    """docs/frameworks.md has a row for each of the code's, in its order, and names every attribute that is read."""
    said = (ROOT / "docs/frameworks.md").read_text()
    rows = [
        f"| {row.framework} | `{row.span or row.gen_ai_operation}` | {', '.join(f'`{kind}`' for kind in row.types)} | "
        + (f"`{row.latency}`" if row.latency else "the span's length")
        + " |"
        for row in TABLE
    ]
    positions = [said.find(row) for row in rows]
    assert -1 not in positions, rows[positions.index(-1)]
    assert positions == sorted(positions)
    for name in (*FIRST_OUTPUT, *PROVIDERS, *CALL_IDS):
        assert f"`{name}`" in said
