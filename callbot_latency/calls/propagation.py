"""From one process of a call to the next: its ids in the headers of a request, and bound again on the far side."""

from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, TypeVar

import wrapt
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import semconv
from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession, active
from ..measuring.reentrant import ReentrantContext
from ..tracing.context import BINDING, attach, bound, detach
from ..tracing.headers import CallIds, read_headers
from .call import call
from .turn import turn_elsewhere

__all__ = ["bound_from_headers", "inject_headers", "propagate"]

Headers = TypeVar("Headers", bound=MutableMapping[str, str])
Client = TypeVar("Client")

_W3C: Final = TraceContextTextMapPropagator()
_OURS: Final = (semconv.HEADER_CALL_SID, semconv.HEADER_STREAM_SID, semconv.HEADER_TURN)


def inject_headers(url: str, headers: Headers) -> Headers:
    """Put the bound call's ids and ``traceparent`` into the headers of a request, where `url` may have them.

    Those are the hosts of LATENCY_PROPAGATE_TO; for every other, ids that stand in `headers` are taken out, as a
    redirect may have brought them there. An id that may not stand in a header stays away.

    Args:
        url: where the request goes.
        headers: of the request; changed in place.

    Returns:
        `headers`.

    """
    session = active.session
    if session is not None:
        call_safely(_inject, session, str(url), headers)
    return headers


def _inject(session: ActiveSession, url: str, headers: MutableMapping[str, str]) -> None:
    brought = [name for name in list(headers) if _lower(name) in _OURS]
    allowed = session.propagates_to(url)
    if brought and not allowed:
        brought += [name for name in list(headers) if _lower(name) in _W3C.fields]
    for name in brought:
        del headers[name]
    if allowed:
        headers.update(_ids().to_headers())
        written: dict[str, str] = {}
        _W3C.inject(written)
        for name in [name for name in list(headers) if written and _lower(name) in _W3C.fields]:
            del headers[name]
        headers.update(written)


def _lower(name: object) -> str:
    return name.lower() if isinstance(name, str) else ""


def _ids() -> CallIds:
    binding = bound()
    if binding is None:
        return CallIds()
    turn = binding.turn.number if binding.turn is not None else None
    return CallIds(binding.call_sid, binding.stream_sid, turn)


def propagate(client: Client) -> Client:
    """Let every request of this client go out with `inject_headers`: of httpx, sync or async, or a requests session.

    Each hop of a redirect is looked at by itself. Adapters that a session mounts later are not known to it.

    Returns:
        The client.

    Raises:
        TypeError: it is neither.

    """
    hooks, adapters = getattr(client, "event_hooks", None), getattr(client, "adapters", None)
    if isinstance(hooks, Mapping):
        hook = _on_request_async if hasattr(client, "aclose") else _on_request
        mine: list[Any] = hooks.setdefault("request", [])  # type: ignore[attr-defined]
        if hook not in mine:
            mine.append(hook)
    elif isinstance(adapters, MutableMapping):
        for prefix, adapter in list(adapters.items()):
            if not isinstance(adapter, _Adapter):
                adapters[prefix] = _Adapter(adapter)
    else:
        raise TypeError(f"propagate: expected a client of httpx or a session of requests, got {type(client).__name__}")
    return client


def _on_request(request: Any) -> None:
    inject_headers(str(request.url), request.headers)


async def _on_request_async(request: Any) -> None:
    inject_headers(str(request.url), request.headers)


class _Adapter(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """An adapter of requests that puts the headers in as the request leaves."""

    def send(self, request: Any, *args: Any, **named: Any) -> Any:
        inject_headers(str(request.url), request.headers)
        return self.__wrapped__.send(request, *args, **named)


class bound_from_headers(ReentrantContext["bound_from_headers", ExitStack]):  # noqa: N801 - used as a verb, like call()
    """Bind the call that a request's headers name, with ``with`` or ``async with``: ids, turn and trace.

    Opens a span named ``call part`` beneath the current span, where an instrumented server has opened one in the
    call's trace; else beneath the one that ``traceparent`` names, else beneath the call's root. A current span of
    another trace is linked. Without a call_sid, ``traceparent`` alone is honoured, where no span is current.

    Whoever may send requests may name a call: take these headers off at the edge of your network. What is malformed
    there is taken as absent.

    Args:
        headers: a mapping in any case of letters, an ASGI scope or its list of headers, or a WSGI environ.

    Raises:
        TypeError: it is none of them.

    """

    def __init__(self, headers: Any) -> None:
        if isinstance(headers, str | bytes) or not hasattr(headers, "__iter__"):
            raise TypeError(f"headers: expected a mapping or a list of pairs, got {type(headers).__name__}")
        ids, self._trace_context = call_safely(read_headers, headers) or (CallIds(), {})
        self.call_sid: str | None = ids.call_sid
        self.stream_sid: str | None = ids.stream_sid
        self.turn: int | None = ids.turn
        self._call: call | None = None
        super().__init__()

    @property
    def trace_id(self) -> str | None:
        """The call's trace id as 32 hex digits, once a call is bound and its span records."""
        return self._call.trace_id if self._call is not None else None

    def _yielded(self, state: ExitStack | None) -> "bound_from_headers":
        return self

    def _close(self, state: ExitStack, exc: BaseException | None) -> None:
        state.__exit__(None if exc is None else type(exc), exc, None)

    def _open(self, session: ActiveSession) -> ExitStack | None:
        factory = session.span_factory()
        if factory is None:
            return None
        with ExitStack() as entered:
            arrived = self._arrived(factory.ids.trace_id_of(self.call_sid) if self.call_sid else None)
            if arrived is not None:
                _attach_for(entered, arrived)
            if self.call_sid is not None:
                self._call = entered.enter_context(call(self.call_sid, stream_sid=self.stream_sid, joins=True))
            binding = bound()
            if self._call is not None and self.turn is not None and binding is not None:
                trace.get_current_span().set_attribute(semconv.TURN, self.turn)
                in_turn = binding.with_turn(turn_elsewhere(self.turn))
                _attach_for(entered, otel_context.set_value(BINDING, in_turn))
            return entered.pop_all()

    def _arrived(self, trace_id: int | None) -> Context | None:
        """The context that ``traceparent`` names, unless the current span is nearer to the call's trace."""
        current = trace.get_current_span().get_span_context()
        sent = trace.get_current_span(_W3C.extract(self._trace_context, Context())).get_span_context()
        if not sent.is_valid or current.trace_id == trace_id or (current.is_valid and sent.trace_id != trace_id):
            return None
        return trace.set_span_in_context(trace.NonRecordingSpan(sent))


def _attach_for(block: ExitStack, context: Context) -> None:
    """Attach `context` until the end of `block`."""
    token = attach(context)

    def leave(_type: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None) -> None:
        detach(token, context, exc)

    block.push(leave)
