"""Iterated work: timed while it is iterated, with its context attached inside each step alone.

Between two steps the consumer runs, in any task or thread, under its own context; so a stream that is broken off
leaves nothing behind (https://github.com/open-telemetry/opentelemetry-python/issues/2606).
"""

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import ContextVar
from time import perf_counter_ns
from typing import Any, ParamSpec, TypeVar

from opentelemetry.context import Context

from ..base.internal_errors import call_safely
from ..model.audio import BYTES_LIKE, size_of
from ..tracing.context import attach, detach
from .active_session import ActiveSession, active
from .measurement import Measurement, Operation

__all__ = ["Stream", "measured_async_generator", "measured_generator"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Y = TypeVar("Y")


class Stream:
    """The measurement of one stream: opened at its first step, ended exactly once."""

    def __init__(self, session: ActiveSession, measurement: Measurement) -> None:
        self._session = session
        self._measurement: Measurement | None = measurement
        self._context = measurement.context
        self._var: ContextVar[Context] | None = None
        """Where OpenTelemetry keeps the current context: known since the first step."""
        self._await_times = measurement.await_times
        self._broken_off: GeneratorExit | None = None
        self._busy_ns = 0
        self._items = 0
        self._largest_gap_ns = 0
        self._no_bytes: type | None = None
        self._size: int | None = None

    def thrown(self, exc: BaseException) -> None:
        """Take note of what the consumer throws in: its GeneratorExit breaks the stream off, however that ends."""
        if isinstance(exc, GeneratorExit):
            self._broken_off = exc

    def advance(self, advance: Callable[[Any], Y], argument: Any) -> Y:
        """Run one step of a generator under the stream's context."""
        var = self._var
        token = attach(self._context) if var is None else var.set(self._context)
        started_ns = perf_counter_ns()
        try:
            item = advance(argument)
        except StopIteration:
            detach(token)
            self._ended(started_ns, None)
            raise
        except BaseException as exc:
            detach(token)
            self._ended(started_ns, exc)
            raise
        finally:
            # What was thrown in would keep itself, and all that the generator holds, alive through this frame.
            del argument
        # What the generator attached and has not detached yet is current in its next step, and there alone. Past
        # OpenTelemetry's attach() and detach(): a step begins and ends in one context, and items are many.
        self._var = var = token.var
        self._context = var.get()
        var.reset(token)
        self._produced(started_ns, item)
        return item

    async def aadvance(self, advance: Awaitable[Y]) -> Y:
        """Run one step of an async generator under the stream's context."""
        attached, var = self._context, self._var
        token = attach(attached) if var is None else var.set(attached)
        started_ns = perf_counter_ns()
        try:
            item = await (advance if self._await_times is None else self._await_times.trace(advance))
        except StopAsyncIteration:
            detach(token)
            self._ended(started_ns, None)
            raise
        except BaseException as exc:
            # A step that was itself abandoned is finalised under a foreign context.
            detach(token, attached, None if exc is self._broken_off else exc)
            self._ended(started_ns, exc)
            raise
        finally:
            del advance
        self._var = var = token.var
        self._context = var.get()
        detach(token)
        self._produced(started_ns, item)
        return item

    def _produced(self, started_ns: int, item: Any) -> None:
        took_ns = perf_counter_ns() - started_ns
        self._busy_ns += took_ns
        if self._items:
            self._items += 1
            if took_ns > self._largest_gap_ns:  # noqa: PLR1730 - a call of max() for each item costs more
                self._largest_gap_ns = took_ns
        else:
            self._items = 1
            if self._measurement is not None:
                self._measurement.mark_first_output()
        # By its type: isinstance() would ask an item that is none for its __class__, which may run code of its own.
        # Items are mostly of one kind, so the last that is no bytes is known without asking.
        kind = type(item)
        if kind is self._no_bytes:
            return
        if kind is bytes:
            self._size = (self._size or 0) + len(item)
        elif issubclass(kind, BYTES_LIKE):
            self._grow(call_safely(size_of, item))
        else:
            self._no_bytes = kind

    def _grow(self, size: int | None) -> None:
        if size is not None:
            self._size = (self._size or 0) + size

    def _ended(self, started_ns: int, exc: BaseException | None) -> None:
        now_ns = perf_counter_ns()
        self._busy_ns += now_ns - started_ns
        self._finish(now_ns, exc)

    def _finish(self, end_ns: int, exc: BaseException | None) -> None:
        measurement, self._measurement = self._measurement, None
        if measurement is None:
            return
        measurement.elapsed_ns = end_ns - measurement.start_ns
        measurement.has_output = True
        measurement.items = self._items
        if self._size is not None:
            measurement.size_bytes = self._size
        measurement.busy_ns = self._busy_ns
        measurement.largest_gap_ns = self._largest_gap_ns or None
        call_safely(self._session.end, measurement, self._broken_off if exc is None else exc)
        self._broken_off = None


def _stream(operation: Operation, args: tuple[Any, ...]) -> Stream | None:
    session = active.session
    if session is None:
        return None
    measurement = call_safely(session.start, operation, args[0] if args else None)
    return None if measurement is None else Stream(session, measurement)


def _unmeasured_step(advance: Callable[[Any], Y], argument: Any) -> Y:
    return advance(argument)


def measured_generator(
    function: Callable[P, Generator[Y, S, R]], operation: Operation
) -> Callable[P, Generator[Y, S, R]]:
    """Wrap a generator function: send, throw and close reach the wrapped one."""

    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Generator[Y, S, R]:
        generator = function(*args, **kwargs)
        stream = _stream(operation, args)
        step = _unmeasured_step if stream is None else stream.advance
        advance: Callable[[Any], Y] = generator.send
        argument: Any = None
        try:
            while True:
                item = step(advance, argument)
                try:
                    argument = yield item
                except BaseException as exc:  # noqa: BLE001 - all that is thrown in is the wrapped one's
                    advance, argument = generator.throw, exc
                    if stream is not None:
                        stream.thrown(exc)
                else:
                    advance = generator.send
        except StopIteration as end:
            returned: R = end.value
            return returned
        finally:
            del advance, argument

    return wrapper


async def _unmeasured_astep(advance: Awaitable[Y]) -> Y:
    return await advance


def _first(generator: AsyncGenerator[Y, S]) -> Awaitable[Y]:
    """The first step, hidden from the event loop's hooks: the loop closes the wrapper, and the wrapper this one."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def measured_async_generator(
    function: Callable[P, AsyncGenerator[Y, S]], operation: Operation
) -> Callable[P, AsyncGenerator[Y, S]]:
    """Wrap an async generator function: asend, athrow and aclose reach the wrapped one."""

    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Y, S]:
        generator = function(*args, **kwargs)
        stream = _stream(operation, args)
        step = _unmeasured_astep if stream is None else stream.aadvance
        advance: Awaitable[Y] = _first(generator)
        try:
            while True:
                item = await step(advance)
                try:
                    sent = yield item
                except BaseException as exc:  # noqa: BLE001 - all that is thrown in is the wrapped one's
                    advance = generator.athrow(exc)
                    if stream is not None:
                        stream.thrown(exc)
                else:
                    advance = generator.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            del advance

    return wrapper
