"""`streams=True`: what a function returns to be iterated is timed to its end, and is what it was."""

import asyncio
import gc
import time
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from callbot_latency import LatencyConfig, OperationStatus, OperationType, latency_tracker, measure_latency
from tests.conftest import FinishedSpans

TTS = OperationType.TTS


class Engine:
    """A stream as libraries have them: an iterator with methods of its own."""

    def __init__(self, *items: str) -> None:
        self.items = list(items)
        self.is_closed = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.items:
            raise StopIteration
        return self.items.pop(0)

    def close(self) -> str:
        self.is_closed = True
        return "closed"


class AsyncEngine:
    """Its async twin, which may be iterated and is no iterator itself."""

    def __init__(self, *items: str, fault: Exception | None = None) -> None:
        self.items = items
        self.fault = fault

    async def __aiter__(self) -> AsyncIterator[str]:
        for item in self.items:
            await asyncio.sleep(0.01)
            yield item
        if self.fault is not None:
            raise self.fault


@measure_latency(TTS, "speak", streams=True)
def speak(*items: str) -> Engine:
    return Engine(*items)


@measure_latency(TTS, "aspeak", streams=True)
async def aspeak(*items: str, fault: Exception | None = None) -> AsyncEngine:
    return AsyncEngine(*items, fault=fault)


def only() -> Any:
    (metric,) = latency_tracker.metrics
    return metric


def test_a_returned_iterator_is_timed_to_its_end(spans: FinishedSpans) -> None:
    """Counted once, at its last item, with its items."""
    stream = speak("a", "b", "c")
    assert not latency_tracker.metrics
    assert list(stream) == ["a", "b", "c"]
    assert list(stream) == []
    metric = only()
    assert (metric.status, metric.items) == (OperationStatus.SUCCESS, 3)
    assert metric.time_to_first_output_ms is not None
    assert len(spans()) == 1


def test_an_awaited_call_that_returns_an_async_iterator(measuring: LatencyConfig) -> None:
    """Is timed until that ends."""

    async def main() -> list[str]:
        return [item async for item in await aspeak("a", "b")]

    assert asyncio.run(main()) == ["a", "b"]
    metric = only()
    assert (metric.items, metric.status) == (2, OperationStatus.SUCCESS)
    assert metric.latency_ms >= 20
    assert metric.time_to_first_output_ms >= 10


def test_what_is_returned_is_what_it_was(measuring: LatencyConfig) -> None:
    """Its type, attributes and methods; closing it early is a cancellation, and happens."""
    stream = speak("a", "b")
    assert isinstance(stream, Engine)
    assert next(stream) == "a"
    assert stream.items == ["b"]
    assert stream.close() == "closed"
    assert stream.is_closed
    assert (only().status, only().items) == (OperationStatus.CANCELLED, 1)


def test_what_is_let_go_is_cancelled(measuring: LatencyConfig) -> None:
    """By the garbage collector, also when nothing was read."""
    speak("a")
    gc.collect()
    assert only().status is OperationStatus.CANCELLED


def test_the_bytes_of_a_returned_stream_are_counted(spans: FinishedSpans) -> None:
    """And with a rate they tell how long the audio lasts; the call itself is part of the stream's own time."""

    @measure_latency(TTS, streams=True, audio_bytes_per_s=8000)
    def opened() -> Iterator[Any]:
        time.sleep(0.02)
        return iter([bytes(80), "mark", memoryview(bytes(80))])

    for _ in opened():
        time.sleep(0.02)
    metric = only()
    assert (metric.items, metric.bytes, metric.audio_ms) == (3, 160, 20)
    assert metric.real_time_factor == metric.busy_ms / 20 >= 1
    assert metric.latency_ms - metric.busy_ms >= 60
    told = {name: (spans()[0].attributes or {})[name] for name in ("busy_ms", "bytes", "audio_ms", "real_time_factor")}
    assert told == {name: getattr(metric, name) for name in told}


def test_an_awaited_stream_of_text_has_no_bytes(measuring: LatencyConfig) -> None:
    """Unknown, and not 0."""

    async def main() -> None:
        async for _ in await aspeak("a"):
            pass

    asyncio.run(main())
    assert (only().bytes, only().items) == (None, 1)
    assert only().busy_ms >= 10


@pytest.mark.parametrize("streams", [False, True])
def test_a_result_that_is_bytes_is_counted_where_a_rate_is_given(streams: bool, measuring: LatencyConfig) -> None:
    """A function and a coroutine function that give all of the audio at once; the result is the very object."""
    audio = bytearray(4000)

    @measure_latency(TTS, streams=streams, audio_bytes_per_s=8000)
    def whole(result: Any) -> Any:
        return result

    @measure_latency(TTS, streams=streams, audio_bytes_per_s=8000)
    async def awhole(result: Any) -> Any:
        return result

    assert whole(audio) is audio
    assert asyncio.run(awhole(audio)) is audio
    assert whole("text") == "text"
    one, two, three = latency_tracker.metrics
    for metric in (one, two):
        assert (metric.bytes, metric.audio_ms, metric.busy_ms) == (4000, 500, None)
        assert metric.real_time_factor == metric.latency_ms / 500
    assert (three.bytes, three.audio_ms, three.real_time_factor) == (None, None, None)


def test_a_loop_may_be_left_and_taken_up_again(measuring: LatencyConfig) -> None:
    """The stream goes on while anybody has it."""
    stream = speak("a", "b")
    for _ in stream:
        break
    gc.collect()
    assert not latency_tracker.metrics
    assert list(stream) == ["b"]
    assert only().items == 2


def test_an_exception_in_the_stream_is_the_callers(measuring: LatencyConfig) -> None:
    """And the operation's status."""

    async def main() -> None:
        async for _ in await aspeak("a", fault=TimeoutError("too late")):
            pass

    with pytest.raises(TimeoutError, match="too late"):
        asyncio.run(main())
    assert (only().status, only().items) == (OperationStatus.TIMEOUT, 1)


def test_a_returned_generator_is_still_one(measuring: LatencyConfig) -> None:
    """With send() and delegation to it."""

    def echo() -> Any:
        heard = yield "ready"
        while heard:
            heard = yield heard.upper()

    @measure_latency(TTS, streams=True)
    def opened() -> Any:
        return echo()

    def delegating() -> Any:
        yield from opened()

    generator = delegating()
    assert next(generator) == "ready"
    assert generator.send("a") == "A"
    assert list(generator) == []
    assert isinstance(opened(), types.GeneratorType)
    gc.collect()
    first = latency_tracker.metrics[0]
    assert (first.items, first.status) == (2, OperationStatus.SUCCESS)


@pytest.mark.parametrize("value", [None, "text", ["a"], {"a": 1}, b"audio", 0])
def test_what_is_no_iterator_is_measured_as_ever(measuring: LatencyConfig, value: Any) -> None:
    """A list or text that is returned is the end."""

    @measure_latency(TTS, streams=True)
    def whole() -> Any:
        return value

    assert whole() is value
    assert (only().items, only().status) == (None, OperationStatus.SUCCESS)


def test_without_it_nothing_changes(measuring: LatencyConfig) -> None:
    """A returned iterator is the very object, and the operation is over."""
    engine = Engine("a")

    @measure_latency(TTS)
    def plain() -> Engine:
        return engine

    assert plain() is engine
    assert only().items is None


def test_tracking_off_returns_the_very_object() -> None:
    """No proxy."""
    from callbot_latency.measuring.active_session import active

    before, active.session = active.session, None
    try:
        assert type(speak("a")) is Engine
    finally:
        active.session = before
