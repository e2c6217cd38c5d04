"""The way of a client's method through a measurement."""

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, create_key, get_value, set_value

from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession, active
from ..measuring.measurement import Measurement, Operation, checked_name
from ..measuring.returned_streams import DEFAULT_SPEC, ReturnedStream, wrap_stream
from ..model.operation import OperationType
from ..tracing.context import attach, detach

__all__ = [
    "CallPlan",
    "Planner",
    "ReportedError",
    "Run",
    "async_wrapper_of",
    "is_suppressed",
    "measured",
    "measured_async",
    "operation",
    "reason",
    "wrapper_of",
]


R = TypeVar("R")


class ReportedError(Exception):
    """A failure that no exception told the caller: a status of HTTP, an event of a stream."""


_CODE: Final = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}")


def reason(exc: BaseException) -> str:
    """The exception's type and the codes it carries: never its text, which quotes prompts, queries and answers."""
    if isinstance(exc, ReportedError):
        return str(exc)
    names = ("status_code", "grpc_status_code", "status", "code")
    codes = [code for name in names for code in _texts(getattr(exc, name, None))]
    content = getattr(exc, "content", None)
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        codes += _texts(content[0].get("errorCode"))
    name = type(exc).__name__
    return f"{name} ({', '.join(dict.fromkeys(codes))})" if codes else name


def _texts(code: Any) -> list[str]:
    name = getattr(code, "name", None)
    if isinstance(name, str):
        code = name
    if isinstance(code, bool) or not isinstance(code, (int, str)):
        return []
    return [str(code)] if _CODE.fullmatch(str(code)) else []


@lru_cache(maxsize=1024)
def operation(kind: OperationType, name: str, provider: str | None, *, is_awaited: bool = False) -> Operation:
    """The operation of a client's method.

    Raises:
        TypeError, ValueError: `name` is no text, or empty.

    """
    return Operation(kind, checked_name(name), provider, error_text=reason, is_awaited=is_awaited)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How one call is measured.

    Args:
        operation: what it is.
        metadata: facts of the request, never its content.
        on_result: is given the session, the open measurement and the result; returns what the caller gets after it
            made a stream of it, or None where the call is over. It may add facts to the measurement.
        failure: what the result of a call that is over tells of a failure.

    """

    operation: Operation
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_result: Callable[[ActiveSession, Measurement, Any], Any] | None = None
    failure: Callable[[Any], BaseException | None] | None = None


Planner = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], CallPlan | None]
"""Is given the instance, the arguments and the keywords; None where the call is none of ours."""

_INSIDE: Final = create_key("callbot_latency-inside-a-client")


@dataclass(eq=False)
class Run(AbstractContextManager["Run"]):
    """One call of a client's method, from its start until it returns; made with `args` and `kwargs`."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def trace(self, awaitable: Awaitable[R]) -> Awaitable[R]:
        """To be awaited in its place, so that it is known when it waits for the event loop."""
        return awaitable

    @abstractmethod
    def finish(self, result: Any) -> Any:
        """End the call that returned `result`; what its caller gets."""


@dataclass(eq=False)
class _PlannedRun(Run):
    """A call that is measured as a plan says; what it calls itself through another wrapped method is part of it."""

    _session: ActiveSession
    _plan: CallPlan
    _measurement: Measurement

    def __exit__(self, exc_type: Any, exc: BaseException | None, traceback: Any) -> None:
        if exc is not None:
            call_safely(self._session.close, self._measurement, exc)

    def trace(self, awaitable: Awaitable[R]) -> Awaitable[R]:
        await_times = self._measurement.await_times
        return awaitable if await_times is None else await_times.trace(awaitable)

    def finish(self, result: Any) -> Any:
        plan, session, measurement = self._plan, self._session, self._measurement
        stream = None if plan.on_result is None else call_safely(plan.on_result, session, measurement, result)
        if stream is None:
            failure = None if plan.failure is None else call_safely(plan.failure, result)
            call_safely(session.close, measurement, failure)
            return result
        detach(measurement.token, measurement.context)
        return stream


Begin = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Run | None]


def is_suppressed() -> bool:
    """Whether OpenTelemetry's instrumentations are off here, as on the thread of a reporter, and therefore ours too.

    What a reporter sends would otherwise be measured, and reported in turn, for ever.
    """
    return bool(get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def _begin(planner: Planner, instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run | None:
    session = active.session
    if session is None or get_value(_INSIDE) or is_suppressed():
        return None
    plan = planner(instance, args, kwargs)
    if plan is None:
        return None
    measurement: Measurement | None = session.start(plan.operation, None, None, None, plan.metadata)
    if measurement is None:
        return None
    measurement.context = set_value(_INSIDE, True, measurement.context)
    measurement.token = attach(measurement.context)
    return _PlannedRun(args, kwargs, session, plan, measurement)


def measured(planner: Planner) -> Callable[..., Any]:
    """The wrapper, as wrapt calls it, of a method that returns its result."""
    return wrapper_of(partial(_begin, planner))


def measured_async(planner: Planner) -> Callable[..., Any]:
    """The same of a method that returns an awaitable: measured while that is awaited."""
    return async_wrapper_of(partial(_begin, planner))


def wrapper_of(begin: Begin) -> Callable[..., Any]:
    """The wrapper of a method that returns its result; `begin` makes the run of a call, or None to leave it alone."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = None if active.session is None else call_safely(begin, instance, args, kwargs)
        if run is None:
            return wrapped(*args, **kwargs)
        with run:
            result = wrapped(*run.args, **run.kwargs)
        return run.finish(result)

    return wrapper


def async_wrapper_of(begin: Begin) -> Callable[..., Any]:
    """The same of a method that returns an awaitable."""

    async def awaited(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = call_safely(begin, instance, args, kwargs)
        if run is None:
            return await wrapped(*args, **kwargs)
        with run:
            result = await run.trace(wrapped(*run.args, **run.kwargs))
        return run.finish(result)

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return wrapped(*args, **kwargs) if active.session is None else awaited(wrapped, instance, args, kwargs)

    return wrapper


def body_measured(
    session: ActiveSession, measurement: Measurement, response: Any, failure: BaseException | None = None
) -> bool:
    """Whether the body of this answer of httpx (or of httpx2) is still to be read, and is measured from now on.

    However the caller reads it, its bytes come through `response.stream`.
    """
    if response.is_closed or response.is_stream_consumed:
        return False
    response.stream = wrap_stream(ReturnedStream(session, measurement, DEFAULT_SPEC, failure), response.stream)
    return True
