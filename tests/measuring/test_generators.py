"""Streams: timed while they are iterated, transparent, and leaving nothing behind when they are broken off."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import threading
import weakref
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace

from callbot_latency import (
    LatencyConfig,
    OperationStatus,
    OperationType,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
)
from callbot_latency.measuring import generators as streaming_module
from callbot_latency.measuring import session as session_module
from callbot_latency.measuring.active_session import active
from callbot_latency.runtime import lifecycle as runtime_module
from tests.conftest import FinishedSpans

TTS = OperationType.TTS


def current_is_nothing() -> bool:
    return not trace.get_current_span().get_span_context().is_valid


def last() -> Any:
    return latency_tracker.metrics[-1]


def still_open() -> int:
    assert active.session is not None
    return len(active.session.open_measurements)


class Clock:
    """A monotonic clock in nanoseconds that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, ms: float) -> None:
        self.now_ns += int(ms * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (session_module, streaming_module):
        monkeypatch.setattr(module, "perf_counter_ns", clock)
    monkeypatch.setattr("callbot_latency.measuring.measurement.perf_counter_ns", clock)
    return clock


@measure_latency(TTS)
def three() -> Iterator[int]:
    yield 1
    yield 2
    yield 3


@measure_latency(TTS)
async def athree() -> AsyncIterator[int]:
    yield 1
    yield 2
    yield 3


# -- timing ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("kinds-of-functions")
def test_generator_is_timed_from_its_first_step_to_its_end(clock: Clock, spans: FinishedSpans) -> None:
    """Waiting before the first step is not counted; first output, largest gap, items and busy time are exact."""

    @measure_latency(TTS)
    def speak() -> Iterator[str]:
        clock.pass_ms(100)
        yield "a"
        clock.pass_ms(20)
        yield "b"
        clock.pass_ms(50)
        yield "c"
        clock.pass_ms(5)

    stream = speak()
    clock.pass_ms(1000)
    assert not latency_tracker.metrics
    for _ in stream:
        clock.pass_ms(7)

    metric = last()
    assert metric.latency_ms == 100 + 20 + 50 + 5 + 3 * 7
    assert metric.time_to_first_output_ms == 100
    assert metric.largest_gap_ms == 50
    assert metric.items == 3
    assert metric.busy_ms == 175
    assert metric.latency_ms - metric.busy_ms == 3 * 7
    assert (metric.bytes, metric.audio_ms, metric.real_time_factor) == (None, None, None)
    (span,) = spans()
    assert span.attributes is not None
    assert span.attributes["busy_ms"] == 175
    assert span.attributes["items"] == 3
    assert span.attributes["time_to_first_output_ms"] == 100
    assert span.attributes["largest_gap_ms"] == 50
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 196_000_000


@pytest.mark.promise("kinds-of-functions")
def test_async_generator_is_timed_from_its_first_step_to_its_end(clock: Clock, measuring: LatencyConfig) -> None:
    """The async twin: exact first output, largest gap, items and duration."""

    @measure_latency(TTS)
    async def speak() -> AsyncIterator[str]:
        clock.pass_ms(30)
        yield "a"
        await asyncio.sleep(0)
        clock.pass_ms(40)
        yield "b"
        clock.pass_ms(10)
        yield "c"

    async def main() -> None:
        stream = speak()
        clock.pass_ms(1000)
        async for _ in stream:
            clock.pass_ms(1)

    asyncio.run(main())
    metric = last()
    assert (metric.latency_ms, metric.time_to_first_output_ms, metric.largest_gap_ms, metric.items) == (83, 30, 40, 3)
    assert metric.latency_ms - metric.busy_ms == 3


def test_stream_without_items_has_no_first_output(measuring: LatencyConfig) -> None:
    """Nothing came: items is 0, first output and gap are absent."""

    @measure_latency(TTS)
    def nothing() -> Iterator[int]:
        yield from ()

    assert list(nothing()) == []
    assert (last().items, last().time_to_first_output_ms, last().largest_gap_ms) == (0, None, None)
    assert last().status is OperationStatus.SUCCESS


def test_stream_of_one_item_has_no_gap(measuring: LatencyConfig) -> None:
    """A gap lies between two items."""

    @measure_latency(TTS)
    def one() -> Iterator[int]:
        yield 1

    assert list(one()) == [1]
    assert (last().items, last().largest_gap_ms) == (1, None)


def test_generator_never_iterated_measures_nothing(measuring: LatencyConfig, spans: FinishedSpans) -> None:
    """A call alone opens nothing."""
    three().close()  # type: ignore[attr-defined]
    three()
    assert not latency_tracker.metrics
    assert not spans()


# -- bytes and audio ------------------------------------------------------------------------------------------------


class Chunk(bytes):
    """Bytes that lie about their length."""

    def __len__(self) -> int:
        return 1_000_000


class Lazy:
    """An item that is asked for its class as werkzeug's proxies are."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize(
    ("items", "size"),
    [
        ([b"abc", b"de"], 5),
        ([bytearray(3), memoryview(bytes(4))], 7),
        ([memoryview(array("h", [1, 2, 3]))], 6),
        ([Chunk(b"ab")], 2),
        ([b""], 0),
        (["text", b"abc", 5, None, bytearray(1), Lazy()], 4),
        ([b"ab", released()], 2),
        (["text", [b"abc"], Lazy(), released()], None),
        ([], None),
    ],
    ids=["bytes", "alike", "view", "subclass", "empty", "mixed", "released", "none", "nothing"],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_the_bytes_of_a_stream_are_counted(
    items: list[Any], size: int | None, is_async: bool, spans: FinishedSpans
) -> None:
    """Of what is bytes; where nothing is, how many came is unknown, and not 0. Items come through as they are."""

    @measure_latency(TTS)
    def speak() -> Iterator[Any]:
        yield from items

    @measure_latency(TTS)
    async def aspeak() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def main() -> list[Any]:
        return [item async for item in aspeak()]

    came = asyncio.run(main()) if is_async else list(speak())
    assert [id(item) for item in came] == [id(item) for item in items]
    assert (last().bytes, last().items) == (size, len(items))
    assert (spans()[0].attributes or {}).get("bytes") == size
    assert last().audio_ms is None


def spoken(clock: Clock, ending: BaseException | None = None) -> Any:
    """0.3 s of audio that take 60 ms and 15 ms to make."""

    @measure_latency(TTS, "speak", audio_bytes_per_s=8000)
    def speak() -> Iterator[bytes]:
        clock.pass_ms(60)
        yield bytes(800)
        clock.pass_ms(15)
        yield bytes(1600)
        if ending is not None:
            raise ending

    return speak()


def test_the_real_time_factor_is_the_streams_own_time_over_its_audio(clock: Clock, spans: FinishedSpans) -> None:
    """The consumer, who plays it, is no part of it; metric and span have the same words."""
    for _ in spoken(clock):
        clock.pass_ms(500)
    metric = last()
    told = {"busy_ms": 75, "bytes": 2400, "audio_ms": 300, "real_time_factor": 0.25}
    assert metric.latency_ms == 1075
    assert {name: getattr(metric, name) for name in told} == told
    assert {name: (spans()[0].attributes or {})[name] for name in told} == told


def test_an_async_generator_has_a_real_time_factor(clock: Clock, measuring: LatencyConfig) -> None:
    """The async twin."""

    @measure_latency(TTS, audio_bytes_per_s=48_000)
    async def speak() -> AsyncIterator[bytes]:
        clock.pass_ms(300)
        yield bytes(4800)

    async def main() -> None:
        async for _ in speak():
            clock.pass_ms(10)

    asyncio.run(main())
    assert (last().audio_ms, last().real_time_factor) == (100, 3)


def test_what_came_of_a_cancelled_stream_has_a_real_time_factor(clock: Clock, measuring: LatencyConfig) -> None:
    """A caller who breaks in says nothing against the voice."""
    stream = spoken(clock)
    next(stream)
    clock.pass_ms(500)
    stream.close()
    assert last().status is OperationStatus.CANCELLED
    assert (last().bytes, last().audio_ms, last().real_time_factor) == (800, 100, 0.6)


@pytest.mark.parametrize("fault", [TimeoutError(), KeyError()])
def test_what_failed_has_no_real_time_factor(fault: Exception, clock: Clock, measuring: LatencyConfig) -> None:
    """Part of its time brought nothing; what came is told all the same."""
    with pytest.raises(type(fault)):
        list(spoken(clock, fault))
    assert (last().bytes, last().audio_ms, last().real_time_factor) == (2400, 300, None)


def test_no_audio_has_no_real_time_factor(measuring: LatencyConfig) -> None:
    """Nothing is divided by 0; and text is no audio."""

    @measure_latency(TTS, audio_bytes_per_s=8000)
    def speak(item: Any) -> Iterator[Any]:
        yield item

    list(speak(b""))
    assert (last().bytes, last().audio_ms, last().real_time_factor) == (0, 0, None)
    list(speak("text"))
    assert (last().bytes, last().audio_ms, last().real_time_factor) == (None, None, None)


# -- the protocol ---------------------------------------------------------------------------------------------------


def echo() -> Generator[Any, Any, str]:
    """Answers what is sent, and catches ValueError."""
    received: list[Any] = []
    while True:
        try:
            got = yield list(received)
        except ValueError as error:
            received.append(type(error).__name__)
        else:
            if got == "stop":
                return f"stopped after {len(received)}"
            received.append(got)


async def aecho() -> AsyncGenerator[Any, Any]:
    received: list[Any] = []
    while True:
        try:
            got = yield list(received)
        except ValueError as error:
            received.append(type(error).__name__)
        else:
            if got == "stop":
                return
            received.append(got)


@pytest.mark.promise("async-generators")
def test_send_throw_and_return_value_reach_the_generator(measuring: LatencyConfig) -> None:
    """`send`, a `throw` that yields, and the value of `return` are those of the bare generator."""
    stream = measure_latency(TTS)(echo)()
    assert next(stream) == []
    assert stream.send("a") == ["a"]
    assert stream.throw(ValueError("x")) == ["a", "ValueError"]
    with pytest.raises(StopIteration) as stopped:
        stream.send("stop")
    assert stopped.value.value == "stopped after 2"
    assert last().items == 3
    assert last().status is OperationStatus.SUCCESS


@pytest.mark.promise("async-generators")
def test_asend_and_athrow_reach_the_async_generator(measuring: LatencyConfig) -> None:
    """`asend`, an `athrow` that yields, and the end are those of the bare async generator."""

    async def main() -> None:
        stream = measure_latency(TTS)(aecho)()
        assert await anext(stream) == []
        assert await stream.asend("a") == ["a"]
        assert await stream.athrow(ValueError("x")) == ["a", "ValueError"]
        with pytest.raises(StopAsyncIteration):
            await stream.asend("stop")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())
    assert last().items == 3
    assert last().status is OperationStatus.SUCCESS


@pytest.mark.promise("async-generators")
def test_exception_thrown_in_and_not_caught_comes_back_itself(measuring: LatencyConfig) -> None:
    """Identity is kept both ways, and the measurement is an error."""
    stream, thrown = measure_latency(TTS)(echo)(), KeyError("x")
    next(stream)
    with pytest.raises(KeyError) as raised:
        stream.throw(thrown)
    assert raised.value is thrown
    assert thrown.__context__ is None
    assert last().status is OperationStatus.ERROR

    async def main() -> None:
        astream = measure_latency(TTS)(aecho)()
        await anext(astream)
        with pytest.raises(KeyError) as araised:
            await astream.athrow(thrown)
        assert araised.value is thrown

    asyncio.run(main())
    assert last().status is OperationStatus.ERROR


@pytest.mark.parametrize("wrap", [measure_latency(TTS), lambda function: function], ids=["measured", "bare"])
def test_throwing_generator_exit_that_is_answered_by_an_item(
    wrap: Callable[[Any], Any], measuring: LatencyConfig
) -> None:
    """Measured or bare: `throw(GeneratorExit)` gives the item, `close()` on such a generator is a RuntimeError."""

    @wrap
    def stubborn() -> Iterator[int]:
        while True:
            with contextlib.suppress(GeneratorExit):
                yield 1
                return
            yield 2

    stream = stubborn()
    assert next(stream) == 1
    assert stream.throw(GeneratorExit) == 2
    assert next(stream) == 1
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        stream.close()


@pytest.mark.promise("async-generators")
def test_cleanup_runs_on_close_on_failure_and_on_early_end(measuring: LatencyConfig) -> None:
    """`finally` of the wrapped generator runs at once, with the stream's span current, and may await."""
    cleaned: list[bool] = []

    @measure_latency(TTS)
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            cleaned.append(trace.get_current_span().is_recording())

    async def main() -> None:
        async with contextlib.aclosing(stream()) as early:  # type: ignore[type-var]
            async for _ in early:
                break
        assert cleaned == [True]
        failing = stream()
        await anext(failing)
        with pytest.raises(KeyError):
            await failing.athrow(KeyError("x"))  # type: ignore[attr-defined]
        assert cleaned == [True, True]
        assert current_is_nothing()

    asyncio.run(main())
    assert [metric.status.value for metric in latency_tracker.metrics] == ["cancelled", "error"]


@pytest.mark.promise("async-generators")
def test_asynccontextmanager_on_top_of_a_measured_generator(measuring: LatencyConfig) -> None:
    """The block is what is timed, its exception passes through, and the span is not current inside of it."""

    @contextlib.asynccontextmanager
    @measure_latency(OperationType.RAG)
    async def session() -> AsyncIterator[str]:
        yield "session"

    async def main() -> None:
        async with session() as value:
            assert value == "session"
            assert current_is_nothing()
        error = KeyError("x")
        with pytest.raises(KeyError) as raised:
            async with session():
                raise error
        assert raised.value is error

    asyncio.run(main())
    assert [metric.status.value for metric in latency_tracker.metrics] == ["success", "error"]


def test_contextmanager_on_top_of_a_measured_generator(measuring: LatencyConfig) -> None:
    """The sync twin, also where the generator swallows the block's exception."""

    @contextlib.contextmanager
    @measure_latency(OperationType.RAG)
    def forgiving() -> Iterator[None]:
        with contextlib.suppress(KeyError):
            yield

    with forgiving():
        raise KeyError("x")
    assert last().status is OperationStatus.SUCCESS


@pytest.mark.promise("async-generators")
def test_cancelled_while_it_waits_for_its_next_item(measuring: LatencyConfig) -> None:
    """A task that is cancelled in the middle of a step: cancelled, and CancelledError goes on."""

    @measure_latency(TTS)
    async def endless() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def consume(started: asyncio.Event) -> None:
        async for _ in endless():
            started.set()

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(consume(started))
        await started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert last().status is OperationStatus.CANCELLED
    assert still_open() == 0


def test_error_while_closing_is_an_error(measuring: LatencyConfig) -> None:
    """A generator that fails in its own cleanup is an error, not merely cancelled."""

    @measure_latency(TTS)
    def failing() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("cleanup")

    stream: Any = failing()
    next(stream)
    with pytest.raises(KeyError):
        stream.close()
    assert last().status is OperationStatus.ERROR


def test_generator_that_swallows_its_close_is_cancelled(measuring: LatencyConfig) -> None:
    """What counts is that its consumer broke it off."""

    @measure_latency(TTS)
    def quiet() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    @measure_latency(TTS)
    async def aquiet() -> AsyncIterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    async def main() -> None:
        stream: Any = aquiet()
        await anext(stream)
        await stream.aclose()

    stream: Any = quiet()
    next(stream)
    stream.close()
    asyncio.run(main())
    assert [metric.status.value for metric in latency_tracker.metrics] == ["cancelled", "cancelled"]


def test_kind_is_kept() -> None:
    """A wrapped (async) generator function is one."""
    assert inspect.isgeneratorfunction(three)
    assert inspect.isasyncgenfunction(athree)
    assert inspect.isgenerator(three())


# -- context --------------------------------------------------------------------------------------------------------


def test_span_is_current_inside_the_steps_alone(spans: FinishedSpans) -> None:
    """The consumer sees its own span between the steps; what the generator opens is beneath the stream."""

    @measure_latency(TTS)
    def stream() -> Iterator[int]:
        for number in range(2):
            with measure_latency_context(OperationType.RAG, f"part{number}"):
                pass
            yield number

    for _ in stream():
        assert current_is_nothing()
    part0, part1, parent = spans()
    assert part0.parent is not None
    assert part1.parent is not None
    assert part0.parent.span_id == part1.parent.span_id == parent.context.span_id


def test_what_a_generator_holds_open_across_its_items_stays_current_inside_of_it(spans: FinishedSpans) -> None:
    """A call bound and an operation opened around a `yield` hold for all that the generator does, and nowhere else."""

    @measure_latency(TTS)
    async def handle() -> AsyncIterator[int]:
        with call("CA1"), measure_latency_context(OperationType.RAG, "outer"):
            for number in range(3):
                with measure_latency_context(OperationType.STT, "inner"):
                    pass
                yield number

    async def main() -> None:
        async for _ in handle():
            assert current_is_nothing()

    asyncio.run(main())
    by_name = {span.name: span for span in spans()}
    outer = by_name["rag_inference outer"]
    inner = [span for span in spans() if span.name == "speech_to_text inner"]
    assert {span.parent and span.parent.span_id for span in inner} == {outer.context.span_id}
    assert [metric.call_sid for metric in latency_tracker.metrics] == ["CA1"] * 4 + [None]


@pytest.mark.promise("abandoned-streams")
@pytest.mark.parametrize("measured", [True, False], ids=["measured", "bare"])
def test_each_step_in_a_task_of_its_own(measured: bool, spans: FinishedSpans) -> None:
    """`wait_for` around each step leaves no context behind, and what is open across the steps closes silently."""

    async def handle() -> AsyncIterator[int]:
        with measure_latency_context(OperationType.RAG, "outer"):
            yield 1
            yield 2
        assert trace.get_current_span().get_span_context().span_id == stream_id
        yield 3

    stream_id = 0

    async def main() -> None:
        nonlocal stream_id
        stream = (measure_latency(TTS)(handle) if measured else handle)()
        await asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        assert active.session is not None
        if measured:
            stream_id = next(iter(active.session.open_measurements))
        for _ in range(2):
            await asyncio.create_task(anext(stream))  # type: ignore[arg-type]
            assert current_is_nothing()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())
    assert still_open() == 0


