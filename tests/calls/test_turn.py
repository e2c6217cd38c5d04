"""A turn: from the end of the caller's speech to what the caller hears, and the parts that sum to it."""

import asyncio
import gc
import itertools
import json
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import (
    Anchor,
    LatencyConfig,
    TurnMetric,
    bind,
    call,
    latency_tracker,
    measure_latency_context,
    shutdown,
    turn,
)
from callbot_latency.base.bounded import MAX_CALLS
from callbot_latency.base.drop_counters import unmeasured
from callbot_latency.measuring.active_session import active
from callbot_latency.measuring.event_loop_lag import current_loop_lag
from callbot_latency.timeline import BargeIn, Timeline
from tests.conftest import FinishedSpans, Start, ticking
from tests.support.clock import MS, Clock


def timeline_of(clock: Clock) -> Timeline:
    timeline: Timeline = clock.timeline  # type: ignore[attr-defined]
    return timeline


def works(clock: Clock, kind: str, ms: float, first_ms: float | None = None) -> None:
    with measure_latency_context(kind, "work") as run:
        if first_ms is not None:
            clock.passes(first_ms)
            run.mark_first_output()
            ms -= first_ms
        clock.passes(ms)


def last(clock: Clock) -> TurnMetric:
    """The last turn, for which nothing more is waited."""
    timeline_of(clock).hung_up(clock.now_ns)
    return latency_tracker.get_turns()[-1]


def test_the_parts_of_a_response_sum_to_what_the_caller_waited(clock: Clock) -> None:
    """Every part at its place, in its order."""
    timeline = timeline_of(clock)
    spoke_until_ns = clock.now_ns
    clock.passes(300)
    timeline.speech_ended(spoke_until_ns, source=Anchor.VAD_MINUS_HANGOVER, uncertainty_ms=20, reported_ns=clock.now_ns)
    clock.passes(15)
    with turn() as current:
        works(clock, "speech_to_text", 400)
        works(clock, "salesforce_api", 120)
        works(clock, "rag_inference", 800, first_ms=500)
        clock.passes(40)
        works(clock, "text_to_speech", 200, first_ms=90)
        clock.passes(5)
        timeline.audio_sent(clock.now_ns, leading_silence_ns=30 * MS, is_filler=False)
        clock.passes(70)
        timeline.playback_started(clock.now_ns, uncertainty_ms=10)
        clock.passes(2000)
    assert current.number == 1
    told = last(clock)
    assert told.parts_ms == {
        "endpointing": 300,
        "queueing": 15,
        "speech_to_text": 400,
        "salesforce_api": 120,
        "rag_inference": 500,
        "first_sentence": 340,
        "text_to_speech": 90,
        "sending": 115,
        "twilio_buffer": 70,
        "leading_silence": 30,
    }
    assert told.response_ms == pytest.approx(sum(told.parts_ms.values()))
    assert told.response_sent_ms == told.answer_sent_ms == pytest.approx(told.response_ms - 100)
    assert (told.anchor, told.anchor_uncertainty_ms, told.playback_uncertainty_ms) == (
        Anchor.VAD_MINUS_HANGOVER,
        20,
        10,
    )
    assert (told.outcome, told.unmeasured, told.operations) == ("answered", None, 4)


def test_work_at_the_same_time_goes_to_the_critical_path(clock: Clock) -> None:
    """The customer is looked up while the answer is; only the slower one was waited for."""
    with turn() as current:
        current.speech_ended()
        with bind_elsewhere("salesforce_api") as end:
            with measure_latency_context("rag_inference", "ask"):
                clock.passes(100)
                end()
                clock.passes(200)
            clock.passes(10)
        current.audio_sent()
    told = last(clock)
    assert told.parts_ms == {"rag_inference": 300, "unattributed": 10}
    assert told.overlapped_ms == {"salesforce_api": 100}
    assert told.response_ms is None
    assert told.response_sent_ms == 310


