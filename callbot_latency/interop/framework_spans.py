"""Spans of frameworks, recognised by one table: what they measure, in our words.

The names are those that the frameworks write: pipecat (``pipecat/utils/tracing``), LiveKit Agents
(``livekit/agents/telemetry/trace_types.py``), and OpenTelemetry's GenAI conventions
(https://github.com/open-telemetry/semantic-conventions-genai). All of their times are in seconds.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.trace import format_span_id, format_trace_id

from .. import semconv
from ..base.scrubbing import scrub
from ..model.metric import LatencyMetric
from ..model.operation import OperationStatus, OperationType
from ..model.units import NS_PER_MS, at

__all__ = ["TABLE", "ForeignSpan", "Row", "call_sid_of", "is_measured", "match_span", "metric_of", "turn_of", "type_of"]

LLM: Final = "llm"
"""The type of what a language model answers, where the application has registered it; else it is `rag_inference`."""
TOOL: Final = "tool"
"""The type of tools, where the application has registered it; else those of Salesforce alone are counted."""
_SALESFORCE: Final = "salesforce"


class Row(NamedTuple):
    """One kind of span. Types are in the order of preference: the first that is known counts."""

    framework: str
    scope: str | None
    """Name of the instrumentation scope; None: any."""
    span: str | None
    """Name of the span; None: any."""
    gen_ai_operation: str | None
    """Value of ``gen_ai.operation.name``; None: any."""
    types: tuple[str, ...]
    latency: str | None = None
    """Attribute that holds the latency in seconds, where the span lasts longer than what the caller waits for."""


_STT, _TTS, _RAG = (kind.value for kind in (OperationType.STT, OperationType.TTS, OperationType.RAG))
_PIPECAT, _LIVEKIT = "pipecat", "livekit-agents"
# Each within the one before it, where there is one: the outermost counts.
_LIVEKIT_PARTS = ("node", "fallback_adapter", "stream_adapter", "request", "request_run")

TABLE: Final = (
    # Begins with the caller's speech: what the caller waits for is from its end to the transcript.
    Row("pipecat", _PIPECAT, "stt", None, (_STT,), "metrics.ttfb"),
    Row("pipecat", _PIPECAT, "llm", None, (LLM, _RAG)),
    Row("pipecat", _PIPECAT, "tts", None, (_TTS,)),
    Row("LiveKit Agents", _LIVEKIT, "user_turn", None, (_STT,), "lk.transcription_delay"),
    *(Row("LiveKit Agents", _LIVEKIT, f"llm_{name}", None, (LLM, _RAG)) for name in _LIVEKIT_PARTS),
    *(Row("LiveKit Agents", _LIVEKIT, f"tts_{name}", None, (_TTS,)) for name in _LIVEKIT_PARTS),
    Row("LiveKit Agents", _LIVEKIT, "function_tool", None, (TOOL,)),
    *(Row("GenAI", None, None, name, (LLM, _RAG)) for name in ("chat", "generate_content", "text_completion")),
    Row("GenAI", None, None, "retrieval", (_RAG,)),
    Row("GenAI", None, None, "speech_to_text", (_STT,)),
    Row("GenAI", None, None, "text_to_speech", (_TTS,)),
    Row("GenAI", None, None, "execute_tool", (TOOL,)),
)
"""What is counted. The first row that fits is the span's; what fits none is structure, and counts nothing."""

_BY_SPAN: Final = {(row.scope, row.span): row for row in TABLE if row.span is not None}
_BY_OPERATION: Final = {row.gen_ai_operation: row for row in TABLE if row.gen_ai_operation is not None}

FIRST_OUTPUT: Final = (semconv.GEN_AI_TIME_TO_FIRST_CHUNK, "metrics.ttfb", "lk.response.ttft", "lk.response.ttfb")
PROVIDERS: Final = (semconv.GEN_AI_PROVIDER_NAME, "gen_ai.system")
TOOLS: Final = ("gen_ai.tool.name", "lk.function_tool.name")
CALL_IDS: Final = (semconv.CALL_SID, semconv.GEN_AI_CONVERSATION_ID, "conversation.id", "lk.sip.twilio.callSid")
INTERRUPTED: Final = ("tts.interrupted", "lk.interrupted")
TURN_NUMBER: Final = "turn.number"

_CALL_SID: Final = re.compile(r"CA[0-9a-fA-F]{32}")
_CANCELLED: Final = frozenset({"CancelledError", "GeneratorExit"})
_TIMEOUT: Final = re.compile(r"time_?d? ?out|DeadlineExceeded|deadline_exceeded", re.IGNORECASE)


