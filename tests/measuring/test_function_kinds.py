"""Every kind of thing that is measured: its duration is exact, and what it raises comes out as the very same object."""

import asyncio
import contextlib
import functools
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from callbot_latency import (
    LatencyConfig,
    attempt,
    bind,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    turn,
)
from callbot_latency.measuring.active_session import active
from tests.conftest import FinishedSpans
from tests.support.clock import Clock

Body = Callable[[], None]
Kind = Callable[[Body], None]

STT = "speech_to_text"


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits, without an event loop, which takes some exceptions for its own."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


# -- the kinds: each runs the body once, inside of what is measured ---------------------------------------------------


def a_function(body: Body) -> None:
    @measure_latency(STT)
    def measured() -> None:
        body()

    measured()


def a_coroutine(body: Body) -> None:
    @measure_latency(STT)
    async def measured() -> None:
        body()

    drive(measured())


def a_method(body: Body) -> None:
    class Service:
        @measure_latency(STT)
        def measured(self) -> None:
            body()

    Service().measured()


def a_classmethod(body: Body) -> None:
    class Service:
        @classmethod
        @measure_latency(STT)
        def measured(cls) -> None:
            body()

    Service.measured()


def a_partial(body: Body) -> None:
    def given(it: Body) -> None:
        it()

    measure_latency(STT, "partial")(functools.partial(given, body))()


def a_callable_object(body: Body) -> None:
    class Service:
        def __call__(self) -> None:
            body()

    measure_latency(STT, "object")(Service())()


def a_generator(body: Body) -> None:
    @measure_latency(STT)
    def measured() -> Iterator[int]:
        yield 1
        body()
        yield 2

    assert list(measured()) == [1, 2]


def an_async_generator(body: Body) -> None:
    @measure_latency(STT)
    async def measured() -> AsyncIterator[int]:
        yield 1
        body()
        yield 2

    async def main() -> None:
        assert [item async for item in measured()] == [1, 2]

    drive(main())


def a_contextmanager(body: Body) -> None:
    @contextlib.contextmanager
    @measure_latency(STT)
    def measured() -> Iterator[None]:
        yield

    with measured():
        body()


def an_asynccontextmanager(body: Body) -> None:
    @contextlib.asynccontextmanager
    @measure_latency(STT)
    async def measured() -> AsyncIterator[None]:
        yield

    async def main() -> None:
        async with measured():
            body()

    drive(main())


class Engine:
    """A stream as libraries have them."""

    def __init__(self, body: Body) -> None:
        self.left = [body]

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left.pop()()
        return 1


def a_returned_stream(body: Body) -> None:
    @measure_latency(STT, streams=True)
    def measured() -> Engine:
        return Engine(body)

    assert list(measured()) == [1]


def a_block(body: Body) -> None:
    with measure_latency_context(STT, "block"):
        body()


def an_async_block(body: Body) -> None:
    async def main() -> None:
        async with measure_latency_context(STT, "block"):
            body()

    drive(main())


def an_attempt(body: Body) -> None:
    with measure_latency_context(STT, "block"), attempt("google"):
        body()


def a_call(body: Body) -> None:
    with call("CA1"):
        body()


def a_turn(body: Body) -> None:
    with call("CA1"), turn():
        body()


def a_bound_function(body: Body) -> None:
    with call("CA1"):
        bind(body)()


OPERATIONS: list[Kind] = [
    a_function, a_coroutine, a_method, a_classmethod, a_partial, a_callable_object, a_generator, an_async_generator,
    a_contextmanager, an_asynccontextmanager, a_returned_stream, a_block, an_async_block, an_attempt,
]  # fmt: skip
KINDS = [*OPERATIONS, a_call, a_turn, a_bound_function]


def name_of(kind: Any) -> str:
    return str(kind.__name__)


# -- what they raise --------------------------------------------------------------------------------------------------


class OutOfMemoryError(MemoryError):
    """Raised by a library of its own."""


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


class NoTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the point


class IncomparableError(Exception):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError


RAISED = [
    Exception, RecursionError, OutOfMemoryError, UnspeakableError, NoTextError, IncomparableError,
    KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit,
]  # fmt: skip


@pytest.mark.promise("callers-exception")
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.parametrize("raised", RAISED, ids=name_of)
def test_what_is_raised_is_the_very_same_object(kind: Kind, raised: type[BaseException], spans: FinishedSpans) -> None:
    """With its own cause, context and innermost frame, whatever it does when looked at; and nothing stays open."""
    error = raised()

    def fails() -> None:
        raise error

    with pytest.raises(raised) as caught:
        kind(fails)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fails"
    assert active.session is not None
    assert not active.session.open_measurements
    assert spans()


@pytest.mark.promise("kinds-of-functions")
@pytest.mark.parametrize("kind", OPERATIONS, ids=name_of)
def test_each_kind_is_timed_to_the_nanosecond(
    kind: Kind, measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves in its body alone: that is what is told, also of those that run while they are iterated."""
    clock = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("callbot_latency.") and hasattr(module, "perf_counter_ns"):
            monkeypatch.setattr(module, "perf_counter_ns", clock)

    def works() -> None:
        clock.now_ns += 123_456_789

    kind(works)
    assert {metric.latency_ms for metric in latency_tracker.metrics} == {123.456789}