class bind_elsewhere:  # noqa: N801
    """An operation in another thread, which the turn is carried into."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> Callable[[], None]:
        began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

        def run() -> None:
            with measure_latency_context(self._kind, "elsewhere"):
                began.set()
                may_end.wait(60)
            ended.set()

        self._thread = threading.Thread(target=bind(run))
        self._thread.start()
        assert began.wait(60)

        def end() -> None:
            may_end.set()
            assert ended.wait(60)

        return end

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def test_an_operation_around_others_keeps_what_they_do_not_cover(clock: Clock) -> None:
    """A method that is measured and calls measured ones swallows none of their time."""
    with turn() as current:
        current.speech_ended()
        with measure_latency_context("rag_inference", "answer"):
            clock.passes(10)
            works(clock, "salesforce_api", 50)
            clock.passes(5)
        current.audio_sent()
    assert last(clock).parts_ms == {"rag_inference": 15, "salesforce_api": 50}


def test_a_filler_is_told_apart_from_the_answer(clock: Clock) -> None:
    """The caller heard something at once, and the answer later."""
    with turn() as current:
        current.speech_ended()
        clock.passes(100)
        current.audio_sent(is_filler=True)
        clock.passes(900)
        current.audio_sent()
    assert (last(clock).response_sent_ms, last(clock).answer_sent_ms) == (100, 1000)


@pytest.mark.parametrize(
    ("happens", "reason", "outcome"),
    [
        ([], "no_anchor", "unanswered"),
        (["sent"], "no_anchor", "answered"),
        (["speech"], "no_audio", "unanswered"),
        (["speech", "hung up"], "no_audio", "hung_up"),
        (["stale speech", "sent"], "stale_anchor", "answered"),
        (["future speech", "sent"], "impossible_anchor", "answered"),
    ],
)
def test_what_cannot_be_measured_is_counted_and_never_zero(
    clock: Clock, happens: list[str], reason: str, outcome: str
) -> None:
    """By its reason; the turn is there all the same."""
    timeline, before = timeline_of(clock), unmeasured.by_reason().get(reason, 0)
    with turn():
        for event in happens:
            at_ns = clock.now_ns + {"stale speech": -61_000, "future speech": 5_000}.get(event, 0) * MS
            if "speech" in event:
                timeline.speech_ended(at_ns, source=Anchor.STT_FINAL, uncertainty_ms=0, reported_ns=clock.now_ns)
            elif event == "sent":
                clock.passes(10)
                timeline.audio_sent(clock.now_ns, leading_silence_ns=None, is_filler=False)
            else:
                timeline.hung_up(clock.now_ns)
    told = last(clock)
    assert (told.unmeasured, told.outcome) == (reason, outcome)
    assert told.response_ms is told.response_sent_ms is told.anchor is None
    assert told.parts_ms == {}
    assert unmeasured.by_reason()[reason] - before == 1


def test_a_turn_waits_for_its_playback_after_its_block(clock: Clock) -> None:
    """A bot that does not wait for its own voice: the mark comes later."""
    timeline = timeline_of(clock)
    with turn() as current:
        current.speech_ended()
        clock.passes(100)
        current.audio_sent()
    assert latency_tracker.get_turns() == []
    clock.passes(50)
    timeline.playback_started(clock.now_ns, uncertainty_ms=0)
    assert last(clock).response_ms == 150


def test_the_next_turn_ends_one_whose_playback_nobody_told(clock: Clock) -> None:
    """What is known of it is reported."""
    with turn() as current:
        current.speech_ended()
        clock.passes(100)
        current.audio_sent()
    with turn():
        pass
    first, second = latency_tracker.get_turns()
    assert (first.turn, first.response_ms, first.response_sent_ms) == (1, None, 100)
    assert second.turn == 2


def test_the_last_end_of_speech_before_the_answer_counts(clock: Clock) -> None:
    """The caller went on after a pause."""
    with turn() as current:
        current.speech_ended()
        clock.passes(700)
        current.speech_ended()
        clock.passes(100)
        current.audio_sent()
        current.speech_ended()
    assert last(clock).response_sent_ms == 100
    with turn() as following:
        clock.passes(10)
        following.audio_sent()
    assert last(clock).response_sent_ms == 10


def test_a_barge_in_stands_on_its_turn(clock: Clock, spans: FinishedSpans) -> None:
    """The caller broke in; in the line and on the span by the same names."""
    timeline = timeline_of(clock)
    with turn() as current:
        current.speech_ended()
        clock.passes(100)
        current.audio_sent()
        timeline.barge_in(BargeIn(clock.now_ns, reaction_ms=120, heard_share=0.25))
    told = last(clock)
    assert told.outcome == "interrupted"
    facts = {"reaction_ms": 120, "heard_share": 0.25, "is_false": False}
    assert told.to_dict()["barge_in"] == facts
    attributes = next(span.attributes or {} for span in spans() if span.name == "turn")
    said = {name: value for name, value in attributes.items() if name.startswith("barge_in.")}
    assert said == {f"barge_in.{name}": fact for name, fact in facts.items()}


def test_operations_know_their_turn_and_hang_beneath_it(spans: FinishedSpans) -> None:
    """On the span, in the metric; those of the call alone have none."""
    with call("CA1"):
        with measure_latency_context("salesforce_api", "greet"):
            pass
        with turn(metadata={"intent": "order"}) as current:
            current.speech_ended()
            with measure_latency_context("rag_inference", "ask"):
                pass
            current.audio_sent()
    greet, ask, turn_span, call_span = sorted(spans(), key=lambda span: span.end_time or 0)
    assert [metric.turn for metric in latency_tracker.metrics] == [None, 1]
    assert "turn" not in (greet.attributes or {})
    assert (ask.attributes or {})["turn"] == 1
    assert ask.parent == turn_span.get_span_context()
    assert turn_span.parent == call_span.get_span_context()
    attributes: Any = turn_span.attributes
    assert (turn_span.name, attributes["turn"], attributes["call_sid"]) == ("turn", 1, "CA1")
    assert (attributes["anchor"], attributes["metadata.intent"]) == ("stt_final", "order")
    parts = sum(value for name, value in attributes.items() if name.startswith("part."))
    assert parts == pytest.approx(attributes["response_sent_ms"], abs=1e-6)


def test_the_span_begins_when_the_caller_stopped(spans: FinishedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the wait is seen in Jaeger as the caller had it."""
    clock = ticking(monkeypatch)
    monkeypatch.setattr("callbot_latency.calls.call_timeline.time_ns", lambda: 10**18 + clock.now_ns)
    with call("CA1") as bound:
        assert bound.timeline is not None
        with turn() as first:
            clock.passes(1)
            first.speech_ended()
            first.audio_sent()
        at_ns = first.began_ns
        clock.passes(1_000)
        bound.timeline.speech_ended(at_ns, source=Anchor.STT_FINAL, uncertainty_ms=0, reported_ns=at_ns)
        with turn() as second:
            second.audio_sent()
    one, two = (span for span in spans() if span.name == "turn")
    assert one.start_time is not None
    assert two.start_time == one.start_time
    assert second.began_ns > first.began_ns