class ForeignSpan(NamedTuple):
    """A finished span of a framework, on its way to the worker."""

    span: Any
    row: Row
    type: OperationType
    call_sid: str | None
    turn: int | None


def match_span(span: Any) -> tuple[Row, OperationType] | None:
    """The row of a span, which need not have ended, and the type that it counts as; None: it is not counted."""
    attributes: Mapping[str, Any] = span.attributes or {}
    scope = span.instrumentation_scope
    row = _BY_SPAN.get((scope.name if scope is not None else None, span.name))
    if row is None:
        row = _BY_OPERATION.get(str(attributes.get(semconv.GEN_AI_OPERATION_NAME)))
    if row is None:
        return None
    if TOOL in row.types and _SALESFORCE in (_first(attributes, TOOLS) or "").lower():
        return row, OperationType.SALESFORCE
    for value in row.types:
        kind = type_of(value)
        if kind is not None:
            return row, kind
    return None


def type_of(value: str) -> OperationType | None:
    """The type with this value, if there is one."""
    try:
        return OperationType(value)
    except ValueError:
        return None


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if isinstance(value := attributes.get(name), str) and value), None)


def call_sid_of(span: Any) -> str | None:
    """Twilio's id of the call, where one of the span's ids is one: other conversation ids are no call's."""
    attributes = span.attributes or {}
    ids = (attributes.get(name) for name in CALL_IDS)
    return next((value for value in ids if isinstance(value, str) and _CALL_SID.fullmatch(value)), None)


def turn_of(span: Any) -> int | None:
    """The turn's number, on pipecat's `turn`."""
    value = (span.attributes or {}).get(TURN_NUMBER)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def metric_of(item: ForeignSpan) -> LatencyMetric:
    """The measurement.

    Raises:
        ValueError: the span does not say how long the caller waited: an unknown latency is never 0.

    """
    span, row = item.span, item.row
    attributes = span.attributes or {}
    latency_ms = (span.end_time - span.start_time) / NS_PER_MS
    if row.latency is not None:
        latency_ms = (_seconds(attributes, (row.latency,)) or math.nan) * 1000.0
    error = _error_type(span)
    model = attributes.get(semconv.GEN_AI_REQUEST_MODEL)
    return LatencyMetric(
        operation_type=item.type,
        operation_name=_first(attributes, TOOLS) or row.span or row.gen_ai_operation or span.name,
        latency_ms=latency_ms,
        status=_status(span, error),
        timestamp=at(span.end_time),
        call_sid=item.call_sid,
        provider=_first(attributes, PROVIDERS),
        error_message=(scrub(span.status.description or "") or error) if not span.status.is_ok else None,
        metadata={"model": model} if isinstance(model, str) else {},
        time_to_first_output_ms=None if row.latency else _milliseconds(attributes),
        trace_id=format_trace_id(span.context.trace_id),
        span_id=format_span_id(span.context.span_id),
        turn=item.turn,
    )


def is_measured(item: ForeignSpan) -> bool:
    """Whether the span says how long it took, where its own length does not."""
    return item.row.latency is None or _seconds(item.span.attributes or {}, (item.row.latency,)) is not None


def _milliseconds(attributes: Mapping[str, Any]) -> float | None:
    seconds = _seconds(attributes, FIRST_OUTPUT)
    return None if seconds is None else seconds * 1000.0


def _seconds(attributes: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The first that is known; frameworks write 0 or -1 for what they do not know."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
    return None


def _error_type(span: Any) -> str | None:
    said = (span.attributes or {}).get(semconv.ERROR_TYPE)
    if isinstance(said, str):
        return said
    for event in reversed(span.events):
        kind = (event.attributes or {}).get(semconv.EXCEPTION_TYPE)
        if isinstance(kind, str):
            return kind
    return None


def _status(span: Any, error: str | None) -> OperationStatus:
    attributes = span.attributes or {}
    if any(attributes.get(name) is True for name in INTERRUPTED):
        return OperationStatus.CANCELLED
    if error is not None and error.rpartition(".")[2] in _CANCELLED:
        return OperationStatus.CANCELLED
    if span.status.is_ok and semconv.ERROR_TYPE not in attributes:
        return OperationStatus.SUCCESS
    return OperationStatus.TIMEOUT if error is not None and _TIMEOUT.search(error) else OperationStatus.ERROR