def test_generator_consumed_in_another_thread(spans: FinishedSpans) -> None:
    """Steps in other threads: the stream keeps its parent, the threads keep their own context."""

    @measure_latency(TTS)
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    with call("CA1"):
        running = stream()
        next(running)
    clean: list[bool] = []

    def consume() -> None:
        list(running)
        clean.append(current_is_nothing())

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    assert clean == [True]
    root, span = spans()
    assert span.parent is not None
    assert span.parent.span_id == root.context.span_id
    assert last().call_sid == "CA1"


# -- broken off -----------------------------------------------------------------------------------------------------


def opened_and_ended(spans: FinishedSpans, count: int) -> None:
    assert still_open() == 0
    assert len(spans()) == count
    assert all(span.status.is_unset for span in spans())
    stats = latency_tracker.get_stats()
    assert sum(row["count"] for row in stats.values()) == count
    assert sum(row["cancelled"] for row in stats.values()) == count


@pytest.mark.promise("abandoned-streams")
@pytest.mark.real_time
def test_ten_thousand_streams_broken_off_leave_nothing(
    spans: FinishedSpans, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropped, closed in another task, abandoned to the loop's end, sync and async: all end, none complains."""

    @measure_latency(TTS)
    async def words() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)

    kept: list[Any] = []

    async def one(number: int) -> None:
        stream: Any = words()
        async for _ in stream:
            break
        if number % 3 == 0:
            await asyncio.create_task(stream.aclose())
        elif number % 3 == 1 and number % 2 == 0:
            kept.append(stream)
        assert current_is_nothing()

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(5000)))
        gc.collect()
        await asyncio.sleep(0)

    caplog.set_level(logging.DEBUG)
    asyncio.run(main())
    streams: list[Any] = [three() for _ in range(5000)]
    for stream in streams:
        next(stream)
    for stream in streams[::2]:
        stream.close()
    del stream
    streams.clear()
    gc.collect()
    assert current_is_nothing()
    complaints = [r for r in caplog.records if r.levelno >= logging.WARNING and not r.name.startswith("callbot")]
    assert not complaints
    assert capsys.readouterr().err == ""
    opened_and_ended(spans, 10_000)


