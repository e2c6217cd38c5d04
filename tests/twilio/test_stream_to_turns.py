"""A media stream and the turns of its call: what the one sees, the other measures."""

from collections.abc import Callable

import pytest

from callbot_latency import Anchor, LatencyConfig, TurnMetric, call, latency_tracker, turn
from callbot_latency.base.drop_counters import unmeasured
from callbot_latency.twilio import TwilioMediaStream
from tests.support.clock import Clock
from tests.support.twilio_script import LOUD, SILENT, payload, start_message


class Line:
    """A stream on the test's clock that was given no timeline."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stream = TwilioMediaStream(clock=clock)
        self.stream.on_message(start_message())

    def says(self, sample: bytes = LOUD, mark: str | None = None) -> None:
        media = {"payload": payload(sample, 20)}
        self.stream.on_send({"event": "media", "streamSid": "MZ1", "media": media})
        if mark is not None:
            self.marks(mark)

    def marks(self, name: str) -> None:
        self.stream.on_send({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})

    def returns(self, mark: str) -> None:
        self.stream.on_message({"event": "mark", "streamSid": "MZ1", "mark": {"name": mark}})


@pytest.fixture
def line(clock: Clock) -> Line:
    return Line(clock)


Counted = Callable[[], dict[str, int]]


@pytest.fixture
def counted() -> Counted:
    """``counted()`` is what was counted as unmeasured since the test began."""
    before = unmeasured.by_reason()

    def since() -> dict[str, int]:
        now = unmeasured.by_reason()
        return {reason: n - before.get(reason, 0) for reason, n in now.items() if n > before.get(reason, 0)}

    return since


def test_a_stream_tells_the_call_that_is_bound(line: Line) -> None:
    """Nobody handed it a timeline; the parts are those of one line of code."""
    line.clock.passes(1000)
    line.stream.speech_ended(source="vad_minus_hangover", hangover_ms=300)
    with turn():
        line.clock.passes(40)
        line.says(mark="first")
        line.clock.passes(20 + 70)
        line.returns("first")
    (told,) = latency_tracker.get_turns("CA1")
    assert told.anchor is Anchor.VAD_MINUS_HANGOVER
    assert told.parts_ms == {"endpointing": 300, "unattributed": 40, "twilio_buffer": 70}


def test_a_stream_that_came_before_its_call_tells_it_too(clock: Clock) -> None:
    """The message `start` names the call, and only then it can be bound."""
    stream = TwilioMediaStream(clock=clock)
    with call("CA7") as bound:
        stream.on_message(start_message("MZ7", "CA7"))
        stream.speech_ended(source="stt_final")
        assert stream.timeline is bound.timeline


def test_a_stream_of_another_call_tells_nothing(clock: Clock) -> None:
    """Unbound is absent, never wrong."""
    stream = TwilioMediaStream(clock=clock)
    stream.on_message(start_message("MZ7", "CA7"))
    stream.speech_ended(source="stt_final")
    assert stream.timeline is None
    with turn():
        pass
    assert latency_tracker.get_turns("CA1")[-1].unmeasured == "no_anchor"


def test_silence_at_the_beginning_is_a_part_of_its_own_also_where_the_first_message_is_all_silent(line: Line) -> None:
    """It becomes known with the first audible one."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        line.clock.passes(10)
        line.says(SILENT, mark="first")
        line.says(SILENT)
        line.says(LOUD)
        line.clock.passes(20 + 30)
        line.returns("first")
    (told,) = latency_tracker.get_turns("CA1")
    assert told.parts_ms == {"unattributed": 10, "twilio_buffer": 30, "leading_silence": 40}
    assert told.response_ms == 80


