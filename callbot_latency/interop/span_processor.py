"""From a finished span to the pipeline."""

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from .. import semconv
from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession, active
from ..tracing.context import Binding, bound
from .framework_spans import type_of
from .span_nesting import mark_counted, on_span_end, on_span_start

__all__ = ["LatencySpanProcessor"]


class LatencySpanProcessor(SpanProcessor):
    """Hands the measurement of each finished span to the pipeline that is running; holds nothing itself.

    A span that nobody of ours opened counts too when it carries `operation_type`, or when a framework opened it whose
    spans `foreign` knows: its attributes are read on the worker, and its severity stands on metric and alert alone,
    since the SDK discards attributes set from here on. Within a bound call every such span gets call_sid, stream_sid
    and turn as it starts, unless it names a call itself.
    `init()` adds one to the provider it uses.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Follow a foreign span and set the bound call's ids on it; `SpanFactory` sets those of our own spans."""
        if _is_ours(span):
            return
        binding = bound(parent_context)
        if binding is not None:
            call_safely(_show_ids, span, binding)
        session = active.session
        if session is not None and session.follows_foreign:
            call_safely(on_span_start, span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Runs on the caller's thread: one look-up and one append."""
        session = active.session
        if session is None:
            return
        measurement = session.open_measurements.pop(span.context.span_id, None)
        if measurement is not None:
            # Inside of Session.end, whose own guard holds whatever could fail here.
            session.submit(measurement)
            if session.follows_foreign:
                mark_counted(span, measurement)
        else:
            call_safely(_take_foreign, session, span)

    def shutdown(self) -> None:
        """Nothing: the pipeline outlives a provider, and `callbot_latency.shutdown()` ends it."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until everything that finished before is with its reporters; False when the time was too short."""
        session = active.session
        return session is None or bool(call_safely(session.flush, timeout_millis / 1000))


def _show_ids(span: Span, binding: Binding) -> None:
    held = span.attributes or {}
    # What names a call already names its own; and a provider may hold two of us.
    if semconv.CALL_SID in held:
        return
    span.set_attribute(semconv.CALL_SID, binding.call_sid)
    if binding.stream_sid and semconv.STREAM_SID not in held:
        span.set_attribute(semconv.STREAM_SID, binding.stream_sid)
    if binding.turn is not None and semconv.TURN not in held:
        span.set_attribute(semconv.TURN, binding.turn.number)


def _take_foreign(session: ActiveSession, span: ReadableSpan) -> None:
    if _is_ours(span):
        return
    kind = (span.attributes or {}).get(semconv.OPERATION_TYPE)
    if kind is None and not session.follows_foreign:
        return
    # A provider may hold two of us, the application's and that of init(): the first to see a span marks it.
    mark = object()
    if vars(span).setdefault("_callbot_latency", mark) is not mark:
        return
    if kind is None:
        item = on_span_end(span)
        if item is not None:
            session.submit(item)
    else:
        session.submit(span)
        on_span_end(span, type_of(str(kind)))


def _is_ours(span: ReadableSpan) -> bool:
    """A span of ours that is no longer in the table was told already, or belongs to the parent of this fork."""
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE
