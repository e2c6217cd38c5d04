"""What happens in real calls, over a real WebSocket, against the instants that both sides noted themselves."""

import asyncio
import statistics
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from callbot_latency import LatencyMetric, OperationStatus, TurnMetric, attempt, latency_tracker
from callbot_latency.base.drop_counters import unmeasured
from tests.accuracy.bot import Bot, Engine, Machine, Truth, answered, hold_up_the_loop
from tests.accuracy.test_turns import MEDIAN_MS, PROVIDERS, errors_of, share, true_parts
from tests.conftest import FinishedSpans
from tests.support.twilio_caller import Line

pytestmark = pytest.mark.usefixtures("measuring")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as watched:
        yield watched


NEAR_MS = 15.0
"""How far a single figure may be off on a machine that others use too; what is systematic shows in the medians."""


def run(call: Coroutine[Any, Any, None]) -> list[TurnMetric]:
    asyncio.run(call)
    return latency_tracker.get_turns("CA1")


def operations(kind: str) -> list[LatencyMetric]:
    return [m for m in latency_tracker.metrics if m.operation_type.value == kind and m.attempt is None]


class Counted:
    """What was counted as unmeasured since."""

    def __init__(self) -> None:
        self._before = unmeasured.by_reason()

    def __call__(self) -> dict[str, int]:
        now = unmeasured.by_reason()
        return {reason: n - self._before.get(reason, 0) for reason, n in now.items() if n > self._before.get(reason, 0)}


# -- who speaks when --------------------------------------------------------------------------------------------------


def test_a_barge_in_is_told_as_both_sides_saw_it(machine: Machine) -> None:
    """From the caller's onset to `clear`, to the silence, and how much was heard; the speech is cancelled."""
    bot, line = Bot(answer_ms=1500), Line(turns=4, breaks_in_s=0.1)
    turns = run(answered((bot, line)))
    broken_into, last = turns[:-1], turns[-1]
    assert [told.outcome for told in turns] == ["interrupted"] * 3 + ["answered"]
    reactions, silences, heard = [], [], []
    for at, told in enumerate(broken_into):
        barge_in, onset = told.barge_in, line.began[at + 1]
        assert barge_in is not None
        assert not barge_in.is_false
        reactions.append((barge_in.reaction_ms or 0) - (bot.noticed[at + 1] - onset) * 1000)
        silences.append((barge_in.silenced_ms or 0) - (line.cleared[at] - onset) * 1000)
        heard.append((barge_in.heard_share or 0) - line.heard_s[at] / (bot.answer_ms / 1000))
    assert abs(statistics.median(reactions)) <= machine.allows(NEAR_MS, line.turns)
    assert abs(statistics.median(silences)) <= machine.allows(NEAR_MS, line.turns)
    # What was played since the last mark is taken from the clock; the buffer before the playback counts as played.
    assert abs(statistics.median(heard)) <= 0.03 + machine.allows(0, line.turns) / bot.answer_ms
    assert last.barge_in is None
    spoken = operations("text_to_speech")
    assert [m.status for m in spoken] == [OperationStatus.SUCCESS] * 4
    assert {told.response_ms is None for told in turns} == {False}


def test_a_speech_that_is_broken_into_while_it_is_made_is_cancelled() -> None:
    """Counted, and kept out of percentiles."""
    bot, line = Bot(answer_ms=1500, chunk_gap_s=1.0), Line(turns=2, breaks_in_s=0.1)
    turns = run(answered((bot, line)))
    assert [told.outcome for told in turns] == ["interrupted", "answered"]
    first, _ = operations("text_to_speech")
    assert first.status is OperationStatus.CANCELLED
    stats = latency_tracker.get_stats("text_to_speech")["text_to_speech/speak"]
    assert (stats["count"], stats["cancelled"]) == (2, 1)
    assert stats["max_ms"] == stats["min_ms"]


@pytest.mark.promise("cancellation")
def test_who_hangs_up_in_the_middle_leaves_no_number_that_is_wrong() -> None:
    """The turn is told as hung up; what still ran is cancelled; nothing stays open."""
    bot, line, counted = Bot(rag=Engine("rag", 5_000, 5_000)), Line(turns=1, hangs_up_s=0.2), Counted()
    (told,) = run(answered((bot, line)))
    assert (told.outcome, told.unmeasured, told.response_ms, told.parts_ms) == ("hung_up", "no_audio", None, {})
    (asked,) = operations("rag_inference")
    assert asked.status is OperationStatus.CANCELLED
    assert counted() == {"no_audio": 1}


