"""The call that the running code works for: `call()` binds it, `bind()` carries it into other threads."""

import time
from collections.abc import Callable, Mapping
from contextvars import Token, copy_context
from dataclasses import dataclass
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from .. import semconv
from ..base.internal_errors import call_safely
from ..base.text import well_formed
from ..measuring.active_session import ActiveSession
from ..measuring.measurement import checked_metadata, checked_text
from ..measuring.reentrant import ReentrantContext
from ..tracing.context import BINDING, Binding, attach, detach
from ..tracing.span_status import mark_failed, metadata_attributes, snapshot_metadata

if TYPE_CHECKING:
    from .call_timeline import CallTimeline

__all__ = ["bind", "call"]

P = ParamSpec("P")
R = TypeVar("R")


def bind(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, to be run in another thread or executor with the call and the span that are current here.

    Each run has its own copy of the context, so that runs may overlap.

    Raises:
        TypeError: not callable.

    """
    if not callable(function):
        raise TypeError(f"bind: expected a function, got {type(function).__name__}")
    if iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function):
        raise TypeError("bind: expected a plain function; what is awaited or iterated has the call of whoever does so")
    captured = copy_context()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return captured.copy().run(function, *args, **kwargs)

    return run


@dataclass(frozen=True, slots=True)
class _Opened:
    """One entered `call`."""

    span: Span
    context: Context
    token: Token[Context]
    start_wall_ns: int
    start_ns: int
    timeline: "CallTimeline"


class call(ReentrantContext["call", _Opened]):  # noqa: N801 - used as a verb, like contextlib.suppress
    """Bind a call to the running task and what it starts, and open the call's span, with ``with`` or ``async with``.

    The span is the call's root. Its ids are derived from `call_sid` (and LATENCY_TRACE_KEY), so every process that
    knows the call_sid writes into the same trace, beneath the same root. One process owns the call, the one that has
    its WebSocket; every other, such as a webhook worker or a batch job, says ``joins=True`` and opens a span named
    ``call part``. So does a second `call` of the same call_sid in one process, and one where a span of the call is
    current. A current span of another trace, such as the web server's, is linked.

    Args:
        call_sid: Twilio's id of the call, ``CA...``.
        stream_sid: id of the media stream, ``MZ...``.
        metadata: attributes of the call span, such as queue or campaign, which alert rules may ask for. Of a phone
            number in it no more is recorded than LATENCY_PHONE_NUMBERS says.
        joins: the call's root is written by another process.

    Raises:
        TypeError, ValueError: an id is not a string, call_sid is empty, or metadata is no mapping.

    """

    def __init__(
        self,
        call_sid: str,
        *,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        joins: bool = False,
    ) -> None:
        if not isinstance(call_sid, str):
            raise TypeError(f"call_sid: expected a string such as 'CA...', got {type(call_sid).__name__}")
        if not call_sid:
            raise ValueError("call_sid: expected a string such as 'CA...', got an empty one")
        self.call_sid: str = well_formed(call_sid)
        self.stream_sid: str | None = checked_text("stream_sid", stream_sid)
        self._metadata = snapshot_metadata(checked_metadata(metadata))
        super().__init__()
        self._joins = joins
        self._span: Span | None = None
        self.timeline: CallTimeline | None = None
        """What happens in the call, while measuring is on; a `TwilioMediaStream` tells it."""

    @property
    def trace_id(self) -> str | None:
        """The call's trace id as 32 hex digits, once its span is open and records."""
        context = self._span.get_span_context() if self._span else None
        return trace.format_trace_id(context.trace_id) if context and context.is_valid else None

    def _yielded(self, state: _Opened | None) -> "call":
        return self

    def _open(self, session: ActiveSession) -> _Opened | None:
        # Here, since most of what is measured needs no turns, and importing us is to cost little.
        from .call_timeline import CallTimeline

        spans = session.span_factory()
        if spans is None:
            return None
        metadata = session.phones.redact(self._metadata)
        if metadata and session.opened_calls is not None:
            session.opened_calls.append((self.call_sid, None, metadata))
        attributes = metadata_attributes(metadata) | {semconv.CALL_SID: self.call_sid}
        if self.stream_sid:
            attributes[semconv.STREAM_SID] = self.stream_sid
        start_wall_ns, start_ns = time.time_ns(), time.perf_counter_ns()
        outer = otel_context.get_current()
        self._span = span = spans.start_call(outer, attributes, start_wall_ns, self.call_sid, joins=self._joins)
        numbers = session.turn_numbers.get_or_put(self.call_sid, count(1))
        self.timeline = timeline = CallTimeline(numbers)
        session.timelines.add(timeline)
        binding = otel_context.set_value(BINDING, Binding(self.call_sid, self.stream_sid, timeline), outer)
        context = trace.set_span_in_context(span, binding)
        return _Opened(span, context, attach(context), start_wall_ns, start_ns, timeline)

    def _close(self, state: _Opened, exc: BaseException | None) -> None:
        elapsed_ns = time.perf_counter_ns() - state.start_ns
        detach(state.token, state.context, exc)
        call_safely(state.timeline.close)
        if exc is not None:
            call_safely(mark_failed, state.span, exc)
        state.span.end(state.start_wall_ns + elapsed_ns)
