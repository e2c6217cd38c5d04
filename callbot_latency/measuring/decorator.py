"""`@measure_latency`: measures every run of a function."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, overload

from ..base.internal_errors import call_safely
from ..model.audio import size_of
from ..model.operation import OperationType
from .active_session import ActiveSession, active
from .generators import measured_async_generator, measured_generator
from .measurement import Measurement, Operation, operation_of

if TYPE_CHECKING:
    from ..model.alert import Alert

__all__ = ["measure_latency"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

OnResult = Callable[[ActiveSession, Measurement, Any], Any]
"""Ends the measurement of a call that returned, now or later; returns what the caller gets."""

_MISUSE: Final = (
    "@measure_latency needs the operation's type: write @measure_latency(OperationType.STT) "
    'or @measure_latency("speech_to_text")'
)


class _Decorator(Protocol):
    """Keeps the type of what it wraps."""

    @overload
    def __call__(self, function: "classmethod[T, P, R]", /) -> "classmethod[T, P, R]": ...
    @overload
    def __call__(self, function: "staticmethod[P, R]", /) -> "staticmethod[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


def measure_latency(
    operation_type: OperationType | str,
    operation_name: str | None = None,
    *,
    provider: str | None = None,
    call_sid_attr: str | None = None,
    stream_sid_attr: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_deadline: "Callable[[Alert], Any] | None" = None,
    streams: bool = False,
    audio_bytes_per_s: float | None = None,
) -> _Decorator:
    """Measure every run of a function, coroutine function, generator, async generator or method.

    A generator is timed while it is iterated: from its first step to its end, with the time to its first output, its
    largest gap and its number of items. What is wrapped keeps its signature, its kind and its exceptions.

    Args:
        operation_type: an OperationType or its value; sets the thresholds.
        operation_name: the wrapped function's own name unless given; keep it of low cardinality.
        provider: who answers, such as ``google`` or ``openai``.
        call_sid_attr: attribute (or dotted path) of the first argument, ``self``, to read the call_sid from; where it
            is missing or None, the id bound by `call()` is taken.
        stream_sid_attr: the same for the stream_sid.
        metadata: facts for every run, such as ``{"model": "latest_long"}``.
        on_deadline: called once with an `Alert` when the critical threshold passes while the operation still runs, so
            that the bot can act: play a filler, switch the provider. A function or coroutine function; it runs on the
            event loop that awaits the operation, and for what no loop awaits on a thread of ours. What it raises is
            logged and changes nothing.
        streams: whether what the function or coroutine function returns is iterated by its caller, such as an OpenAI
            stream: the operation then lasts until that ends, is closed or is let go, and is timed like a generator.
            What is returned keeps its type and methods. Anything that is no iterator is measured as without.
        audio_bytes_per_s: how many bytes one second of the audio has that comes, such as 8000 for Twilio's mu-law,
            48000 for 24 kHz PCM of 16 bits: from the bytes of a generator's items, or of the result, follow `audio_ms`
            and `real_time_factor`.

    Raises:
        TypeError, ValueError: at decoration, for a missing or unknown type or a wrong argument.

    """
    if callable(operation_type) or isinstance(operation_type, (classmethod, staticmethod)):
        raise TypeError(_MISUSE)
    make = functools.partial(
        operation_of,
        operation_type,
        provider=provider,
        call_sid_attr=call_sid_attr,
        stream_sid_attr=stream_sid_attr,
        metadata=metadata,
        on_deadline=on_deadline,
        audio_bytes_per_s=audio_bytes_per_s,
    )
    make(operation_name or "checked")

    def decorate(function: Any) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(decorate(function.__func__))
        if not callable(function) or inspect.isclass(function):
            raise TypeError(f"@measure_latency: expected a function or method, got {function!r}")
        name = operation_name or _name_of(function)
        return _wrap(function, functools.partial(make, name, owner=_owner_of(function)), streams)

    return decorate


def _owner_of(function: Any) -> Any:
    """What a method that is bound already is bound to."""
    while isinstance(function, functools.partial):
        if function.args:
            return function.args[0]
        function = function.func
    return function.__self__ if inspect.ismethod(function) else None


def _is_awaitable_generator(function: Any) -> bool:
    """What `types.coroutine` made: written as a generator, and awaited."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def _wrap(function: Callable[..., Any], make: Callable[..., Operation], streams: bool) -> Callable[..., Any]:
    kind = (
        function if inspect.isroutine(function) or isinstance(function, functools.partial) else type(function).__call__
    )
    if inspect.isasyncgenfunction(kind):
        wrapper: Callable[..., Any] = measured_async_generator(function, make(is_awaited=True))
    elif inspect.iscoroutinefunction(kind) or _is_awaitable_generator(kind):
        operation = make(is_awaited=True)
        wrapper = _wrap_coroutine(function, operation, _on_result(operation, streams))
    elif inspect.isgeneratorfunction(kind):
        wrapper = measured_generator(function, make())
    else:
        operation = make()
        wrapper = _wrap_function(function, operation, _on_result(operation, streams))
    return functools.wraps(function)(wrapper)


def _on_result(operation: Operation, streams: bool) -> OnResult | None:
    """What is done with a result, besides ending the measurement; None where nothing is."""
    if streams:
        from .returned_streams import wrap_result  # here, since it loads wrapt

        return wrap_result
    return None if operation.audio_bytes_per_s is None else _record_size


def _record_size(session: ActiveSession, measurement: Measurement, result: T) -> T:
    """Record how many bytes of audio were returned, and end the measurement."""
    call_safely(lambda: measurement.set_audio(size_bytes=size_of(result)))
    session.close(measurement, None)
    return result


def _wrap_function(function: Callable[P, R], operation: Operation, on_result: OnResult | None) -> Callable[P, R]:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        session = active.session
        if session is None:
            return function(*args, **kwargs)
        measurement = call_safely(session.open, operation, args[0] if args else None)
        if measurement is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            call_safely(session.close, measurement, exc)
            raise
        if on_result is None:
            call_safely(session.close, measurement, None)
            return result
        returned: R | None = call_safely(on_result, session, measurement, result)
        return result if returned is None else returned

    return wrapper


def _wrap_coroutine(
    function: Callable[P, Coroutine[S, T, R]], operation: Operation, on_result: OnResult | None
) -> Callable[P, Coroutine[S, T, R]]:
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        session = active.session
        if session is None:
            return await function(*args, **kwargs)
        measurement = call_safely(session.open, operation, args[0] if args else None)
        if measurement is None:
            return await function(*args, **kwargs)
        try:
            if measurement.await_times is None:
                result = await function(*args, **kwargs)
            else:
                result = await measurement.await_times.trace(function(*args, **kwargs))
        except BaseException as exc:
            call_safely(session.close, measurement, exc)
            raise
        if on_result is None:
            call_safely(session.close, measurement, None)
            return result
        returned: R | None = call_safely(on_result, session, measurement, result)
        return result if returned is None else returned

    return wrapper