def test_two_streams_of_one_call_are_one_call(machine: Machine) -> None:
    """The second begins in the middle; its turns go on, and are as true."""
    bot, line = Bot(), Line(turns=4, streams=("MZ1", "MZ1", "MZ2", "MZ2"))
    turns = run(answered((bot, line)))
    assert [told.turn for told in turns] == [1, 2, 3, 4]
    assert bot.stream.stream_sid == "MZ2"
    errors = errors_of(bot, line)
    assert abs(statistics.median(errors["response"])) <= machine.allows(NEAR_MS, line.turns)


# -- who answers ------------------------------------------------------------------------------------------------------


def test_a_fallback_says_who_answered_and_what_was_lost_before(machine: Machine) -> None:
    """The operation is as long as both; what was lost is as long as the first really took."""
    refusing, answering = Engine("google", 15, 25), Engine("openai", 5, 10)

    async def transcribes(bot: Bot, truth: Truth) -> None:
        try:
            with attempt("google"):
                await refusing.works(truth)
                raise ConnectionError("no")
        except ConnectionError:
            with attempt("openai"):
                await answering.works(truth)

    bot, line = Bot(transcribes=transcribes), Line(turns=6)
    turns = run(answered((bot, line)))
    lost, parts = [], []
    for truth, told, heard in zip(bot.truths, turns, operations("speech_to_text"), strict=True):
        assert (heard.provider, heard.provider_requested, heard.attempts) == ("openai", "google", 2)
        assert heard.switch_reason == "ConnectionError"
        lost.append((heard.lost_ms or 0) - truth.ms("google begins", "openai begins"))
        parts.append(told.parts_ms["speech_to_text"] - truth.ms("google begins", "openai ends"))
    assert abs(statistics.median(lost)) <= machine.allows(MEDIAN_MS, line.turns)
    assert abs(statistics.median(parts)) <= machine.allows(MEDIAN_MS, line.turns)
    by_provider = latency_tracker.get_stats("speech_to_text", by_provider=True)
    assert by_provider["speech_to_text/transcribe.attempt/google"]["errors"] == 6
    assert by_provider["speech_to_text/transcribe.attempt/openai"]["count"] == 6


def test_of_a_hedge_the_winner_is_waited_for_and_the_loser_is_cancelled(machine: Machine) -> None:
    """Both are asked; the turn's part is as long as the one that answered."""
    quick, slow = Engine("quick", 10, 15), Engine("slow", 5_000, 5_000)

    async def asks(bot: Bot, truth: Truth) -> None:
        async def one(engine: Engine) -> None:
            with attempt(engine.name):
                await engine.works(truth)

        tasks = [asyncio.create_task(one(engine)) for engine in (slow, quick)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    bot, line = Bot(asks=asks), Line(turns=6)
    turns = run(answered((bot, line)))
    off = []
    for truth, told, asked in zip(bot.truths, turns, operations("rag_inference"), strict=True):
        assert (asked.provider, asked.hedge_losers, asked.status) == ("quick", "slow", OperationStatus.SUCCESS)
        off.append(told.parts_ms["rag_inference"] - truth.ms("slow begins", "quick ends"))
    assert abs(statistics.median(off)) <= machine.allows(MEDIAN_MS, line.turns)
    losers = [m for m in latency_tracker.metrics if m.hedge == "loser"]
    assert [(m.provider, m.status) for m in losers] == [("slow", OperationStatus.CANCELLED)] * 6


# -- what goes wrong on the line --------------------------------------------------------------------------------------


def test_without_marks_the_playback_is_unknown_and_never_guessed(machine: Machine) -> None:
    """What was sent is told; what was heard is not."""
    bot, line, counted = Bot(), Line(turns=3, lose=lambda _: True), Counted()
    turns = run(answered((bot, line)))
    assert [told.response_ms for told in turns] == [None] * 3
    assert all(told.unmeasured is None and told.playback_uncertainty_ms is None for told in turns)
    off = []
    for at, told in enumerate(turns):
        truth = bot.truths[at]
        truth.stamps["spoke"] = line.stopped[at]
        assert told.response_sent_ms == pytest.approx(sum(told.parts_ms.values()))
        off.append((told.response_sent_ms or 0) - truth.ms("spoke", "sent"))
    assert abs(statistics.median(off)) <= machine.allows(NEAR_MS, line.turns)
    assert set(counted()) <= {"lost_mark", "hung_up_before_mark"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (Line(turns=6, lose=lambda name: name.startswith("first")), "mark_out_of_order"),
        (Line(turns=6, swap=True), "mark_out_of_order"),
    ],
    ids=["the first is lost", "the last comes first"],
)
def test_of_marks_that_are_lost_or_swapped_the_others_tell(line: Line, reason: str, machine: Machine) -> None:
    """Not as exactly, which the uncertainty says; never outside of it."""
    bot, counted = Bot(), Counted()
    turns = run(answered((bot, line)))
    assert counted() == {reason: 6}
    for at, told in enumerate(turns):
        assert told.response_ms is not None
        assert told.playback_uncertainty_ms is not None
        late_ms = told.response_ms - true_parts(bot, line, at)["response"]
        near_ms = machine.allows_once(NEAR_MS)
        assert -near_ms <= late_ms <= told.playback_uncertainty_ms + near_ms


