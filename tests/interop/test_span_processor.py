"""Counts that depend on no sampling, limit or provider. OpenTelemetry's globals want a process each."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.subprocesses import facts_of, run_python, written

pytestmark = pytest.mark.real_time

OPERATIONS = 60

METER = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))

def points(name):
    data = reader.get_metrics_data()
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    return [p for m in found if m.name == name for p in m.data.data_points]

def counts():
    shutdown(60)
    return {
        "durations": sum(p.count for p in points("callbot.operation.duration")),
        "breaches": {p.attributes["severity"]: p.value for p in points("callbot.threshold.breaches")},
        "turns": sum(p.count for p in points("callbot.turn.response")),
        "parts": sum(p.count for p in points("callbot.turn.contribution")) > 0,
        "tracked_turns": len(latency_tracker.get_turns()),
        "tracked": {key: s["count"] for key, s in latency_tracker.get_stats().items()},
        "severities": sum(m.severity is not None for m in latency_tracker.metrics),
        "dropped": dropped.by_reason(),
        "open": len(cl.runtime.lifecycle._runtime.session.open_measurements) if cl.runtime.lifecycle._runtime else 0,
        "ids": sorted({m.call_sid for m in latency_tracker.metrics}),
    }
"""

WORK = f"""
@measure_latency("text_to_speech", provider="openai", metadata={{"a": 1, "b": 2, "c": 3}})
def speak():
    yield 1
    yield 2

with cl.call("CA1", stream_sid="MZ1", metadata={{"queue": "sales"}}):
    for _ in range({OPERATIONS}):
        with cl.turn(metadata={{"intent": "order"}}) as current:
            current.speech_ended()
            listen()
            list(speak())
            with measure_latency_context("rag_inference", "ask", metadata={{"d": 4}}) as handle:
                handle.set_metadata(e=5)
            current.audio_sent()
            current.playback_started()
"""

ENVIRONMENT = {
    # Everything of text-to-speech is a warning, everything of RAG critical.
    "LATENCY_TTS_WARNING_MS": "0.000001",
    "LATENCY_TTS_CRITICAL_MS": "1000000",
    "LATENCY_RAG_WARNING_MS": "0.000001",
    "LATENCY_RAG_CRITICAL_MS": "0.000001",
    "LATENCY_STT_WARNING_MS": "1000000",
    "LATENCY_STT_CRITICAL_MS": "1000000",
    "LATENCY_LOGGING_ENABLED": "false",
}

TRACKED = {
    "speech_to_text/listen": OPERATIONS,
    "text_to_speech/speak": OPERATIONS,
    "rag_inference/ask": OPERATIONS,
}

EXPECTED = {
    "durations": 3 * OPERATIONS,
    # Until it was sent, and until it was heard.
    "turns": 2 * OPERATIONS,
    "parts": True,
    "tracked_turns": OPERATIONS,
    "breaches": {"warning": OPERATIONS, "critical": OPERATIONS},
    "tracked": TRACKED,
    "severities": 2 * OPERATIONS,
    "dropped": {},
    "open": 0,
    "ids": ["CA1"],
}

APPLICATION = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""

NO_SDK = """
trace.set_tracer_provider(trace.NoOpTracerProvider())
"""


def program(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in parts)


def sampled(argument: str) -> dict[str, str]:
    return {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument}