@pytest.mark.promise("abandoned-streams")
def test_stream_collected_in_a_foreign_context(spans: FinishedSpans) -> None:
    """A stream dropped while another span is current leaves that span current."""
    stream: Any = three()
    next(stream)
    with measure_latency_context(OperationType.STT, "other"):
        expected = trace.get_current_span()
        del stream
        gc.collect()
        assert trace.get_current_span() is expected
    assert [span.name for span in spans()] == ["text_to_speech three", "speech_to_text other"]


def test_generator_with_a_block_dropped_after_its_consumer_moved_on(spans: FinishedSpans) -> None:
    """An unmeasured generator that holds a measured block: its close restores no context of long ago."""

    def holds() -> Iterator[int]:
        with measure_latency_context(TTS, "block"):
            yield 1

    def main() -> None:
        with measure_latency_context(OperationType.STT, "before"):
            stream = holds()
            next(stream)
        del stream
        gc.collect()
        assert current_is_nothing()

    contextvars.Context().run(main)
    assert still_open() == 0


@pytest.mark.promise("abandoned-streams")
def test_loop_that_ends_closes_what_was_left_open(spans: FinishedSpans, caplog: pytest.LogCaptureFixture) -> None:
    """`asyncio.run` closes every stream at its end: each span ends once, and the loop reports nothing."""
    kept: list[Any] = []

    @measure_latency(TTS)
    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            for _ in range(3):
                await asyncio.sleep(0)

    async def main() -> None:
        for _ in range(50):
            stream = slow()
            await anext(stream)
            kept.append(stream)

    asyncio.run(main())
    assert not caplog.records
    opened_and_ended(spans, 50)


