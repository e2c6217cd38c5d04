"""Iterated work: timed while it is iterated, with its context attached inside each step alone.

Between two steps the consumer runs, in any task or thread, under its own context; so a stream that is broken off
leaves nothing behind (https://github.com/open-telemetry/opentelemetry-python/issues/2606).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from time import perf_counter_ns
from typing import Any, ParamSpec, TypeVar

from .guard import contained
from .measurement import Measurement, Operation, Session
from .spans import attach, detach, detach_abandoned
from .switch import switch

__all__ = ["measured_async_generator", "measured_generator"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Y = TypeVar("Y")


class _Stream:
    """The measurement of one stream: opened at its first step, ended exactly once."""

    __slots__ = ("_busy_ns", "_items", "_largest_gap_ns", "_measurement", "_session")

    def __init__(self, session: Session, measurement: Measurement) -> None:
        self._session = session
        self._measurement: Measurement | None = measurement
        self._busy_ns = 0
        self._items = 0
        self._largest_gap_ns: int | None = None

    def step(self, advance: Callable[..., Y], *args: Any) -> Y:
        """Run one step of a generator under the stream's context."""
        measurement = self._measurement
        if measurement is None:
            return advance(*args)
        token = attach(measurement.context)
        started_ns = perf_counter_ns()
        try:
            item = advance(*args)
        except StopIteration:
            detach(token)
            self._ended(started_ns, None)
            raise
        except BaseException as exc:
            detach(token)
            self._ended(started_ns, exc)
            raise
        detach(token)
        self._produced(measurement, started_ns)
        return item

    async def astep(self, advance: Awaitable[Y]) -> Y:
        """Run one step of an async generator under the stream's context."""
        measurement = self._measurement
        if measurement is None:
            return await advance
        token = attach(measurement.context)
        started_ns = perf_counter_ns()
        try:
            item = await advance
        except StopAsyncIteration:
            detach(token)
            self._ended(started_ns, None)
            raise
        except BaseException as exc:
            # Only a step that was itself abandoned is finalised under a foreign context.
            if isinstance(exc, GeneratorExit):
                detach_abandoned(token, measurement.context)
            else:
                detach(token)
            self._ended(started_ns, exc)
            raise
        detach(token)
        self._produced(measurement, started_ns)
        return item

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Broken off by its consumer: cancelled, unless the generator itself fails while it closes."""
        measurement = self._measurement
        if measurement is None:
            yield
            return
        token = attach(measurement.context)
        outcome: BaseException = GeneratorExit()
        try:
            yield
        except BaseException as exc:
            outcome = exc
            raise
        finally:
            detach_abandoned(token, measurement.context)
            self.end(outcome)

    def _produced(self, measurement: Measurement, started_ns: int) -> None:
        took_ns = perf_counter_ns() - started_ns
        self._busy_ns += took_ns
        self._items += 1
        if self._items == 1:
            measurement.mark_first_output()
        elif took_ns > (self._largest_gap_ns or 0):
            self._largest_gap_ns = took_ns

    def _ended(self, started_ns: int, exc: BaseException | None) -> None:
        self._busy_ns += perf_counter_ns() - started_ns
        self.end(exc)

    def end(self, exc: BaseException | None) -> None:
        """End the measurement, the first time."""
        measurement, self._measurement = self._measurement, None
        if measurement is None:
            return
        measurement.elapsed_ns = perf_counter_ns() - measurement.start_ns
        measurement.items = self._items
        measurement.busy_ns = self._busy_ns
        measurement.largest_gap_ns = self._largest_gap_ns
        contained(self._session.end, measurement, exc)


def _stream(operation: Operation, args: tuple[Any, ...]) -> _Stream | None:
    session = switch.session
    if session is None:
        return None
    measurement = contained(session.start, operation, args[0] if args else None)
    return None if measurement is None else _Stream(session, measurement)


class _Steps(Generator[Y, S, R]):
    """A generator whose every step goes through the stream."""

    __slots__ = ("_generator", "_stream")

    def __init__(self, generator: Generator[Y, S, R], stream: _Stream) -> None:
        self._generator = generator
        self._stream = stream

    def send(self, value: S) -> Y:
        return self._stream.step(self._generator.send, value)

    def throw(self, *exc: Any) -> Y:
        return self._stream.step(self._generator.throw, *exc)

    def close(self) -> None:
        with self._stream.closing():
            self._generator.close()


def measured_generator(
    function: Callable[P, Generator[Y, S, R]], operation: Operation
) -> Callable[P, Generator[Y, S, R]]:
    """Wrap a generator function."""

    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Generator[Y, S, R]:
        generator = function(*args, **kwargs)
        stream = _stream(operation, args)
        return (yield from generator if stream is None else _Steps(generator, stream))

    return wrapper


async def _bare(advance: Awaitable[Y]) -> Y:
    return await advance


def measured_async_generator(
    function: Callable[P, AsyncGenerator[Y, S]], operation: Operation
) -> Callable[P, AsyncGenerator[Y, S]]:
    """Wrap an async generator function: asend, athrow and aclose reach the wrapped one."""

    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Y, S]:
        generator = function(*args, **kwargs)
        stream = _stream(operation, args)
        step = _bare if stream is None else stream.astep
        advance = generator.__anext__()
        try:
            while True:
                item = await step(advance)
                try:
                    sent = yield item
                except GeneratorExit:
                    with nullcontext() if stream is None else stream.closing():
                        await generator.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - all that is thrown in is the wrapped one's
                    advance = generator.athrow(exc)
                else:
                    advance = generator.asend(sent)
        except StopAsyncIteration:
            return

    return wrapper