def test_a_turn_is_a_line_of_its_own_kind(start: Start, isolated: Path) -> None:
    """Readers of operations can tell it by its first key."""
    start()
    with call("CA1"), turn() as current, measure_latency_context("rag_inference", "ask"):
        current.speech_ended()
        current.audio_sent()
    shutdown(60)
    rows = [json.loads(line) for line in (isolated / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row.get("kind") == "turn"]
    assert list(row)[:3] == ["kind", "call_sid", "turn"]
    assert sum(row["parts_ms"].values()) == pytest.approx(row["response_sent_ms"])
    assert len(rows) == 2


def test_outside_of_a_call_and_while_off_nothing_is_measured(start: Start) -> None:
    """What the bot says of it is taken, and goes nowhere."""
    start()
    with turn() as unbound:
        unbound.speech_ended()
        unbound.audio_sent()
        unbound.playback_started()
    latency_tracker.enabled = False
    with call("CA1"), turn() as off:
        off.audio_sent()
    latency_tracker.enabled = True
    assert latency_tracker.get_turns() == []


def test_a_call_that_is_opened_again_goes_on_counting(measuring: LatencyConfig) -> None:
    """Its WebSocket was cut and is there again, or it has two of them: no two of its turns have one number."""
    with call("CA1") as bound, turn():
        pass
    with call("CA1") as again, turn() as outer:
        with call("CA1"), turn() as inner:
            pass
        with call("CA2"), turn() as others:
            pass
    assert bound.timeline is not again.timeline
    assert (outer.number, inner.number, others.number) == (2, 3, 1)
    assert [told.turn for told in latency_tracker.get_turns("CA1")] == [1, 3, 2]


def test_only_the_newest_calls_are_counted_on(measuring: LatencyConfig) -> None:
    """What is remembered is bounded; a call that is open goes on with its own."""

    def number_of_turn(call_sid: str) -> int:
        with call(call_sid), turn() as opened:
            return opened.number

    assert active.session is not None
    with call("CA1"):
        assert [number_of_turn("CA1"), number_of_turn("CA1")] == [1, 2]
        for number in range(MAX_CALLS):
            active.session.turn_numbers.get_or_put(f"another {number}", itertools.count(1))
        assert len(active.session.turn_numbers) == MAX_CALLS
        assert number_of_turn("CA1") == 1
        with turn() as kept:
            assert kept.number == 3


def test_what_is_said_on_a_turn_that_is_over_is_nobodys(clock: Clock) -> None:
    """Another has begun: its numbers are not touched."""
    with turn() as first:
        first.speech_ended()
        clock.passes(20)
        with turn() as second:
            second.speech_ended()
            clock.passes(30)
            first.audio_sent()
            clock.passes(200)
            second.audio_sent()
    told = {turn.turn: turn for turn in latency_tracker.get_turns()}
    assert told[1].outcome == "unanswered"
    assert last(clock).response_sent_ms == 230


def test_a_turn_object_may_be_entered_again(measuring: LatencyConfig) -> None:
    """Inside of itself, and by another call's task; nothing of it is left behind."""
    again = turn()

    async def one(call_sid: str, first: asyncio.Event, second: asyncio.Event) -> None:
        with call(call_sid):
            async with again:
                first.set()
                await second.wait()
            with measure_latency_context("rag_inference", "after"):
                pass

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(one("CA1", first, second), one("CA2", second, first))

    asyncio.run(main())
    with call("CA3"):
        with again, again:
            pass
        with measure_latency_context("rag_inference", "after"):
            pass
    assert sorted((told.call_sid, told.turn) for told in latency_tracker.get_turns()) == [
        ("CA1", 1),
        ("CA2", 1),
        ("CA3", 1),
        ("CA3", 2),
    ]
    assert [metric.turn for metric in latency_tracker.metrics] == [None] * 3


def test_a_turn_that_outlives_its_call_is_told_all_the_same(measuring: LatencyConfig) -> None:
    """At the end of its block, since nobody will tell more of it."""

    async def main() -> None:
        closed = asyncio.Event()

        async def late() -> None:
            await closed.wait()
            with turn() as current:
                current.speech_ended()
                current.audio_sent()

        with call("CA1"):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        closed.set()
        await task
        lag = current_loop_lag()
        assert lag is not None
        assert not lag.is_watched

    asyncio.run(main())
    assert latency_tracker.get_turns()[-1].outcome == "answered"


def test_after_the_hang_up_a_turn_is_hung_up(clock: Clock) -> None:
    """The bot went on for a while."""
    timeline_of(clock).hung_up(clock.now_ns)
    with turn():
        clock.passes(100)
    assert last(clock).outcome == "hung_up"


def test_what_begins_in_a_turn_that_is_over_is_kept_by_nobody(measuring: LatencyConfig) -> None:
    """A task that goes on in the background has the turn's number, and weighs nothing."""

    async def main() -> None:
        over = asyncio.Event()

        async def background() -> None:
            await over.wait()
            for _ in range(10):
                with measure_latency_context("rag_inference", "later") as run:
                    assert run.await_times is None  # type: ignore[attr-defined]

        with call("CA1"):
            async with turn() as current:
                task = asyncio.create_task(background())
                await asyncio.sleep(0)
            over.set()
            await task
            assert current.operations == []

    asyncio.run(main())
    assert [metric.turn for metric in latency_tracker.metrics] == [1] * 10


def test_an_exception_in_a_turn_is_kept_by_nobody(spans: FinishedSpans) -> None:
    """It would keep all that the bot's frame holds."""

    class Held:
        pass

    kept: list[weakref.ref[Held]] = []

    def bot() -> None:
        held = Held()
        kept.append(weakref.ref(held))
        with turn() as current:
            current.audio_sent()
            raise LookupError("no")

    gc.disable()
    try:
        with call("CA1"), suppress(LookupError):
            bot()
        assert kept[0]() is None
    finally:
        gc.enable()
    told = next(span for span in spans() if span.name == "turn")
    assert (told.attributes or {})["error.type"] == "LookupError"


def test_a_call_goes_on_after_measuring_was_started_anew(start: Start) -> None:
    """Its next turn is told to who measures now."""
    start()
    with call("CA1"):
        shutdown(60)
        start()
        with turn() as current:
            current.speech_ended()
    assert len(latency_tracker.get_turns("CA1")) == 1


def test_get_call_is_everything_kept_of_a_call(measuring: LatencyConfig) -> None:
    """Its turns and its operations."""
    for call_sid in ("CA1", "CA2"):
        with call(call_sid), turn(), measure_latency_context("rag_inference", "ask"):
            pass
    kept = latency_tracker.get_call("CA2")
    assert [row["call_sid"] for row in (*kept["turns"], *kept["operations"])] == ["CA2", "CA2"]
    assert len(latency_tracker.get_turns(limit=1)) == 1
    assert latency_tracker.get_call("CA3") == {"call_sid": "CA3", "turns": [], "operations": []}


def test_wrong_words_about_a_turn_are_errors() -> None:
    """Named."""
    with pytest.raises(TypeError, match="^metadata: expected a mapping"):
        turn(metadata=5)  # type: ignore[arg-type]
    with turn() as current:
        with pytest.raises(ValueError, match="hangover_ms"):
            current.speech_ended(hangover_ms=-1)
        with pytest.raises(ValueError, match="guess"):
            current.speech_ended("guess")