def test_coroutine_broken_off_and_collected_says_nothing(
    spans: FinishedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it swallows the end or fails in it, collected in a context of its own or a foreign one."""

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    @measure_latency(OperationType.STT)
    async def plain() -> None:
        await Never()

    @measure_latency(OperationType.STT)
    async def swallows() -> None:
        with contextlib.suppress(GeneratorExit):
            await Never()

    @measure_latency(OperationType.STT)
    async def nested() -> None:
        async with measure_latency_context(OperationType.RAG, "block"):
            await plain()

    for function in (plain, swallows, nested):
        coroutine = function()
        contextvars.copy_context().run(coroutine.send, None)
        with measure_latency_context(TTS, "foreign"):
            expected = trace.get_current_span()
            del coroutine
            gc.collect()
            assert trace.get_current_span() is expected
    # Where the machine holds one up for longer than its threshold, an alert is right.
    assert not [record for record in caplog.records if record.name != "callbot_latency.alerting"]
    assert current_is_nothing()
    assert still_open() == 0
    statuses = {m.operation_name: m.status.value for m in latency_tracker.metrics}
    assert statuses == {
        "plain": "cancelled",
        "swallows": "cancelled",
        "nested": "cancelled",
        "block": "cancelled",
        "foreign": "success",
    }


@pytest.mark.promise("abandoned-streams")
def test_broken_off_stream_is_freed_at_once(measuring: LatencyConfig) -> None:
    """No reference cycle is left: what the generator held is free without the garbage collector."""

    class Buffer:
        pass

    held: list[weakref.ref[Buffer]] = []

    @measure_latency(TTS)
    def stream() -> Iterator[int]:
        buffer = Buffer()
        held.append(weakref.ref(buffer))
        yield 1
        yield 2

    @measure_latency(TTS)
    async def astream() -> AsyncIterator[int]:
        buffer = Buffer()
        held.append(weakref.ref(buffer))
        yield 1
        yield 2

    async def main() -> None:
        running: Any = astream()
        await anext(running)
        await running.aclose()
        del running

    gc.collect()
    gc.disable()
    try:
        running: Any = stream()
        next(running)
        running.close()
        del running
        dropped: Any = stream()
        next(dropped)
        del dropped
        asyncio.run(main())
        assert [reference() for reference in held] == [None, None, None]
    finally:
        gc.enable()


# -- faults and off -------------------------------------------------------------------------------------------------


def test_off_is_bare(measuring: LatencyConfig) -> None:
    """Switched off at run time, streams run and are not counted; switched off midway, the stream still ends."""
    stream = three()
    assert next(stream) == 1
    latency_tracker.enabled = False
    assert list(stream) == [2, 3]
    assert list(three()) == [1, 2, 3]

    async def main() -> list[int]:
        return [item async for item in athree()]

    assert asyncio.run(main()) == [1, 2, 3]
    assert not runtime_module._runtime.session.open_measurements  # type: ignore[union-attr]


@pytest.mark.promise("internal-fault")
def test_a_fault_of_ours_never_reaches_the_consumer(
    measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Opening or ending that fails leaves items, results and exceptions as they are."""
    monkeypatch.setattr("callbot_latency.base.internal_errors.raise_internal_errors.enabled", False)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def amain() -> list[int]:
        return [item async for item in athree()]

    for name in ("start", "end"):
        with monkeypatch.context() as patch:
            patch.setattr(session_module.Session, name, broken)
            assert list(three()) == [1, 2, 3]
            assert asyncio.run(amain()) == [1, 2, 3]
    assert current_is_nothing()
