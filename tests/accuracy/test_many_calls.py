"""Many calls at once, over tasks and threads: nothing of one is taken for another's."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from callbot_latency import (
    LatencyConfig,
    LatencyMetric,
    TurnMetric,
    bind,
    call,
    latency_tracker,
    measure_latency_context,
    report_manager,
    shutdown,
    turn,
)
from tests.conftest import FinishedSpans

CALLS, TURNS, OPERATIONS = 200, 20, 4


class Kept:
    """Every metric and turn, of which the tracker keeps the newest alone."""

    def __init__(self) -> None:
        self.metrics: list[LatencyMetric] = []
        self.turns: list[TurnMetric] = []

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.metrics += batch

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.turns += turns


@pytest.fixture
def kept(measuring: LatencyConfig) -> Iterator[Kept]:
    reporter = Kept()
    report_manager.add_reporter(reporter, name="kept")
    yield reporter
    report_manager.remove_reporter(reporter)


def look_up(whose: str) -> None:
    with measure_latency_context("salesforce_api", "look_up", metadata={"whose": whose}):
        pass


async def ask(whose: str) -> AsyncIterator[str]:
    async with measure_latency_context("rag_inference", "ask", metadata={"whose": whose}):
        await asyncio.sleep(0)
        yield whose
        await asyncio.sleep(0)


async def speak(whose: str) -> None:
    async with measure_latency_context("text_to_speech", "speak", metadata={"whose": whose}):
        async for _ in ask(whose):
            await asyncio.sleep(0)


async def one_call(number: int, pool: ThreadPoolExecutor, traces: dict[str, str | None]) -> None:
    loop = asyncio.get_running_loop()
    with call(f"CA{number}", stream_sid=f"MZ{number}") as bound:
        traces[bound.call_sid] = bound.trace_id
        for at in range(1, TURNS + 1):
            async with turn() as current:
                current.speech_ended()
                whose = f"CA{number} {at}"
                await asyncio.gather(
                    loop.run_in_executor(pool, bind(look_up), whose), asyncio.to_thread(look_up, whose), speak(whose)
                )
                current.audio_sent()
                current.playback_started()


@pytest.mark.promise("no-mixed-calls")
def test_of_16000_operations_none_has_another_calls_ids_trace_or_turn(kept: Kept) -> None:
    """200 calls of 20 turns of 4 operations, interleaved; each says itself whose it is."""
    traces: dict[str, str | None] = {}

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*(one_call(number, pool, traces) for number in range(CALLS)))

    asyncio.run(main())
    assert shutdown(timeout_s=200)
    assert len(kept.metrics) == CALLS * TURNS * OPERATIONS
    wrong = [
        metric
        for metric in kept.metrics
        if metric.metadata["whose"] != f"{metric.call_sid} {metric.turn}"
        or metric.stream_sid != (metric.call_sid or "").replace("CA", "MZ")
        or metric.trace_id != traces[metric.call_sid or ""]
    ]
    assert wrong == []
    assert len(kept.turns) == CALLS * TURNS
    assert {(told.operations, told.unmeasured) for told in kept.turns} == {(OPERATIONS, None)}
    assert len({(told.call_sid, told.turn) for told in kept.turns}) == CALLS * TURNS
    assert len({told.trace_id for told in kept.turns}) == CALLS
    assert len(latency_tracker.get_turns()) == 2_000


@pytest.mark.promise("no-mixed-calls")
def test_each_span_of_many_calls_hangs_beneath_its_own_turn(spans: FinishedSpans) -> None:
    """No orphan, and no parent of another call."""
    traces: dict[str, str | None] = {}

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*(one_call(number, pool, traces) for number in range(20)))

    asyncio.run(main())
    written = spans()
    by_id = {span.context.span_id: span for span in written if span.context}
    assert len(by_id) == len(written) == 20 * (1 + TURNS * (1 + OPERATIONS))
    for span in written:
        attributes = span.attributes or {}
        if span.parent is None:
            assert span.name == "call"
            continue
        parent = by_id[span.parent.span_id]
        assert (parent.attributes or {})["call_sid"] == attributes["call_sid"]
        if span.name != "turn":
            assert (parent.attributes or {})["turn"] == attributes["turn"]
