"""`@measure_latency` and `measure_latency_context`: what the code that is measured calls."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, overload

from opentelemetry.context import get_current

from ..base.internal_errors import call_safely
from ..model.audio import checked_rate
from ..model.metric import OperationType
from .active_session import ActiveSession, active
from .generators import measured_async_generator, measured_generator
from .measurement import (
    Handle,
    Measurement,
    Operation,
    cached_operation_of,
    checked_metadata,
    checked_text,
    operation_of,
)

if TYPE_CHECKING:
    from ..model.alert import Alert

__all__ = ["measure_latency", "measure_latency_context"]


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

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
        wrapper = (_returned().measured_coroutine_of_stream if streams else _measured_coroutine)(
            _with_result_size(function, operation), operation
        )
    elif inspect.isgeneratorfunction(kind):
        wrapper = measured_generator(function, make())
    else:
        operation = make()
        wrapper = (_returned().measured_function_of_stream if streams else _wrap_function)(
            _with_result_size(function, operation), operation
        )
    return functools.wraps(function)(wrapper)


def _with_result_size(function: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """The function, which tells how large its result is where that says how long the audio lasts."""
    if operation.audio_bytes_per_s is None:
        return function
    from .results import record_awaited_result_size, record_result_size

    return (record_awaited_result_size if operation.is_awaited else record_result_size)(function, operation)


def _returned() -> Any:
    """The room of returned streams, which loads wrapt."""
    from . import returned_streams as returned

    return returned


def _wrap_function(function: Callable[P, R], operation: Operation) -> Callable[P, R]:
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
        call_safely(session.close, measurement, None)
        return result

    return wrapper


def _measured_coroutine(
    function: Callable[P, Coroutine[S, T, R]], operation: Operation
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
        call_safely(session.close, measurement, None)
        return result

    return wrapper


class measure_latency_context:  # noqa: N801 - used as a verb, like contextlib.suppress
    """Measure a block, with ``with`` or ``async with``; yields a handle.

    ``handle.set_provider(name)`` names who answered, ``handle.set_metadata(key=value)`` adds facts, and
    ``handle.mark_first_output()`` marks the first output, ``handle.set_audio(duration_ms=...)`` says how long the audio
    lasts that was heard or spoken.

    Args:
        operation_type: an OperationType or its value; sets the thresholds.
        operation_name: keep it of low cardinality.
        provider: who answers.
        call_sid: the call; where None, the one bound by `call()`.
        stream_sid: the media stream; where None, the one bound by `call()`.
        metadata: facts for this run.
        audio_bytes_per_s: how many bytes one second of the audio has, such as 8000 for Twilio's mu-law, so that
            ``handle.set_audio(size_bytes=...)`` tells how long it lasts.

    Raises:
        TypeError, ValueError: for an unknown type or a wrong argument.

    """

    __slots__ = ("_call_sid", "_measurement", "_metadata", "_operation", "_session", "_stream_sid")

    _session: ActiveSession

    def __init__(
        self,
        operation_type: OperationType | str,
        operation_name: str,
        *,
        provider: str | None = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        audio_bytes_per_s: float | None = None,
    ) -> None:
        rate = audio_bytes_per_s if audio_bytes_per_s is None else checked_rate(audio_bytes_per_s)
        try:
            self._operation = cached_operation_of(operation_type, operation_name, provider, rate)
        except TypeError:  # what cannot be looked up is no string either: this says which
            self._operation = operation_of(operation_type, operation_name, provider=provider)
        self._call_sid = call_sid if call_sid is None else checked_text("call_sid", call_sid)
        self._stream_sid = stream_sid if stream_sid is None else checked_text("stream_sid", stream_sid)
        self._metadata = metadata if metadata is None else checked_metadata(metadata)
        self._measurement: Measurement | None = None

    def __enter__(self) -> Handle:
        session = active.session
        if session is None:
            return _NOOP_HANDLE
        measurement: Measurement | None = call_safely(
            session.open, self._operation, None, self._call_sid, self._stream_sid, self._metadata or _NO_METADATA
        )
        if measurement is None:
            return _NOOP_HANDLE
        if self._measurement is not None:
            measurement.outer = self._measurement
        self._session, self._measurement = session, measurement
        return measurement

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        measurement = self._measurement
        if measurement is None:
            return
        if measurement.outer is None:
            self._measurement = None
        else:
            measurement = self._own(measurement)
        call_safely(self._session.close, measurement, exc)

    def _own(self, measurement: Measurement) -> Measurement:
        """The one that this task entered last; others entered the same object too."""
        chain = [measurement]
        while chain[-1].outer is not None:
            chain.append(chain[-1].outer)
        here = get_current()
        own = next((each for each in chain if each.context is here), measurement)
        chain.remove(own)
        for each, outer in zip(chain, [*chain[1:], None], strict=True):
            each.outer = outer
        self._measurement = chain[0]
        return own

    async def __aenter__(self) -> Handle:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


_NOOP_HANDLE: Final = Handle()
_NO_METADATA: Final[Mapping[str, Any]] = {}
