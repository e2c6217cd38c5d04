"""`on_deadline=`: what the bot does while an operation hangs."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from callbot_latency import Alert, LatencyConfig, OperationType, call, latency_tracker, measure_latency, shutdown
from callbot_latency import measure_latency_context as block
from tests.conftest import FinishedSpans, Start

SALESFORCE = OperationType.SALESFORCE


@pytest.fixture
def quick(start: Start) -> LatencyConfig:
    """A critical threshold of 30 ms."""
    return start(salesforce_warning_ms=10, salesforce_critical_ms=30)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_async", [False, True])
def test_it_runs_on_the_loop_that_awaits_the_operation(is_async: bool) -> None:
    """While it is awaited, once, with the alert: the bot may play a filler with what belongs to that loop."""
    heard: list[Any] = []

    async def main() -> None:
        played = asyncio.Event()

        def play(alert: Alert) -> None:
            heard.append((alert.in_flight, alert.metric.operation_name, asyncio.get_running_loop(), played.is_set()))
            played.set()

        async def play_later(alert: Alert) -> None:
            await asyncio.sleep(0)
            play(alert)

        @measure_latency(SALESFORCE, on_deadline=play_later if is_async else play)
        async def query() -> str:
            await asyncio.wait_for(played.wait(), 60)
            return "found"

        assert await query() == "found"
        assert heard == [(True, "query", asyncio.get_running_loop(), False)]

    asyncio.run(main())
    assert latency_tracker.metrics[-1].told_in_flight


@pytest.mark.usefixtures("quick")
def test_an_async_stream_has_its_loop_too() -> None:
    """The speech that does not come is told while it is waited for."""

    async def main() -> list[int]:
        acted = asyncio.Event()

        @measure_latency(SALESFORCE, on_deadline=lambda _: acted.set())
        async def stream() -> AsyncIterator[int]:
            yield 1
            await asyncio.wait_for(acted.wait(), 60)
            yield 2

        return [item async for item in stream()]

    assert asyncio.run(main()) == [1, 2]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_async", [False, True])
def test_without_a_loop_it_runs_on_a_thread_of_ours(is_async: bool) -> None:
    """A function that blocks its thread, also one that blocks an event loop's."""
    acted, threads = threading.Event(), []

    def act(_: Alert) -> None:
        threads.append(threading.current_thread().name)
        acted.set()

    async def act_later(alert: Alert) -> None:
        act(alert)

    @measure_latency(SALESFORCE, on_deadline=act_later if is_async else act)
    def query() -> bool:
        return acted.wait(60)

    @measure_latency(SALESFORCE, on_deadline=act_later if is_async else act)
    def rows() -> Iterator[bool]:
        yield acted.wait(60)

    async def blocking() -> bool:
        return query()

    assert query()
    acted.clear()
    assert list(rows()) == [True]
    acted.clear()
    assert asyncio.run(blocking())
    (ours,) = (thread for thread in threading.enumerate() if thread.name == "callbot_latency.on_deadline")
    shutdown(60)
    assert threads == [ours.name] * 3
    ours.join(60)
    assert not ours.is_alive()


def test_what_ends_in_time_asks_for_nothing(start: Start) -> None:
    """And leaves no thread."""
    start(salesforce_warning_ms=10_000, salesforce_critical_ms=60_000)
    heard: list[Alert] = []

    @measure_latency(SALESFORCE, on_deadline=heard.append)
    def query() -> None:
        pass

    for _ in range(100):
        query()
    shutdown(60)
    assert heard == []


@pytest.mark.usefixtures("quick")
def test_what_it_measures_stands_beneath_the_operation_in_its_call(spans: FinishedSpans, start: Start) -> None:
    """The filler is seen in the trace, where it was needed."""
    shutdown(60)
    start(salesforce_warning_ms=10, salesforce_critical_ms=30)

    async def main() -> None:
        played = asyncio.Event()

        async def play(_: Alert) -> None:
            with block("text_to_speech", "filler"):
                await asyncio.sleep(0)
            played.set()

        @measure_latency(SALESFORCE, on_deadline=play)
        async def query() -> None:
            await asyncio.wait_for(played.wait(), 60)

        with call("CA1"):
            await query()

    asyncio.run(main())
    filler, query = latency_tracker.metrics
    assert (filler.operation_name, filler.call_sid) == ("filler", "CA1")
    assert filler.trace_id == query.trace_id


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_async", [False, True])
def test_what_it_raises_is_logged_and_changes_nothing(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The operation is the application's, and so is the fault."""

    async def main() -> str:
        acted = asyncio.Event()

        def act(_: Alert) -> None:
            acted.set()
            raise ValueError("no filler")

        async def act_later(alert: Alert) -> None:
            act(alert)

        @measure_latency(SALESFORCE, on_deadline=act_later if is_async else act)
        async def query() -> str:
            await asyncio.wait_for(acted.wait(), 60)
            await asyncio.sleep(0)
            return "found"

        return await query()

    assert asyncio.run(main()) == "found"
    (line,) = [line for line in caplog.records if line.levelno == logging.ERROR and line.exc_info]
    assert "raised" in line.getMessage()
    assert latency_tracker.metrics[-1].status.value == "success"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("signalled", [SystemExit, KeyboardInterrupt])
def test_what_a_signal_raises_meanwhile_reaches_the_application(signalled: type[BaseException], is_async: bool) -> None:
    """On its own loop, a handler of SIGTERM or Ctrl-C may end the bot while the function runs."""

    async def main() -> None:
        def act(_: Alert) -> None:
            raise signalled(7)

        async def act_later(alert: Alert) -> None:
            act(alert)

        @measure_latency(SALESFORCE, on_deadline=act_later if is_async else act)
        async def query() -> None:
            await asyncio.sleep(60)

        await query()

    with pytest.raises(signalled, match="7"):
        asyncio.run(main())


@pytest.mark.parametrize("wrong", ["play", 5])
def test_what_cannot_be_called_is_said_at_decoration(wrong: Any) -> None:
    """With the name of the argument."""
    with pytest.raises(TypeError, match="^on_deadline: expected a function of one alert, got "):
        measure_latency(SALESFORCE, on_deadline=wrong)


def test_it_keeps_the_signature_of_what_it_decorates(quick: LatencyConfig) -> None:
    """As ever."""
    decorate: Callable[..., Any] = measure_latency(SALESFORCE, on_deadline=print)

    @decorate
    def query(a: int) -> int:
        return a

    assert query(5) == 5
