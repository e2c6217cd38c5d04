"""What a measurement makes its caller run of ours: counted, so that it grows on no machine without anybody noticing.

Calls are counted, not time: functions of this package that run on the caller's thread, and what they call in C.
OpenTelemetry's own are counted where a measurement is held against the bare span. What either takes is in `make bench`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from callbot_latency import LatencyConfig, call, latency_tracker, measure_latency, measure_latency_context, turn
from callbot_latency.interop import span_nesting as lineage
from tests.support.counted import counted, is_anybodys

ITEMS = 100


@measure_latency("speech_to_text", provider="google")
def function() -> int:
    return 1


@measure_latency("speech_to_text", provider="google")
async def coroutine() -> int:
    return 1


@measure_latency("text_to_speech", provider="google")
def generator() -> Iterator[int]:
    yield from range(ITEMS)


@measure_latency("text_to_speech", provider="google")
async def async_generator() -> AsyncIterator[int]:
    for item in range(ITEMS):
        yield item


def block() -> None:
    with measure_latency_context("speech_to_text", "transcribe", provider="google"):
        pass


def driven(awaitable: Any) -> None:
    """Run a coroutine that never waits."""
    try:
        awaitable.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


async def consumed() -> None:
    async for _ in async_generator():
        pass


@pytest.fixture(autouse=True)
def no_framework_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign span that an earlier test left costs each operation the look for it."""
    monkeypatch.setattr(lineage, "_open", WeakValueDictionary())


RUNS: dict[str, Callable[[], object]] = {
    "a function": function,
    "a coroutine": lambda: driven(coroutine()),
    "a block": block,
    "a generator": lambda: list(generator()),
    "an async generator": lambda: driven(consumed()),
}


@pytest.mark.promise("cost-of-measuring")
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("a function", 57),
        ("a coroutine", 57),
        ("a block", 58),
        ("a generator", 73 + 10 * ITEMS),
        ("an async generator", 76 + 11 * ITEMS),
    ],
)
def test_a_measurement_makes_few_calls(name: str, most: int, measuring: LatencyConfig) -> None:
    """With file, tracker, histograms and thresholds on, ids bound by `call()`."""
    with call("CA1", stream_sid="MZ1"):
        assert counted(RUNS[name]) <= most


@pytest.mark.promise("cost-of-measuring")
def test_a_measurement_makes_fewer_calls_than_the_span_that_it_replaces(measuring: LatencyConfig) -> None:
    """OpenTelemetry's own counted too; the span is a bare one with the same attributes."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bare")
    attributes = dict.fromkeys(("operation_type", "operation_name", "provider", "call_sid", "stream_sid"), "value")

    def bare() -> None:
        with tracer.start_as_current_span("speech_to_text transcribe", attributes=attributes | {"status": "success"}):
            pass

    with call("CA1", stream_sid="MZ1"):
        of_the_span = counted(bare, is_anybodys)
        for name in ("a function", "a coroutine", "a block"):
            assert counted(RUNS[name], is_anybodys) <= 0.66 * of_the_span, name


def test_a_span_of_a_framework_adds_few(measuring: LatencyConfig) -> None:
    """An operation within it: the framework's own span does not count the same work."""
    with call("CA1"):
        outside = counted(function)
        with trace.get_tracer("framework").start_as_current_span("llm_node"):
            assert counted(function) - outside <= 12


@pytest.mark.promise("cost-of-measuring")
def test_a_turn_adds_few(measuring: LatencyConfig) -> None:
    """An operation of a turn, on its event loop."""

    async def main() -> tuple[int, int]:
        with call("CA1"):
            outside = counted(function)
            with turn():
                return outside, counted(function)

    outside, inside = asyncio.run(main())
    assert inside - outside <= 13


@pytest.mark.promise("cost-of-measuring")
@pytest.mark.parametrize(("name", "most"), [("a function", 2), ("a coroutine", 2), ("a block", 3)])
def test_switched_off_it_makes_next_to_none(name: str, most: int, measuring: LatencyConfig) -> None:
    """The wrapper itself."""
    latency_tracker.enabled = False
    assert counted(RUNS[name]) <= most