def test_silence_of_what_is_said_later_is_not_that_of_the_first(line: Line) -> None:
    """A filler was heard at once; the answer begins with silence."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        with line.stream.filler():
            line.says(LOUD, mark="filler")
        line.clock.passes(20)
        line.returns("filler")
        line.says(SILENT)
        line.says(LOUD)
    (told,) = latency_tracker.get_turns("CA1")
    assert "leading_silence" not in told.parts_ms
    assert told.response_sent_ms == 0
    assert told.answer_sent_ms == 20


def last() -> TurnMetric:
    return latency_tracker.get_turns("CA1")[-1]


@pytest.mark.promise("impossible-durations")
def test_an_anchor_that_cannot_be_is_counted_once_and_by_its_own_reason(line: Line, counted: Counted) -> None:
    """The stream refuses it, and the turn has none: that is one turn that is not measured."""
    with turn():
        line.stream.speech_ended(source="stt_word_end")
        line.says()
    line.stream.closed()
    assert last().unmeasured == "no_anchor"
    assert counted() == {"no_anchor": 1, "no_mark": 1}


@pytest.mark.parametrize("is_early", [True, False])
def test_the_reason_is_the_streams(line: Line, counted: Counted, is_early: bool) -> None:
    """Whether it was told before the turn began or in it."""
    if is_early:
        line.stream.speech_ended(source="a guess")
    with turn():
        if not is_early:
            line.stream.speech_ended(source="a guess")
        line.says(mark="m")
        line.clock.passes(20)
        line.returns("m")
    assert last().unmeasured == "unknown_anchor"
    assert counted() == {"unknown_anchor": 1}


def test_a_good_anchor_after_a_bad_one_measures_the_turn(line: Line, counted: Counted) -> None:
    """In either order, nothing is unmeasured."""
    line.stream.speech_ended(source="stt_final", hangover_ms=-1)
    line.clock.passes(5)
    line.stream.speech_ended(source="stt_final")
    with turn():
        line.stream.speech_ended(source="stt_final", hangover_ms=500)
        line.clock.passes(10)
        line.says(mark="m")
        line.clock.passes(20)
        line.returns("m")
    assert (last().unmeasured, last().response_ms) == (None, 10)
    assert counted() == {}


def test_a_bad_anchor_that_no_turn_came_for_is_counted_at_the_end_of_the_call(
    measuring: LatencyConfig, clock: Clock, counted: Counted
) -> None:
    """The caller said something, and the bot never answered."""
    with call("CA7"):
        stream = TwilioMediaStream(clock=clock)
        stream.on_message(start_message("MZ7", "CA7"))
        stream.speech_ended(source="stt_word_end")
    assert counted() == {"no_anchor": 1}


def answers(line: Line, seconds: float = 1.0) -> None:
    """A first short chunk with its mark, heard after 30 ms; then the rest, with one."""
    line.says(mark="first")
    line.clock.passes(20 + 30)
    line.returns("first")
    for _ in range(round(seconds * 50) - 1):
        line.says()
    line.marks("last")


def breaks_in(line: Line) -> None:
    """200 ms later the caller speaks; the bot is silent 40 ms after that, as its mark tells another 20 ms later."""
    line.clock.passes(200)
    line.stream.speech_started()
    line.clock.passes(40)
    line.stream.on_send({"event": "clear", "streamSid": "MZ1"})


def test_who_breaks_in_is_told_of_by_the_turn_that_was_broken_into(line: Line) -> None:
    """Its block is over by then, and what became of it is known only when the caller has said something."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        answers(line)
        breaks_in(line)
    assert latency_tracker.get_turns("CA1") == []
    line.clock.passes(20)
    line.returns("last")
    line.clock.passes(900)
    line.stream.speech_ended(source="stt_final")
    (told,) = latency_tracker.get_turns("CA1")
    assert (told.turn, told.outcome, told.response_ms) == (1, "interrupted", 30)
    assert told.barge_in is not None
    assert (told.barge_in.reaction_ms, told.barge_in.silenced_ms, told.barge_in.is_false) == (40, 60, False)
    assert told.barge_in.heard_share == pytest.approx((20 + 260) / 1000)
    with turn():
        line.clock.passes(10)
        answers(line)
    line.stream.closed()
    assert (last().turn, last().outcome, last().response_sent_ms, last().barge_in) == (2, "answered", 10, None)


def test_a_barge_in_that_is_told_late_is_not_the_next_turns(line: Line) -> None:
    """The mark of what was taken back comes only after the next turn has begun."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        answers(line)
        breaks_in(line)
    line.clock.passes(900)
    line.stream.speech_ended(source="stt_final")
    with turn():
        line.returns("last")
        answers(line)
    line.stream.closed()
    first, second = latency_tracker.get_turns("CA1")
    assert (first.turn, first.outcome, second.turn, second.outcome) == (1, "interrupted", 2, "answered")


def test_a_cough_interrupts_nothing(line: Line) -> None:
    """The bot fell silent, nothing was said, and it speaks on."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        answers(line)
        breaks_in(line)
        line.returns("last")
        line.clock.passes(500)
        line.stream.no_speech()
        line.says()
    assert (last().outcome, last().barge_in and last().barge_in.is_false) == ("answered", True)