@pytest.mark.promise("sampling")
@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("", {}),
        ("", sampled("0")),
        ("", sampled("0.1")),
        ("", {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"}),
        ("", {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1"}),
        (APPLICATION, {}),
        (APPLICATION, sampled("0")),
        (APPLICATION, sampled("0.1")),
        (APPLICATION, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"}),
        (APPLICATION + "provider.add_span_processor(cl.LatencySpanProcessor())\n", {}),
        (NO_SDK, {}),
    ],
    ids=[
        "ours", "ours, ratio 0", "ours, ratio 0.1", "ours, 2 attributes", "ours, no attributes",
        "application's", "application's, ratio 0", "application's, ratio 0.1", "application's, 2 attributes",
        "application's with our processor", "no SDK",
    ],
)  # fmt: skip
def test_counts_are_the_same(before: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Histograms, breaches, tracker and file count every operation and turn once, whatever becomes of its span."""
    code = program(METER, before, "init()", WORK, "tell(**counts())")
    assert facts_of(run_python(code, tmp_path, {**ENVIRONMENT, **environment})) == EXPECTED
    assert len(written(tmp_path)) == 4 * OPERATIONS


@pytest.mark.promise("sampling")
def test_counts_with_the_sdk_disabled(tmp_path: Path) -> None:
    """OTEL_SDK_DISABLED makes the instruments deaf; tracker, severities and file count as ever."""
    code = program(METER, "init()", WORK, "tell(**counts())")
    told = facts_of(run_python(code, tmp_path, {**ENVIRONMENT, "OTEL_SDK_DISABLED": "true"}))
    assert told == {**EXPECTED, "durations": 0, "turns": 0, "parts": False, "breaches": {}}
    lines = written(tmp_path)
    assert len(lines) == 4 * OPERATIONS
    assert not any("span_id" in line for line in lines)


@pytest.mark.promise("sampling")
def test_a_ratio_samples_some_calls_and_counts_all(tmp_path: Path) -> None:
    """Of many calls some have spans, each with all of its operations; every call is counted."""
    code = program(
        METER,
        APPLICATION,
        """
    init()
    for n in range(200):
        with cl.call(f"CA{n}"):
            listen()
    spans = exporter.get_finished_spans()
    told = counts()
    tell(calls=sum(s.name == "call" for s in spans), operations=sum(s.name != "call" for s in spans),
         durations=told["durations"], with_span=sum(m.span_id is not None for m in latency_tracker.metrics))
    """,
    )
    told = facts_of(run_python(code, tmp_path, {**ENVIRONMENT, **sampled("0.3")}))
    assert told["durations"] == 200
    assert 0 < told["calls"] < 200
    assert told["calls"] == told["operations"] == told["with_span"]


@pytest.mark.parametrize("provider", ["", APPLICATION], ids=["ours", "application's"])
@pytest.mark.parametrize("ratio", ["0", "1"])
def test_other_libraries_spans_are_left_to_the_sampler(provider: str, ratio: str, tmp_path: Path) -> None:
    """We make nobody's span record, and count none of those that are not about latency."""
    code = program(
        METER,
        provider,
        """
    init()
    tracer = trace.get_tracer("library")
    with tracer.start_as_current_span("GET") as span:
        recording = span.is_recording()
        listen()
    tell(recording=recording, n=counts()["durations"])
    """,
    )
    assert facts_of(run_python(code, tmp_path, sampled(ratio))) == {"recording": ratio == "1", "n": 1}


FOREIGN = """
tracer = trace.get_tracer("somebody.else", "1.0")
span = tracer.start_span("listen there", start_time=1_000_000_000, attributes={
    "operation_type": "speech_to_text", "operation_name": "elsewhere", "provider": "google",
    "call_sid": "CA1", "stream_sid": "MZ1", "metadata.model": "m", "other": 1})
if "{raises}":
    span.set_status(trace.StatusCode.ERROR, "no answer")
span.end(3_500_000_000)
tracer.start_span("x", attributes={"operation_type": "nonsense"}).end()
tracer.start_span("x", attributes={"operation_name": "no type"}).end()
told = [m.to_dict() for m in latency_tracker.metrics]
drops = dropped.by_reason()
tell(metrics=told, dropped=drops, durations=counts()["durations"])
"""


@pytest.mark.parametrize(
    ("provider", "raises"),
    [
        ("", ""),
        (APPLICATION, "yes"),
        (APPLICATION + "provider.add_span_processor(cl.LatencySpanProcessor())\n", ""),
        (APPLICATION + "provider.add_span_processor(cl.LatencySpanProcessor())\n" * 3, "yes"),
    ],
    ids=["ours", "application's, failed", "application's with our processor", "with three of them, failed"],
)
def test_a_foreign_span_that_carries_our_words_is_a_metric(provider: str, raises: str, tmp_path: Path) -> None:
    """Once; with its ids, metadata, time and severity; one that makes no sense is counted as invalid."""
    code = program(METER, provider, "init()", FOREIGN.replace("{raises}", raises))
    told = facts_of(run_python(code, tmp_path))
    (metric,) = told["metrics"]
    trace_id, span_id = metric.pop("trace_id"), metric.pop("span_id")
    assert (len(trace_id), len(span_id)) == (32, 16)
    assert metric == {
        "operation_type": "speech_to_text",
        "operation_name": "elsewhere",
        "latency_ms": 2500.0,
        "status": "error" if raises else "success",
        "timestamp": "1970-01-01T00:00:03.500000Z",
        "call_sid": "CA1",
        "stream_sid": "MZ1",
        "provider": "google",
        "error_message": "no answer" if raises else None,
        "metadata": {"model": "m"},
        "severity": "warning",
    }
    assert told["dropped"] == {"invalid": 1}
    assert told["durations"] == 1


def test_our_own_spans_are_not_taken_for_foreign_ones(tmp_path: Path) -> None:
    """Operations of ours on a provider that has two of our processors count once, also across shutdown and init."""
    code = program(
        METER,
        APPLICATION,
        """
    provider.add_span_processor(cl.LatencySpanProcessor())
    for _ in range(3):
        init()
        listen()
        shutdown(60)
    tell(n=len(latency_tracker.metrics), processors=len(provider._active_span_processor._span_processors))
    """,
    )
    assert facts_of(run_python(code, tmp_path)) == {"n": 3, "processors": 3}


def test_a_processor_without_init_does_nothing(tmp_path: Path) -> None:
    """It may be added before, and stays after: no error, no metric, and it flushes."""
    code = program(
        METER,
        APPLICATION,
        """
    processor = cl.LatencySpanProcessor()
    provider.add_span_processor(processor)
    trace.get_tracer("x").start_span("x", attributes={"operation_type": "speech_to_text"}).end()
    flushed = [processor.force_flush()]
    init()
    listen()
    flushed.append(processor.force_flush())
    shutdown(60)
    trace.get_tracer("x").start_span("x", attributes={"operation_type": "speech_to_text"}).end()
    flushed.append(processor.force_flush())
    processor.shutdown()
    tell(n=len(latency_tracker.metrics), flushed=flushed)
    """,
    )
    done = run_python(code, tmp_path)
    assert facts_of(done) == {"n": 1, "flushed": [True, True, True]}
    assert done.stderr == ""


def test_severity_of_a_foreign_span_stands_on_metric_and_alert(tmp_path: Path) -> None:
    """The callback hears of it."""
    code = program(
        METER,
        """
    init()
    seen = []
    cl.add_alert_callback(lambda a: seen.append([a.metric.operation_name, a.severity.value, a.threshold_ms]))
    span = trace.get_tracer("x").start_span("x", start_time=0, attributes={"operation_type": "rag_inference"})
    span.end(8_000_000_000)
    shutdown(60)
    tell(seen=seen)
    """,
    )
    assert facts_of(run_python(code, tmp_path)) == {"seen": [["x", "critical", 8000.0]]}


def test_exemplars_point_at_the_sampled_span(tmp_path: Path) -> None:
    """From the decorator to the histogram of an application's meter provider, with the SDK's own exemplar filter."""
    code = program(
        METER,
        """
    init()
    with cl.call("CA1") as opened:
        listen()
    metric = latency_tracker.metrics[-1]
    shutdown(60)
    (point,) = points("callbot.operation.duration")
    (exemplar,) = point.exemplars
    tell(same=[format(exemplar.trace_id, "032x") == metric.trace_id == opened.trace_id,
               format(exemplar.span_id, "016x") == metric.span_id],
         labels=sorted(point.attributes), more=dict(exemplar.filtered_attributes or {}))
    """,
    )
    told: dict[str, Any] = facts_of(run_python(code, tmp_path))
    assert told == {
        "same": [True, True],
        "labels": ["operation_name", "operation_type", "provider", "status"],
        "more": {},
    }


OTHERS = """
tracer = trace.get_tracer("opentelemetry.instrumentation.httpx")

def get(name, **attributes):
    with tracer.start_as_current_span(name, attributes=attributes):
        pass

get("before")
with cl.call("CA1", stream_sid="MZ1") as opened:
    get("in the call")
    with cl.turn(), measure_latency_context("rag_inference", "ask"):
        get("in a turn", a=1)
        get("another call's", call_sid="CA2")
        get("with words of ours", operation_type="rag_inference")
        tracer.start_span("detached", context=trace.Context()).end()
    thread = threading.Thread(target=cl.bind(get), args=("in a thread",))
    thread.start()
    thread.join()
with cl.bound_from_headers({"X-Callbot-Call-Sid": "CA3", "X-Callbot-Turn": "4"}):
    get("arrived")
get("after")
shutdown(60)
tell(spans={s.name: {k: v for k, v in s.attributes.items() if k in ("call_sid", "stream_sid", "turn", "a")}
            for s in exporter.get_finished_spans() if s.instrumentation_scope.name != "callbot_latency"},
     metrics=[[m.call_sid, m.stream_sid, m.turn] for m in latency_tracker.metrics])
"""

OURS = """
init()
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
TracerProvider.add_span_processor(trace.get_tracer_provider(), SimpleSpanProcessor(exporter))
"""

IN_CALL = {"call_sid": "CA1", "stream_sid": "MZ1"}
IN_TURN = {**IN_CALL, "turn": 1}


@pytest.mark.parametrize(
    "provider",
    [OURS, APPLICATION + "init()\n", APPLICATION + "provider.add_span_processor(cl.LatencySpanProcessor())\ninit()\n"],
    ids=["ours", "application's", "application's with our processor"],
)
def test_a_calls_ids_stand_on_other_libraries_spans(provider: str, tmp_path: Path) -> None:
    """In the call's context alone, also in a bound thread and where headers named the call; a span's own id stays."""
    told = facts_of(run_python(program(METER, provider, OTHERS), tmp_path))
    assert told["spans"] == {
        "before": {},
        "in the call": IN_CALL,
        "in a turn": {**IN_TURN, "a": 1},
        "another call's": {"call_sid": "CA2"},
        "with words of ours": IN_TURN,
        "detached": {},
        "in a thread": IN_CALL,
        "arrived": {"call_sid": "CA3", "turn": 4},
        "after": {},
    }
    # The operation whose words another library wrote, and ours.
    assert told["metrics"] == [["CA1", "MZ1", 1]] * 2


@pytest.mark.promise("cost-of-measuring")
def test_ids_cost_no_span_of_ours_a_second_look(tmp_path: Path) -> None:
    """Our processor passes over what we open, so that attributes may still be written straight."""
    code = program(
        METER,
        OURS,
        """
    from callbot_latency.interop import span_processor as processor
    shown = []
    processor._show_ids = lambda span, binding: shown.append(span.name)
    with cl.call("CA1"), cl.turn():
        listen()
        trace.get_tracer("x").start_span("theirs").end()
    tell(shown=shown, direct=trace.get_tracer_provider().writing.bypass_checks)
    """,
    )
    assert facts_of(run_python(code, tmp_path)) == {"shown": ["theirs"], "direct": True}


CLIENTS = {
    "httpx": """
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
        HTTPXClientInstrumentor().instrument()
        with cl.propagate(httpx.Client(timeout=60)) as client:
            sent.append(client.get(url).json())

        async def ask():
            async with cl.propagate(httpx.AsyncClient(timeout=60)) as client:
                return (await client.get(url)).json()

        sent.append(asyncio.run(ask()))
        """,
    "requests": """
        import requests
        from opentelemetry.instrumentation.requests import RequestsInstrumentor
        RequestsInstrumentor().instrument()
        with cl.propagate(requests.Session()) as session:
            sent.append(session.get(url).json())
        """,
    "sqlalchemy": """
        import sqlalchemy
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
        engine = sqlalchemy.create_engine("sqlite://")
        SQLAlchemyInstrumentor().instrument(engine=engine)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
        """,
    "grpc": """
        import grpc
        from concurrent import futures
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
        GrpcInstrumentorClient().instrument()
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                channel.unary_unary("/a.B/c")(b"")
            except grpc.RpcError:
                pass
        server.stop(0).wait()
        """,
}
"""What uses a client under its real instrumentation; `sent` gets the headers that a service was sent."""

SERVICE = """
import asyncio, httpx
from tests.support.scripted_http import Answer, scripted

serving = scripted(lambda request: Answer(body=json.dumps(request.headers).encode()))
service = serving.__enter__()
url, sent = f"{service.root}/", []
entered = cl.call("CA1", stream_sid="MZ1").__enter__(), cl.turn().__enter__()
"""

TOLD = """
shutdown(60)
scopes = {format(s.context.span_id, "016x"): s.instrumentation_scope.name for s in exporter.get_finished_spans()}
theirs = [s for s in exporter.get_finished_spans() if s.instrumentation_scope.name != "callbot_latency"]
tell(scopes=sorted({s.instrumentation_scope.name for s in theirs}),
     ids=[{k: v for k, v in s.attributes.items() if k in ("call_sid", "stream_sid", "turn")} for s in theirs],
     parents=[scopes[s["traceparent"].split("-")[2]] for s in sent],
     headers=[{k: v for k, v in s.items() if k.startswith("x-callbot")} for s in sent])
"""


@pytest.mark.parametrize("library", CLIENTS)
def test_the_real_instrumentations_carry_the_ids(library: str, tmp_path: Path) -> None:
    """On every span; and what a client sends names the span of the client's own instrumentation as the parent."""
    code = program(METER, OURS, SERVICE, CLIENTS[library], TOLD)
    told = facts_of(run_python(code, tmp_path, {"LATENCY_PROPAGATE_TO": "127.0.0.1"}))
    assert told["scopes"] == [f"opentelemetry.instrumentation.{library}"]
    assert told["ids"]
    assert all(ids == IN_TURN for ids in told["ids"])
    sent = {"httpx": 2, "requests": 1}.get(library, 0)
    assert told["parents"] == told["scopes"] * sent
    assert (
        told["headers"] == [{"x-callbot-call-sid": "CA1", "x-callbot-stream-sid": "MZ1", "x-callbot-turn": "1"}] * sent
    )
