"""`@measure_latency` and `measure_latency_context`: what is measured runs as if bare; span and metric tell of it."""

import abc
import asyncio
import functools
import inspect
import math
import traceback
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from callbot_latency import (
    LatencyConfig,
    OperationStatus,
    OperationType,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    shutdown,
)
from callbot_latency.measuring import session as session_module
from callbot_latency.measuring.active_session import active
from callbot_latency.tracing import spans as spans_module
from callbot_latency.tracing.context import attach
from tests.conftest import FinishedSpans, Start, ticking

STT = OperationType.STT


def last() -> Any:
    return latency_tracker.metrics[-1]


def names() -> list[str]:
    return [metric.operation_name for metric in latency_tracker.metrics]


def still_open() -> int:
    assert active.session is not None
    return len(active.session.open_measurements)


# -- what can be wrapped --------------------------------------------------------------------------------------------


@measure_latency(STT)
def function(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@measure_latency(STT)
async def coroutine(a: int, *, b: int = 2) -> int:
    """Adds, later."""
    await asyncio.sleep(0)
    return a + b


class Service:
    def __init__(self) -> None:
        self.n = 1

    @measure_latency(STT)
    def method(self, a: int) -> int:
        return self.n + a

    @measure_latency(STT)
    async def amethod(self, a: int) -> int:
        return self.n + a

    @measure_latency(STT)
    @classmethod
    def outside_class(cls, a: int) -> tuple[type, int]:
        return cls, a

    @classmethod
    @measure_latency(STT)
    def inside_class(cls, a: int) -> tuple[type, int]:
        return cls, a

    @measure_latency(STT)
    @staticmethod
    def outside_static(a: int) -> int:
        return a

    @staticmethod
    @measure_latency(STT)
    def inside_static(a: int) -> int:
        return a

    @measure_latency(STT)
    @staticmethod
    async def astatic(a: int) -> int:
        return a

    @property
    @measure_latency(STT)
    def prop(self) -> int:
        return self.n


class Child(Service):
    @measure_latency(STT, "child_method")
    def method(self, a: int) -> int:
        return 10 + super().method(a)


class CallableObject:
    def __init__(self) -> None:
        self.n = 1

    def __call__(self, a: int) -> int:
        return self.n + a


class AsyncCallableObject:
    async def __call__(self, a: int) -> int:
        return a


def test_function_and_coroutine(measuring: LatencyConfig) -> None:
    """Arguments and results pass; each run is one metric."""
    assert function(1) == 3
    assert function(a=1, b=5) == 6
    assert asyncio.run(coroutine(1, b=3)) == 4
    assert names() == ["function", "function", "coroutine"]
    assert {metric.status for metric in latency_tracker.metrics} == {OperationStatus.SUCCESS}


def test_a_coroutine_is_measured_when_it_runs(measuring: LatencyConfig) -> None:
    """To make one measures nothing."""
    waiting = coroutine(1)
    assert still_open() == 0
    assert asyncio.run(waiting) == 3
    assert names() == ["coroutine"]


def test_methods(measuring: LatencyConfig) -> None:
    """On an instance, a subclass with super(), a property."""
    service = Service()
    assert service.method(1) == 2
    assert asyncio.run(service.amethod(1)) == 2
    assert Child().method(1) == 12
    assert service.prop == 1
    assert Service.method(service, 3) == 4
    assert names() == ["method", "amethod", "method", "child_method", "prop", "method"]


def test_classmethods_and_staticmethods_in_both_orders(measuring: LatencyConfig) -> None:
    """The decorator may stand above or below, called on class, subclass or instance."""
    for owner in (Service, Child, Service(), Child()):
        kind = owner if isinstance(owner, type) else type(owner)
        assert owner.outside_class(1) == (kind, 1)
        assert owner.inside_class(1) == (kind, 1)
        assert owner.outside_static(1) == 1
        assert owner.inside_static(1) == 1
    assert asyncio.run(Service().astatic(1)) == 1
    assert isinstance(inspect.getattr_static(Service, "outside_class"), classmethod)
    assert isinstance(inspect.getattr_static(Service, "outside_static"), staticmethod)
    assert len(names()) == 17
    assert set(names()) == {"outside_class", "inside_class", "outside_static", "inside_static", "astatic"}


def test_partials_and_callable_objects(measuring: LatencyConfig) -> None:
    """A partial is named after its function, an object after its class; what is async stays so."""
    assert measure_latency(STT)(functools.partial(int.__add__, 1))(2) == 3
    partial = measure_latency(STT)(functools.partial(functools.partial(coroutine.__wrapped__, 1), b=4))  # type: ignore[attr-defined]
    assert inspect.iscoroutinefunction(partial)
    assert asyncio.run(partial()) == 5
    assert measure_latency(STT)(CallableObject())(4) == 5
    awaited = measure_latency(STT)(AsyncCallableObject())
    assert inspect.iscoroutinefunction(awaited)
    assert asyncio.run(awaited(6)) == 6
    assert names() == ["__add__", "coroutine", "CallableObject", "AsyncCallableObject"]


def test_builtins_bound_methods_and_cached_functions(measuring: LatencyConfig) -> None:
    """Whatever is called can be measured."""
    assert measure_latency(STT)(len)("abc") == 3
    assert measure_latency(STT)(CallableObject().__call__)(1) == 2
    assert measure_latency(STT)(functools.lru_cache(lambda a: a + 1))(1) == 2
    assert asyncio.run(measure_latency(STT)(Service().amethod.__func__)(Service(), 1)) == 2  # type: ignore[attr-defined]
    assert len(names()) == 5


def test_a_recursive_function_is_measured_each_time(spans: FinishedSpans) -> None:
    """Each run has a span of its own, nested as they ran."""

    @measure_latency(STT)
    def down(n: int) -> int:
        return n and down(n - 1)

    assert down(3) == 0
    inner, *outer = spans()
    for span in outer:
        assert inner.parent is not None
        assert inner.parent.span_id == span.context.span_id
        inner = span
    assert inner.parent is None
    assert len(names()) == 4


def test_an_abstract_method_stays_abstract() -> None:
    """The decorator hides nothing that Python looks for."""

    class Base(abc.ABC):
        @measure_latency(STT)
        @abc.abstractmethod
        def run(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


@pytest.mark.parametrize("wrapped", [function, coroutine])
def test_signature_name_and_docstring_are_kept(wrapped: Any) -> None:
    """A tool that looks at the function sees the user's."""
    bare = wrapped.__wrapped__
    assert inspect.signature(wrapped) == inspect.signature(bare)
    assert wrapped.__doc__ == bare.__doc__
    assert wrapped.__doc__
    assert (wrapped.__name__, wrapped.__qualname__, wrapped.__module__) == (
        bare.__name__,
        bare.__qualname__,
        bare.__module__,
    )
    assert wrapped.__annotations__ == bare.__annotations__
    for asks in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert asks(wrapped) == asks(bare)


def test_kinds_are_kept_of_methods_too() -> None:
    """Seen through the class and through the instance."""
    assert inspect.iscoroutinefunction(Service.amethod)
    assert inspect.iscoroutinefunction(Service().amethod)
    assert inspect.iscoroutinefunction(Service.astatic)
    assert not inspect.iscoroutinefunction(Service.method)
    assert list(inspect.signature(Service().method).parameters) == ["a"]


# -- misuse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing", [function, coroutine, Service, classmethod(function), staticmethod(function), CallableObject()]
)
def test_a_bare_decorator_is_one_clear_type_error(thing: Any) -> None:
    """At decoration, saying what to write."""
    with pytest.raises(TypeError, match=r"write @measure_latency\(OperationType.STT\)") as raised:
        measure_latency(thing)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("thing", [Service, 5, None, "function", property(lambda self: 1)])
def test_what_cannot_be_called_cannot_be_decorated(thing: Any) -> None:
    """Nor a class: which of its methods would it be?"""
    with pytest.raises(TypeError, match="expected a function or method"):
        measure_latency(STT)(thing)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"operation_type": "stt"}, ValueError, "operation_type: unknown 'stt'"),
        ({"operation_type": None}, TypeError, "operation_type: expected"),
        ({"operation_type": STT, "operation_name": 5}, TypeError, "operation_name: expected a string, got int"),
        ({"operation_type": STT, "provider": 5}, TypeError, "provider: expected a string, got int"),
        ({"operation_type": STT, "metadata": [1]}, TypeError, "metadata: expected a mapping, got list"),
        ({"operation_type": STT, "call_sid_attr": ""}, ValueError, "call_sid_attr: expected an attribute's name"),
        ({"operation_type": STT, "call_sid_attr": "a b"}, ValueError, "call_sid_attr: expected an attribute's name"),
        ({"operation_type": STT, "call_sid_attr": "a."}, ValueError, "call_sid_attr: expected an attribute's name"),
        ({"operation_type": STT, "call_sid_attr": 5}, ValueError, "call_sid_attr: expected an attribute's name"),
        ({"operation_type": STT, "stream_sid_attr": ".a"}, ValueError, "stream_sid_attr: expected an attribute's"),
    ],
)
def test_a_wrong_argument_is_an_error_at_decoration(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Each names the argument, before anything runs and whether or not measuring is on."""
    with pytest.raises(error, match=says):
        measure_latency(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("stt", "x"), ValueError),
        ((None, "x"), TypeError),
        ((STT, ""), ValueError),
        ((STT, None), ValueError),
        ((STT, 5), TypeError),
    ],
)
def test_a_wrong_argument_of_a_block_is_an_error(arguments: Any, error: type[Exception]) -> None:
    """The same words for the context manager."""
    with pytest.raises(error, match="operation_"):
        measure_latency_context(*arguments)


@pytest.mark.parametrize(
    "more", [{"call_sid": 5}, {"stream_sid": b""}, {"provider": ["a"]}, {"metadata": ["a"]}, {"metadata": 5}]
)
def test_a_wrong_fact_of_a_block_is_named(more: Any) -> None:
    """Where the block is written, and not as a measurement that is missing."""
    with pytest.raises(TypeError, match=f"^{next(iter(more))}: expected a "):
        measure_latency_context(STT, "listen", **more)


@pytest.mark.parametrize(
    ("rate", "error"),
    [(0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), (10**400, ValueError),
     ("8000", TypeError), (True, TypeError), ([8000], TypeError)],
)  # fmt: skip
def test_a_wrong_rate_of_audio_is_an_error(rate: Any, error: type[Exception]) -> None:
    """At decoration, and where a block is written; the message begins with the argument."""
    for form in (measure_latency, measure_latency_context):
        with pytest.raises(error, match="^audio_bytes_per_s: expected a "):
            form(STT, "listen", audio_bytes_per_s=rate)  # type: ignore[operator]


# -- blocks and handles ---------------------------------------------------------------------------------------------


def test_a_block_with_everything(spans: FinishedSpans) -> None:
    """Ids, provider and metadata stand on the metric and on its span."""
    with measure_latency_context(
        "rag_inference", "ask", provider="a", call_sid="CA1", stream_sid="MZ1", metadata={"model": "m", "k": 3}
    ) as handle:
        handle.set_provider("b")
        handle.set_metadata(model="n", hit=True)
        handle.mark_first_output()

    told = last()
    assert (told.operation_type, told.operation_name, told.provider) == (OperationType.RAG, "ask", "b")
    assert (told.call_sid, told.stream_sid) == ("CA1", "MZ1")
    assert told.metadata == {"model": "n", "k": 3, "hit": True}
    assert 0 <= told.time_to_first_output_ms <= told.latency_ms
    (span,) = spans()
    assert span.name == "rag_inference ask"
    assert span.kind is SpanKind.INTERNAL
    assert dict(span.attributes or {}) == {
        "operation_type": "rag_inference",
        "operation_name": "ask",
        "provider": "b",
        "call_sid": "CA1",
        "stream_sid": "MZ1",
        "status": "success",
        "metadata.model": "n",
        "metadata.k": 3,
        "metadata.hit": True,
        "time_to_first_output_ms": told.time_to_first_output_ms,
    }
    assert (told.trace_id, told.span_id) == (
        trace.format_trace_id(span.context.trace_id),
        trace.format_span_id(span.context.span_id),
    )


def test_an_async_block(spans: FinishedSpans) -> None:
    """`async with` is the same block."""

    async def main() -> None:
        async with measure_latency_context(STT, "listen") as handle:
            await asyncio.sleep(0)
            handle.set_provider("google")

    asyncio.run(main())
    assert (last().operation_name, last().provider) == ("listen", "google")
    assert [span.name for span in spans()] == ["speech_to_text listen"]


def test_a_block_that_raises(measuring: LatencyConfig) -> None:
    """The exception goes on, as itself, from `with` and `async with`."""
    error = KeyError("x")
    with pytest.raises(KeyError) as raised, measure_latency_context(STT, "listen"):
        raise error
    assert raised.value is error
    assert last().status is OperationStatus.ERROR

    async def main() -> None:
        async with measure_latency_context(STT, "listen"):
            raise error

    with pytest.raises(KeyError) as raised:
        asyncio.run(main())
    assert raised.value is error
    assert names() == ["listen", "listen"]


def test_a_block_may_run_again(measuring: LatencyConfig) -> None:
    """One object, used one time after another, measures each time."""
    block = measure_latency_context(STT, "listen", metadata={"a": 1})
    for _ in range(3):
        with block:
            pass
    assert names() == ["listen"] * 3


def test_the_first_mark_counts(measuring: LatencyConfig) -> None:
    """Later outputs are not the first."""
    with measure_latency_context(STT, "listen") as handle:
        handle.mark_first_output()
        first_ns = handle.first_output_ns  # type: ignore[attr-defined]
        handle.mark_first_output()
    assert last().time_to_first_output_ms == first_ns / 1e6


def test_a_block_says_how_long_its_audio_lasts(spans: FinishedSpans) -> None:
    """A recording that is transcribed: its length and size, and how much faster than real time it was."""
    with measure_latency_context(STT, "transcribe") as handle:
        handle.set_audio(duration_ms=10, size_bytes=80)
        handle.set_audio(duration_ms=20)
    told = last()
    assert (told.audio_ms, told.bytes, told.busy_ms) == (20, 80, None)
    assert told.real_time_factor == told.latency_ms / 20
    (span,) = spans()
    assert span.attributes is not None
    assert {name: span.attributes[name] for name in ("audio_ms", "bytes", "real_time_factor")} == {
        "audio_ms": 20,
        "bytes": 80,
        "real_time_factor": told.real_time_factor,
    }
    assert "busy_ms" not in span.attributes


def test_a_blocks_rate_tells_the_length_from_the_size(measuring: LatencyConfig) -> None:
    """Unless the length is said."""
    with measure_latency_context(OperationType.TTS, "speak", audio_bytes_per_s=8000) as handle:
        handle.set_audio(size_bytes=4000)
    assert (last().bytes, last().audio_ms) == (4000, 500)
    with measure_latency_context(OperationType.TTS, "speak", audio_bytes_per_s=8000) as handle:
        handle.set_audio(duration_ms=400)
        handle.set_audio(size_bytes=4000)
    assert (last().bytes, last().audio_ms) == (4000, 400)
    with measure_latency_context(OperationType.TTS, "speak") as handle:
        handle.set_audio(size_bytes=4000)
    assert (last().bytes, last().audio_ms, last().real_time_factor) == (4000, None, None)


def test_audio_that_cannot_be_is_passed_over(measuring: LatencyConfig) -> None:
    """Nothing is raised into the call, nothing is lost, and what was right stays."""
    with measure_latency_context(STT, "transcribe") as handle:
        handle.set_audio(duration_ms=20, size_bytes=80)
        for wrong in (-1, math.nan, math.inf, 10**400, "20", True, None, [20]):
            handle.set_audio(duration_ms=wrong, size_bytes=wrong)  # type: ignore[arg-type]
        handle.set_audio(size_bytes=1.5)  # type: ignore[arg-type]
    assert (last().audio_ms, last().bytes) == (20, 80)
    with measure_latency_context(STT, "transcribe", audio_bytes_per_s=5e-324) as handle:
        handle.set_audio(size_bytes=80)
    assert (last().audio_ms, last().bytes, last().real_time_factor) == (None, 80, None)
    with measure_latency_context(STT, "transcribe") as handle:
        handle.set_audio(duration_ms=5e-324)
    assert (last().audio_ms, last().real_time_factor) == (5e-324, None)


def test_numbers_of_numpy_are_numbers(measuring: LatencyConfig) -> None:
    """Audio is often counted in them; what is kept is Python's own."""
    rate, duration, size = np.float32(8000), np.float32(20.5), np.int64(80)
    with measure_latency_context(STT, "transcribe", audio_bytes_per_s=rate) as handle:  # type: ignore[arg-type]
        handle.set_audio(duration_ms=duration, size_bytes=size)  # type: ignore[arg-type]
    assert (last().audio_ms, last().bytes) == (20.5, 80)
    assert [type(last().audio_ms), type(last().bytes)] == [float, int]


def test_a_recording_that_was_not_heard_to_its_end_has_no_real_time_factor(measuring: LatencyConfig) -> None:
    """Cancelled or failed, the time is not that of the whole audio."""
    for fault in (asyncio.CancelledError(), TimeoutError(), KeyError()):
        with pytest.raises(type(fault)), measure_latency_context(STT, "transcribe") as handle:
            handle.set_audio(duration_ms=10_000)
            raise fault
        assert (last().audio_ms, last().real_time_factor) == (10_000, None)


def test_metadata_of_one_run_is_not_that_of_the_next(measuring: LatencyConfig) -> None:
    """Nor does the caller's mapping change."""
    given = {"a": 1}
    for n in range(2):
        with measure_latency_context(STT, "listen", metadata=given) as handle:
            handle.set_metadata(**{f"n{n}": n})
    assert [dict(metric.metadata) for metric in latency_tracker.metrics] == [{"a": 1, "n0": 0}, {"a": 1, "n1": 1}]
    assert given == {"a": 1}


def test_the_decorators_metadata_is_a_copy(spans: FinishedSpans) -> None:
    """What the application changes later does not change what was said."""
    given = {"model": "m"}
    run = measure_latency(STT, metadata=given)(lambda: None)
    given["model"] = "n"
    run()
    assert last().metadata == {"model": "m"}
    assert (spans()[0].attributes or {})["metadata.model"] == "m"


def test_a_handle_used_after_the_end_changes_nothing(spans: FinishedSpans) -> None:
    """Span and metric, which may still wait for the worker, are what they were at the end of the block."""
    with measure_latency_context(STT, "listen", provider="google", metadata={"try": 1}) as run:
        pass
    run.set_provider("openai")
    run.set_metadata(late=True)
    run.mark_first_output()
    run.set_audio(duration_ms=1, size_bytes=1)
    assert (last().provider, last().metadata, last().time_to_first_output_ms) == ("google", {"try": 1}, None)
    assert (last().audio_ms, last().bytes) == (None, None)
    (span,) = spans()
    assert span.attributes is not None
    assert span.attributes["provider"] == "google"
    assert "metadata.late" not in span.attributes


def test_a_handle_takes_whatever_it_is_given(measuring: LatencyConfig) -> None:
    """An unknown provider says nothing, one that has no text neither, and a fact may have any name."""

    class Mute:
        def __str__(self) -> str:
            raise ValueError

    with measure_latency_context(STT, "listen", provider="google") as run:
        run.set_provider(None)
        run.set_provider(Mute())  # type: ignore[arg-type]
        run.set_metadata(self=1, provider=Mute())
    assert last().provider == "google"
    assert last().to_dict()["metadata"] == {"self": 1, "provider": ""}


def test_one_block_object_may_be_entered_inside_of_itself(spans: FinishedSpans) -> None:
    """Each entry is a measurement of its own, and nothing stays open or current."""
    block = measure_latency_context(STT, "listen")
    with block as outer, block as inner:
        outer.set_metadata(is_outer=True)
        inner.set_metadata(is_outer=False)
        assert still_open() == 2
    assert still_open() == 0
    assert [metric.metadata["is_outer"] for metric in latency_tracker.metrics] == [False, True]
    assert [span.parent is None for span in spans()] == [False, True]


def test_one_block_object_may_be_entered_by_two_tasks_at_once(
    measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaves its own: no duration goes to another call."""
    block = measure_latency_context(STT, "listen")
    clock = ticking(monkeypatch)
    both_are_in, long_may_end = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        with call("CA-long"), block:
            clock.passes(10)
            both_are_in.set()
            await long_may_end.wait()
            clock.passes(80)

    async def short() -> None:
        await both_are_in.wait()
        with call("CA-short"), block:
            await asyncio.sleep(0)
            clock.passes(10)
        long_may_end.set()

    async def main() -> None:
        await asyncio.gather(long(), short())

    asyncio.run(main())
    took = {metric.call_sid: metric.latency_ms for metric in latency_tracker.metrics}
    assert took == {"CA-short": 10, "CA-long": 100}
    assert still_open() == 0


def test_what_types_coroutine_made_stays_awaitable(measuring: LatencyConfig) -> None:
    """It is written as a generator, and awaited."""

    @measure_latency(STT)
    @types.coroutine
    def old() -> Iterator[Any]:
        yield from asyncio.sleep(0.001).__await__()
        return 5

    async def new() -> Any:
        return await old()  # type: ignore[misc]

    assert asyncio.run(new()) == 5
    assert last().operation_name == "old"
    assert last().latency_ms >= 1


def test_a_handle_while_off_listens_to_nothing(start: Start) -> None:
    """Each of its methods may be called."""
    start()
    latency_tracker.enabled = False
    with measure_latency_context(STT, "listen") as handle:
        handle.set_provider("a")
        handle.set_metadata(a=1)
        handle.mark_first_output()
    assert not latency_tracker.metrics


# -- spans ----------------------------------------------------------------------------------------------------------


def test_the_decorators_span(spans: FinishedSpans) -> None:
    """Name, attributes and what is absent."""

    @measure_latency(OperationType.TTS, "say", provider="openai", metadata={"voice": "alloy", "speed": 1.5, "x": None})
    def anything() -> None: ...

    anything()
    (span,) = spans()
    assert span.name == "text_to_speech say"
    assert dict(span.attributes or {}) == {
        "operation_type": "text_to_speech",
        "operation_name": "say",
        "provider": "openai",
        "metadata.voice": "alloy",
        "metadata.speed": 1.5,
        "status": "success",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "callbot_latency"


def test_a_breach_stands_on_the_span(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The severity is written before the span ends, and on the metric."""
    start(stt_warning_ms=1e-6, stt_critical_ms=1e9, tts_warning_ms=1e-7, tts_critical_ms=1e-6)
    with measure_latency_context(STT, "a") as slow:
        span = slow.span  # type: ignore[attr-defined]
    assert span.attributes["severity"] == "warning"
    with measure_latency_context(OperationType.TTS, "b") as slower:
        span = slower.span  # type: ignore[attr-defined]
    assert span.attributes["severity"] == "critical"
    assert [metric.severity.value for metric in latency_tracker.metrics if metric.severity] == ["warning", "critical"]


def test_parents_in_one_task(spans: FinishedSpans) -> None:
    """An operation within an operation is its child; a foreign span may be the parent."""
    tracer = trace.get_tracer("application")
    with tracer.start_as_current_span("request") as request, measure_latency_context(STT, "outer"):
        function(1)
    inner, outer = (span for span in spans() if span.name != "request")
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.parent is not None
    assert outer.parent.span_id == request.get_span_context().span_id


def test_parents_across_tasks(spans: FinishedSpans) -> None:
    """Tasks that run at the same time are all children of what started them, never of each other."""

    @measure_latency(STT)
    async def child() -> None:
        await asyncio.sleep(0)
        function(1)
        await asyncio.sleep(0)

    async def main() -> None:
        async with measure_latency_context(STT, "parent"):
            await asyncio.gather(*(child() for _ in range(10)))

    asyncio.run(main())
    by_id = {span.context.span_id: span for span in spans()}
    parents = {(span.name, by_id[span.parent.span_id].name if span.parent else None) for span in by_id.values()}
    assert parents == {
        ("speech_to_text parent", None),
        ("speech_to_text child", "speech_to_text parent"),
        ("speech_to_text function", "speech_to_text child"),
    }
    children = {span.parent.span_id for span in by_id.values() if span.parent and span.name.endswith("function")}
    assert len(children) == 10


def test_parents_across_to_thread(spans: FinishedSpans) -> None:
    """`asyncio.to_thread` carries the context by itself."""

    async def main() -> None:
        async with measure_latency_context(STT, "parent"):
            await asyncio.to_thread(function, 1)

    asyncio.run(main())
    inner, outer = spans()
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_an_executor_thread_that_is_not_bound_has_no_parent(spans: FinishedSpans) -> None:
    """Unbound is absent, never wrong."""
    with ThreadPoolExecutor(1) as pool, measure_latency_context(STT, "parent", call_sid="CA1"):
        pool.submit(function, 1).result()
    inner, _ = spans()
    assert inner.parent is None
    assert "call_sid" not in (inner.attributes or {})


# -- exceptions -----------------------------------------------------------------------------------------------------


def frames_of(exc: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(exc.__traceback__)]


@pytest.mark.promise("callers-exception")
@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_is_the_users_own(is_async: bool, spans: FinishedSpans) -> None:
    """Same object, cause, context and frames below the wrapper; one scrubbed event, status error, error.type."""
    error, cause = ValueError("call +33612345678"), KeyError("cause")

    def fails() -> None:
        raise error from cause

    @measure_latency(STT)
    def run() -> None:
        fails()

    @measure_latency(STT, "run")
    async def arun() -> None:
        fails()

    with pytest.raises(ValueError) as raised:
        asyncio.run(arun()) if is_async else run()
    assert raised.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None
    assert frames_of(error)[-3:] == ["wrapper", "arun" if is_async else "run", "fails"]

    told = last()
    assert (told.status, told.error_message) == (OperationStatus.ERROR, "call [phone]")
    (span,) = spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "call [phone]")
    assert span.attributes is not None
    assert (span.attributes["error.type"], span.attributes["status"]) == ("ValueError", "error")
    (event,) = span.events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "call [phone]"
    assert "612345678" not in span.to_json()


@pytest.mark.promise("callers-exception")
def test_an_exception_while_another_is_handled_keeps_its_context(measuring: LatencyConfig) -> None:
    """`__context__` is what the user's code made it, in what fails and in what follows."""
    first, second = KeyError("first"), ValueError("second")

    @measure_latency(STT)
    def fails() -> None:
        raise second

    with pytest.raises(ValueError) as raised:
        try:
            raise first
        except KeyError:
            fails()
    assert raised.value.__context__ is first
    assert first.__context__ is None


def test_the_same_exception_raised_twice_is_told_twice(measuring: LatencyConfig) -> None:
    """Through two operations: each has its event, the exception stays itself."""
    error = ValueError("x")

    @measure_latency(STT)
    def inner() -> None:
        raise error

    @measure_latency(STT)
    def outer() -> None:
        inner()

    with pytest.raises(ValueError) as raised:
        outer()
    assert raised.value is error
    assert [(metric.operation_name, metric.status.value) for metric in latency_tracker.metrics] == [
        ("inner", "error"),
        ("outer", "error"),
    ]


@pytest.mark.promise("cancellation")
@pytest.mark.parametrize(
    ("exc", "status", "has_event"),
    [
        (TimeoutError(), OperationStatus.TIMEOUT, True),
        (httpx.ReadTimeout("x"), OperationStatus.TIMEOUT, True),
        (asyncio.CancelledError(), OperationStatus.CANCELLED, False),
        (GeneratorExit(), OperationStatus.CANCELLED, False),
        (KeyboardInterrupt(), OperationStatus.ERROR, True),
        (SystemExit(3), OperationStatus.ERROR, True),
        (OSError("x"), OperationStatus.ERROR, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_it_ended(exc: BaseException, status: OperationStatus, has_event: bool, spans: FinishedSpans) -> None:
    """Whatever is raised passes as itself, and decides the status."""

    @measure_latency(STT)
    def run() -> None:
        raise exc

    with pytest.raises(type(exc)) as raised:
        run()
    assert raised.value is exc
    assert last().status is status
    (span,) = spans()
    assert (span.attributes or {})["status"] == status.value
    assert len(span.events) == has_event
    assert span.status.status_code is (StatusCode.ERROR if has_event else StatusCode.UNSET)


@pytest.mark.promise("cancellation")
def test_a_real_timeout_and_a_real_cancellation(measuring: LatencyConfig) -> None:
    """What `asyncio.timeout` does to the inside is a cancellation, and a time-out outside."""

    @measure_latency(STT)
    async def inside() -> None:
        await asyncio.Event().wait()

    @measure_latency(STT)
    async def outside() -> None:
        async with asyncio.timeout(0):
            await inside()

    with pytest.raises(TimeoutError):
        asyncio.run(outside())
    assert [(metric.operation_name, metric.status.value) for metric in latency_tracker.metrics] == [
        ("inside", "cancelled"),
        ("outside", "timeout"),
    ]
    assert still_open() == 0


@pytest.mark.promise("cancellation")
def test_a_cancelled_operation_breaches_nothing(start: Start) -> None:
    """However long it took: its length says nothing."""
    start(stt_warning_ms=1e-6, stt_critical_ms=1e-6)
    with pytest.raises(asyncio.CancelledError), measure_latency_context(STT, "listen"):
        raise asyncio.CancelledError
    assert last().status is OperationStatus.CANCELLED
    assert last().severity is None


class Suspended:
    """Awaited, it gives the control away once."""

    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.promise("cancellation")
def test_a_coroutine_that_is_broken_off_is_cancelled(measuring: LatencyConfig) -> None:
    """Closed in the middle, in whatever context: counted, and nothing stays current."""

    @measure_latency(STT)
    async def await_times() -> None:
        await Suspended()

    running = await_times()
    running.send(None)
    running.close()
    assert last().status is OperationStatus.CANCELLED
    assert still_open() == 0


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("wall-clock")
def test_a_wall_clock_that_jumps_changes_no_duration(spans: FinishedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations are those of the monotonic clock; the span ends at its start plus exactly that."""
    monotonic_ns, wall_ns = [7_000_000_000], [1_735_732_800_000_000_000]

    def jumps() -> int:
        wall_ns[0] -= 3_600_000_000_000
        return wall_ns[0]

    monkeypatch.setattr(session_module, "perf_counter_ns", lambda: monotonic_ns[0])
    monkeypatch.setattr(session_module, "time_ns", jumps)
    for elapsed_ns in (0, 1, 123_456_789, 2_000_000_000):
        with measure_latency_context(STT, "listen"):
            monotonic_ns[0] += elapsed_ns
        span = spans()[-1]
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time - span.start_time == elapsed_ns
        assert last().latency_ms == elapsed_ns / 1e6
        assert last().timestamp.timestamp() == pytest.approx(span.end_time / 1e9, abs=1e-6)
    assert last().severity is not None


@pytest.mark.promise("kinds-of-functions")
def test_the_metric_ends_when_its_span_ends(spans: FinishedSpans) -> None:
    """With the real clocks: latency and span agree to the nanosecond."""
    for _ in range(50):
        function(1)
    for span, metric in zip(spans(), latency_tracker.metrics, strict=True):
        assert span.end_time is not None
        assert span.start_time is not None
        assert (span.end_time - span.start_time) / 1e6 == metric.latency_ms


# -- off ------------------------------------------------------------------------------------------------------------


def test_off_at_run_time_is_bare(spans: FinishedSpans) -> None:
    """No span, no metric, the results and exceptions of the bare code; on again, it measures again."""
    latency_tracker.enabled = False
    assert function(1) == 3
    assert asyncio.run(coroutine(1)) == 3
    assert Service().method(1) == 2
    with pytest.raises(TypeError):
        function("x", "y", "z")  # type: ignore[call-arg,arg-type]
    with measure_latency_context(STT, "listen"), call("CA1") as bound:
        assert bound.trace_id is None
        assert not trace.get_current_span().get_span_context().is_valid
    assert not latency_tracker.metrics
    assert not spans()
    latency_tracker.enabled = True
    assert function(1) == 3
    assert names() == ["function"]
    assert len(spans()) == 1


def test_tracking_disabled_by_its_setting_is_bare(start: Start) -> None:
    """`init()` starts nothing."""
    start(tracking_enabled=False)
    assert active.session is None
    assert function(1) == 3
    assert asyncio.run(coroutine(1)) == 3
    with measure_latency_context(STT, "listen"), call("CA1"):
        pass
    assert not latency_tracker.metrics
    assert latency_tracker.get_stats() == {}


def test_an_operation_that_is_open_while_it_is_switched_off(spans: FinishedSpans) -> None:
    """What began measured ends measured, once; what began bare ends bare."""
    with measure_latency_context(STT, "began_on"):
        latency_tracker.enabled = False
        bare = measure_latency_context(STT, "began_off")
        bare.__enter__()
    latency_tracker.enabled = True
    bare.__exit__(None, None, None)
    assert names() == ["began_on"]
    assert [span.name for span in spans()] == ["speech_to_text began_on"]
    assert still_open() == 0
    assert latency_tracker.get_stats()["speech_to_text/began_on"]["count"] == 1


def test_an_operation_that_is_open_at_shutdown_ends_quietly(measuring: LatencyConfig) -> None:
    """Its code runs to its end, whatever became of us."""
    with measure_latency_context(STT, "listen") as handle:
        shutdown(60)
        handle.set_provider("late")
        handle.set_metadata(a=1)


# -- faults of ours -------------------------------------------------------------------------------------------------


@pytest.fixture
def _contained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callbot_latency.base.internal_errors.raise_internal_errors.enabled", False)


@pytest.mark.promise("internal-fault")
@pytest.mark.usefixtures("_contained")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (session_module.Session, "open"),
        (session_module.Session, "close"),
        (session_module.Session, "end"),
        (session_module.Session, "attributes_of"),
        (session_module, "detach"),
        (session_module, "mark_failed"),
        (spans_module.SpanFactory, "start"),
    ],
)
def test_a_fault_of_ours_reaches_nobody(
    owner: Any, name: str, measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results and exceptions are those of the bare code."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    error = KeyError("x")

    @measure_latency(STT)
    def fails() -> None:
        raise error

    checks: list[Callable[[], Any]] = [lambda: function(1), lambda: asyncio.run(coroutine(1))]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        token = attach(Context())
        try:
            assert [check() for check in checks] == [3, 3]
            with pytest.raises(KeyError) as raised:
                fails()
            assert raised.value is error
            with measure_latency_context(STT, "listen", call_sid="CA1") as handle:
                handle.set_provider("a")
        finally:
            token.var.reset(token)


@pytest.mark.promise("hostile-values")
@pytest.mark.usefixtures("_contained")
def test_an_attribute_that_raises_costs_its_id_alone(measuring: LatencyConfig) -> None:
    """A property of the user's that fails is our fault to look at: the operation is measured without the id."""

    class Bot:
        @property
        def call_sid(self) -> str:
            raise RuntimeError("not connected")

        @measure_latency(STT, call_sid_attr="call_sid")
        def listen(self) -> int:
            return 1

    assert Bot().listen() == 1
    assert (last().operation_name, last().call_sid) == ("listen", None)
