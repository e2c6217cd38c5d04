"""What a call returns to be iterated: timed from the call to the last item, beneath the object's own type.

An OpenAI stream, a gRPC stream, the body of an HTTP answer, a generator that a plain function returns. Each step runs
under the operation's context, as with generators; between two steps it is the consumer's time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any, Final, ParamSpec, TypeVar

import wrapt

from ..base.internal_errors import call_safely
from ..model.audio import size_of
from ..tracing.context import detach
from .active_session import ActiveSession
from .generators import Stream
from .measurement import Measurement

__all__ = ["ReturnedStream", "StreamSpec", "is_stream", "wrap_result", "wrap_stream"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Y = TypeVar("Y")

CLOSERS: Final = frozenset({"close", "aclose", "cancel", "shutdown"})
"""Methods by which a consumer ends a stream early."""
ABANDONED: Final = GeneratorExit("the stream was not read to its end")


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What an item says of its stream; where a function is None, items say nothing of it.

    Args:
        is_output: whether an item is output, so that the first such is the first output; else every item is.
        is_last: whether nothing of interest follows, so that who stops reading here broke nothing off.
        size_of: how many bytes an item has, or None where it has none to count; without it, what is bytes is counted.
        failure: what an item tells of a failure.

    """

    is_output: Callable[[Any], bool] | None = None
    is_last: Callable[[Any], bool] | None = None
    size_of: Callable[[Any], int | None] = size_of
    failure: Callable[[Any], BaseException | None] | None = None


DEFAULT_SPEC: Final = StreamSpec()


class ReturnedStream(Stream):
    """The measurement of a stream that a call returned; ended by the last item, a close, an exception, or by nobody.

    Args:
        session: the one that opened the measurement.
        measurement: open, and not attached.
        spec: what the items say.
        failure: what the call's answer told already, such as a status of HTTP that is an error.

    """

    def __init__(
        self, session: ActiveSession, measurement: Measurement, spec: StreamSpec, failure: BaseException | None = None
    ) -> None:
        super().__init__(session, measurement)
        self._spec = spec
        self._failure = failure
        self._is_whole = False
        # The call itself was the provider's time.
        self._last_ns = perf_counter_ns()
        self._busy_ns = self._last_ns - measurement.start_ns

    def _produced(self, started_ns: int, item: Any) -> None:
        now_ns = self._last_ns = perf_counter_ns()
        took_ns = now_ns - started_ns
        self._busy_ns += took_ns
        self._items += 1
        if self._items > 1 and took_ns > self._largest_gap_ns:
            self._largest_gap_ns = took_ns
        if self._measurement is not None:
            call_safely(self._read, self._measurement, item)

    def _read(self, measurement: Measurement, item: Any) -> None:
        spec = self._spec
        if measurement.first_output_ns is None and (spec.is_output is None or spec.is_output(item)):
            measurement.mark_first_output()
        self._grow(spec.size_of(item))
        if spec.failure is not None and self._failure is None:
            self._failure = spec.failure(item)
        if spec.is_last is not None and not self._is_whole:
            self._is_whole = spec.is_last(item)

    def _finish(self, end_ns: int, exc: BaseException | None) -> None:
        super()._finish(end_ns, self._failure if exc is None else exc)

    def closed(self) -> None:
        """End it where the consumer stops, for whatever reason of its own; before the last item, it is cancelled."""
        if self._is_whole or self._failure is not None:
            self._finish(self._last_ns, None)
        else:
            self._finish(perf_counter_ns(), ABANDONED)

    def __del__(self) -> None:
        if self._measurement is not None:
            call_safely(self.closed)


def is_stream(value: Any) -> bool:
    """Whether a value is iterated as it comes: an iterator, or anything that is iterated asynchronously."""
    kind = type(value)
    return hasattr(kind, "__next__") or hasattr(kind, "__aiter__")


def wrap_stream(stream: ReturnedStream, value: T) -> T:
    """`value` as it was, except that its items are noted by `stream`."""
    kind: type[_Proxy] = _AsyncProxy if hasattr(type(value), "__aiter__") else _SyncProxy
    proxy: Any = kind(value, stream)
    result: T = proxy
    return result


class _Proxy(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """Everything that the wrapped object is; what a subclass adds is the noting."""

    def __init__(self, wrapped: Any, stream: ReturnedStream) -> None:
        super().__init__(wrapped)
        self._self_stream = stream

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if not callable(value):
            return value
        if name in CLOSERS:
            return _closing(value, self._self_stream)
        return partial(self._self_stream.advance, value) if name == "send" else value

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)


def _closing(close: Callable[P, R], stream: ReturnedStream) -> Callable[P, R]:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        call_safely(stream.closed)
        return close(*args, **kwargs)

    return wrapper


class _SyncProxy(_Proxy):
    def __iter__(self) -> Any:
        iterator = iter(self.__wrapped__)
        return self if iterator is self.__wrapped__ else _SyncProxy(iterator, self._self_stream)

    def __next__(self) -> Any:
        return self._self_stream.advance(next, self.__wrapped__)

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    def __exit__(self, *exc: Any) -> Any:
        call_safely(self._self_stream.closed)
        return self.__wrapped__.__exit__(*exc)


class _AsyncProxy(_Proxy):
    def __aiter__(self) -> Any:
        iterator = self.__wrapped__.__aiter__()
        return self if iterator is self.__wrapped__ else _AsyncProxy(iterator, self._self_stream)

    def __anext__(self) -> Any:
        return self._self_stream.aadvance(self.__wrapped__.__anext__())

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered

    async def __aexit__(self, *exc: Any) -> Any:
        call_safely(self._self_stream.closed)
        return await self.__wrapped__.__aexit__(*exc)


def wrap_result(session: ActiveSession, measurement: Measurement, value: T) -> T:
    """What a measured call returns: a stream goes on being measured, anything else is the end."""
    if not is_stream(value):
        if measurement.operation.audio_bytes_per_s is not None:
            call_safely(lambda: measurement.set_audio(size_bytes=size_of(value)))
        session.close(measurement, None)
        return value
    detach(measurement.token, measurement.context)
    return wrap_stream(ReturnedStream(session, measurement, DEFAULT_SPEC), value)