def test_a_long_way_back_lies_within_the_uncertainty(machine: Machine) -> None:
    """A mark tells later than the caller heard by the time that it was on its way, which nobody can measure here."""
    bot, line = Bot(), Line(turns=6, back_s=0.03)
    late_ms = []
    for at, told in enumerate(run(answered((bot, line)))):
        off = (told.response_ms or 0) - true_parts(bot, line, at)["response"]
        assert off <= (told.playback_uncertainty_ms or 0) + machine.allows_once(NEAR_MS)
        late_ms.append(off)
    assert 28 <= statistics.median(late_ms) <= 30 + machine.allows(NEAR_MS, line.turns)


@pytest.mark.promise("wall-clock")
@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_clock_that_is_set_changes_no_duration(
    jump_s: int, spans: FinishedSpans, monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    """In the middle of the call, by an hour: durations are of another clock, and so is what a span lasts."""
    real, jumped = time.time_ns, False

    def wall_clock_ns() -> int:
        return real() + (jump_s * 10**9 if jumped else 0)

    for module in ("measuring.session", "calls.call_timeline"):
        monkeypatch.setattr(f"callbot_latency.{module}.time_ns", wall_clock_ns)
    monkeypatch.setattr("callbot_latency.calls.call.time.time_ns", wall_clock_ns)

    async def transcribes(bot: Bot, truth: Truth) -> None:
        nonlocal jumped
        jumped = len(bot.truths) > 3
        await bot.stt.works(truth)

    bot, line = Bot(transcribes=transcribes), Line(turns=6)
    run(answered((bot, line)))
    errors = errors_of(bot, line)
    assert abs(statistics.median(errors["response"])) <= machine.allows(NEAR_MS, line.turns)
    assert abs(statistics.median(errors["speech_to_text"])) <= machine.allows(MEDIAN_MS, line.turns)
    lasted = {span.name: (span.end_time or 0) - (span.start_time or 0) for span in spans()}
    assert all(0 < ns < 60 * 10**9 for ns in lasted.values()), lasted


# -- a busy event loop ------------------------------------------------------------------------------------------------

HELD_UP_S = 0.02


def test_what_a_busy_loop_adds_is_in_no_providers_part(machine: Machine) -> None:
    """Something blocks the loop for 20 ms, again and again: the caller waits longer, and no provider is charged.

    An upper bound: a provider's part may lack what it did while the loop was held up, and no more.
    """
    bot, line = Bot(busy=hold_up_the_loop(HELD_UP_S)), Line(turns=60)
    run(answered((bot, line)))
    errors = errors_of(bot, line)
    found = {part: (statistics.median(off), share(off, 95)) for part, off in errors.items()}
    for part in (*PROVIDERS, "twilio_buffer"):
        median_ms, nearly_worst_ms = found[part]
        assert median_ms <= machine.allows(MEDIAN_MS, line.turns), found
        assert nearly_worst_ms <= machine.allows_once(NEAR_MS), found
        assert min(errors[part]) >= -3 * HELD_UP_S * 1000 - machine.allows_once(NEAR_MS), found
    assert statistics.median(errors["rest"]) >= HELD_UP_S * 1000, found
    # The end of speech is that of the media clock, whatever the loop did when its frames came.
    assert abs(found["response"][0]) <= machine.allows(NEAR_MS, line.turns), found