def test_who_speaks_when_the_bot_has_ended_breaks_into_nothing(line: Line) -> None:
    """The turn waits for nothing more."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        answers(line)
        line.clock.passes(1000)
        line.returns("last")
        line.clock.passes(300)
        line.stream.speech_started()
    assert (last().outcome, last().barge_in) == ("answered", None)


def test_who_hangs_up_while_the_bot_speaks_has_broken_in_or_not(line: Line) -> None:
    """What is known then is told; nothing is waited for."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        answers(line)
        breaks_in(line)
        line.stream.on_message({"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}})
    assert (last().outcome, last().barge_in and last().barge_in.silenced_ms) == ("interrupted", None)


def test_who_speaks_when_nothing_plays_any_more_broke_into_nothing(line: Line) -> None:
    """Also where no end mark says so: the next turn's barge-in is the next turn's."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        line.says(mark="first")
        line.clock.passes(50)
        line.returns("first")
        line.says()
        line.clock.passes(9_000)
        line.stream.speech_started()
    assert (last().turn, last().outcome) == (1, "answered")
    line.clock.passes(500)
    line.stream.speech_ended(source="stt_final")
    with turn():
        line.clock.passes(10)
        answers(line)
        breaks_in(line)
        line.returns("last")
    line.clock.passes(500)
    line.stream.speech_ended(source="stt_final")
    assert [(told.turn, told.outcome) for told in latency_tracker.get_turns("CA1")] == [
        (1, "answered"),
        (2, "interrupted"),
    ]


def test_a_barge_in_into_the_greeting_is_no_turns(line: Line) -> None:
    """Nobody waited for it."""
    answers(line)
    breaks_in(line)
    line.returns("last")
    line.clock.passes(500)
    with turn():
        line.stream.speech_ended(source="stt_final")
        line.clock.passes(10)
        answers(line)
        line.clock.passes(1_000)
        line.returns("last")
    assert (last().outcome, last().barge_in) == ("answered", None)


def test_a_mark_of_the_turn_before_is_not_this_turns(line: Line) -> None:
    """It comes back only after the next answer was sent."""
    with turn():
        line.stream.speech_ended(source="stt_final")
        line.says(mark="one")
    line.clock.passes(300)
    with turn():
        line.stream.speech_ended(source="stt_final")
        line.clock.passes(100)
        line.stream.new_utterance()
        line.says(mark="two")
        line.clock.passes(50)
        line.returns("one")
        line.clock.passes(100)
        line.returns("two")
    first, second = latency_tracker.get_turns("CA1")
    assert (first.response_ms, first.response_sent_ms) == (None, 0)
    assert second.response_sent_ms == 100
    assert second.response_ms == pytest.approx(100 + 150 - 20)


def test_a_stream_goes_on_with_the_call_that_is_bound_now(measuring: LatencyConfig, clock: Clock) -> None:
    """A bot that binds the call for each turn has a timeline each time."""
    stream = TwilioMediaStream(clock=clock)
    stream.on_message(start_message("MZ7", "CA7"))
    for _ in range(3):
        clock.passes(3_000)
        with call("CA7"):
            stream.speech_ended(source="stt_final")
            with turn():
                clock.passes(10)
                stream.on_send({"event": "media", "streamSid": "MZ7", "media": {"payload": payload(LOUD, 20)}})
    assert [(told.turn, told.response_sent_ms) for told in latency_tracker.get_turns("CA7")] == [
        (1, 10),
        (2, 10),
        (3, 10),
    ]


def test_looking_at_a_streams_timeline_changes_nothing(clock: Clock) -> None:
    """A stream whose call is not known yet may turn out to be another call's."""
    stream = TwilioMediaStream(clock=clock)
    assert stream.timeline is not None
    stream.on_message(start_message("MZ7", "CA7"))
    assert stream.timeline is None
