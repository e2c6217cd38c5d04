"""What Twilio plays to the caller: from the audio that was sent, and the marks that came back.

Twilio plays what it gets in order, as soon as it has it. A *schedule* says when each piece would be played if nothing
but the playing took time: at once, or when the piece before it has ended. A mark comes back later than its schedule
says, by the time that the way there, Twilio's buffer and the way back take: the *delay*. What was played began that
much later than its schedule, too. So the beginning is the schedule's plus the delay of the first mark; the way back
is in it, though the caller did not wait for that, so that the true beginning is earlier by at most the uncertainty.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from ..model.units import NS_PER_MS
from ..timeline import Timeline
from . import reasons
from .timeline_notifier import TimelineNotifier

__all__ = ["Cleared", "Mark", "Playback", "Utterance"]

PACKET_NS: Final = 20_000_000
"""Twilio plays packets of 20 ms, and a mark comes back with one: how exact a mark can be, at best."""
PAUSE_NS: Final = 1_000_000_000
"""After a silence of this length, what the bot says is something new."""
PAUSE_BEFORE_ANSWER_NS: Final = 200_000_000
"""The same, once the caller has said something."""
LOST_AFTER_NS: Final = 5_000_000_000
"""A mark that is later than this by its schedule is lost."""
CLEARED_LOST_AFTER_NS: Final = 2_000_000_000
"""A mark that has not come back so long after ``clear`` is lost."""
MAX_MARKS: Final = 1_000
_MAX_OVERTAKEN: Final = 64


@dataclass(slots=True, eq=False)
class Utterance:
    """Audio that the bot sends without a pause in between; instants and durations in nanoseconds."""

    sent_ns: int
    """When its first audio was sent."""
    scheduled_ns: int
    """When that would be played, if nothing took time: at once, or after the audio before it."""
    is_filler: bool
    audio_ns: int = 0
    """How much of it was sent."""
    silence_ns: int = 0
    """How much of it was inaudible before the first audible sample."""
    audible: bool = False
    marked_ns: int = 0
    """How much of it lies before its last mark."""
    acked_ns: int = 0
    """How much of it was played, as its marks tell."""
    acked_at_ns: int = 0
    is_started: bool = False
    is_ended: bool = False

    @property
    def is_played(self) -> bool:
        """Whether its marks tell that all that was sent of it was played."""
        return self.acked_ns == self.audio_ns


@dataclass(slots=True, eq=False)
class Mark:
    """A mark that was sent and is to come back."""

    name: str
    utterance: Utterance | None
    """None where nothing was left to be played: such a mark comes back at once."""
    sent_ns: int
    scheduled_ns: int
    """When it would come back, if nothing but the playing took time."""
    played_ns: int
    """How much of its utterance lies before it."""

    @property
    def pauses_ns(self) -> int:
        """How long the bot kept Twilio waiting for audio, between the utterance's beginning and this mark."""
        if self.utterance is None:
            return 0
        return max(0, self.scheduled_ns - self.utterance.scheduled_ns - self.played_ns)


@dataclass(slots=True, eq=False)
class Cleared:
    """What a ``clear`` took back."""

    at_ns: int
    utterance: Utterance | None
    marks: list[Mark]
    was_speaking: bool
    is_settled: bool
    silenced_ns: int | None = None
    """When the last of its marks came back."""

    @property
    def heard_share(self) -> float | None:
        """How much of what was sent had been played, as far as marks can tell: from 0 to 1."""
        utterance = self.utterance
        if utterance is None or not utterance.is_started or not utterance.audio_ns:
            return None
        until_ns = self.at_ns if self.silenced_ns is None else self.silenced_ns
        since_ns = max(0, until_ns - utterance.acked_at_ns)
        return min(1.0, (utterance.acked_ns + since_ns) / utterance.audio_ns)


class Playback:
    """The bot's audio in one stream. Nothing here waits."""

    def __init__(self, notifier: TimelineNotifier) -> None:
        self._notifier = notifier
        self._utterance: Utterance | None = None
        self._marks: deque[Mark] = deque()
        self._overtaken: deque[str] = deque(maxlen=_MAX_OVERTAKEN)
        self._scheduled_ns = 0
        self._delay_ns = 0
        self._round_trip_ns: int | None = None
        self._told_ns = 0
        self._cleared: deque[Cleared] = deque()
        self.is_filler = False
        self.begins_anew: bool = False
        """Whether the next audio begins something new, whatever was before it."""
        self.answers: bool = False
        """Whether the caller has said something since the bot began to speak."""

    @property
    def utterance(self) -> Utterance | None:
        """What the bot says now, or said last less than a pause ago."""
        return self._utterance

    def is_speaking(self, at_ns: int) -> bool:
        """Whether audio that was sent is still to be played, as far as is known."""
        utterance = self._utterance
        if utterance is None or utterance.is_played:
            return False
        until_ns = self._scheduled_ns + self._delay_ns
        if utterance.marked_ns == utterance.audio_ns:
            until_ns += LOST_AFTER_NS  # its last mark will tell
        return at_ns < until_ns

    # -- what the bot sends -----------------------------------------------------------------------------------------

    def audio(self, at_ns: int, length_ns: int) -> bool:
        """Audio was sent; whether it is the first of something new."""
        is_first = self._is_new(at_ns)
        if is_first:
            self.end()
        scheduled_ns = max(at_ns, self._scheduled_ns)
        if is_first:
            self._utterance = Utterance(at_ns, scheduled_ns, self.is_filler)
            self.answers = self.begins_anew = False
        self._scheduled_ns = scheduled_ns + length_ns
        if self._utterance is not None:
            self._utterance.audio_ns += length_ns
        return is_first

    def _is_new(self, at_ns: int) -> bool:
        utterance = self._utterance
        if utterance is None or self.begins_anew or utterance.is_filler != self.is_filler:
            return True
        pause_ns = at_ns - self._quiet_since_ns(utterance)
        return pause_ns >= (PAUSE_BEFORE_ANSWER_NS if self.answers else PAUSE_NS)

    def _quiet_since_ns(self, utterance: Utterance) -> int:
        return utterance.acked_at_ns if utterance.is_played else self._scheduled_ns + self._delay_ns

    def mark(self, at_ns: int, name: str) -> None:
        """A mark was sent."""
        utterance = self._utterance
        if utterance is not None and utterance.is_played:
            utterance = None
        played_ns = 0
        if utterance is not None:
            played_ns = utterance.marked_ns = utterance.audio_ns
        if len(self._marks) >= MAX_MARKS:
            self._lose(self._marks.popleft())
        self._marks.append(Mark(name, utterance, at_ns, max(at_ns, self._scheduled_ns), played_ns))

    def clear(self, at_ns: int) -> Cleared:
        """``clear`` was sent: Twilio plays no more of what it has, and gives every mark back."""
        was_speaking = self.is_speaking(at_ns)
        utterance, self._utterance = self._utterance, None
        cleared = Cleared(at_ns, utterance, list(self._marks), was_speaking, is_settled=not self._marks)
        self._marks.clear()
        if utterance is not None and utterance.is_played:
            self._end_at(utterance.acked_at_ns)
        elif utterance is not None:
            if not utterance.is_started:
                self._notifier.unmeasured(reasons.CLEARED_BEFORE_MARK)
            elif not cleared.marks:
                self._notifier.unmeasured(reasons.NO_END_MARK)
        if cleared.marks:
            self._cleared.append(cleared)
        self._scheduled_ns = at_ns
        return cleared

    # -- what comes back --------------------------------------------------------------------------------------------

    def returned(self, at_ns: int, name: str) -> None:
        """A mark came back."""
        if self._returned_cleared(at_ns, name):
            return
        before = next((place for place, mark in enumerate(self._marks) if mark.name == name), None)
        if before is not None:
            for _ in range(before):
                self._overtaken.append(self._marks.popleft().name)
                self._notifier.unmeasured(reasons.MARK_OUT_OF_ORDER)
            self._played(at_ns, self._marks.popleft())
        elif name in self._overtaken:
            self._overtaken.remove(name)
        else:
            self._notifier.unmeasured(reasons.UNKNOWN_MARK)

    def _returned_cleared(self, at_ns: int, name: str) -> bool:
        for cleared in self._cleared:
            mark = next((mark for mark in cleared.marks if mark.name == name), None)
            if mark is not None:
                break
        else:
            return False
        cleared.marks.remove(mark)
        self._note_round_trip(at_ns - cleared.at_ns)
        if not cleared.marks:
            cleared.silenced_ns, cleared.is_settled = at_ns, True
            self._cleared.remove(cleared)
            if cleared.was_speaking:
                self._end_at(at_ns)
        return True

    def _played(self, at_ns: int, mark: Mark) -> None:
        utterance = mark.utterance
        if utterance is None:
            self._note_round_trip(at_ns - mark.sent_ns)
            return
        delay_ns = at_ns - mark.scheduled_ns
        if delay_ns < -PACKET_NS:
            self._notifier.unmeasured(reasons.IMPOSSIBLE_MARK)
            return
        self._delay_ns = delay_ns = max(0, delay_ns)
        utterance.acked_ns, utterance.acked_at_ns = mark.played_ns, at_ns
        if not utterance.is_started:
            utterance.is_started = True
            self._start(at_ns, mark, utterance, delay_ns)
        if utterance.is_ended and utterance.is_played:
            self._end_at(at_ns)

    def _start(self, at_ns: int, mark: Mark, utterance: Utterance, delay_ns: int) -> None:
        way_back_ns = delay_ns if self._round_trip_ns is None else min(delay_ns, self._round_trip_ns)
        uncertainty_ns = way_back_ns + mark.pauses_ns + PACKET_NS
        # Not before what was said before it ended, and not after the mark itself.
        started_ns = min(at_ns, max(utterance.scheduled_ns + delay_ns, self._told_ns))
        self._told_ns = started_ns
        self._notifier.notify(
            Timeline.playback_started, started_ns, uncertainty_ms=uncertainty_ns / NS_PER_MS, sent_ns=utterance.sent_ns
        )

    def _end_at(self, at_ns: int) -> None:
        self._told_ns = max(self._told_ns, at_ns)
        self._notifier.notify(Timeline.playback_ended, self._told_ns)

    def _note_round_trip(self, took_ns: int) -> None:
        if self._round_trip_ns is None or took_ns < self._round_trip_ns:
            self._round_trip_ns = took_ns

    # -- what does not come -----------------------------------------------------------------------------------------

    def lapse(self, at_ns: int) -> None:
        """Time has passed: what is silent has ended, and what should have come back is lost."""
        utterance = self._utterance
        if utterance is not None and at_ns - self._quiet_since_ns(utterance) >= PAUSE_NS:
            self.end()
        while self._marks and at_ns - self._marks[0].scheduled_ns > LOST_AFTER_NS + self._delay_ns:
            self._lose(self._marks.popleft())
        while self._cleared and at_ns - self._cleared[0].at_ns > CLEARED_LOST_AFTER_NS:
            cleared = self._cleared.popleft()
            cleared.is_settled = True
            for mark in cleared.marks:
                self._lose(mark)

    def end(self) -> None:
        """Nothing more is added to what the bot was saying."""
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return
        utterance.is_ended = True
        if utterance.is_played:
            self._end_at(utterance.acked_at_ns)
        elif not utterance.marked_ns:
            self._notifier.unmeasured(reasons.NO_MARK)
        elif utterance.marked_ns < utterance.audio_ns:
            self._notifier.unmeasured(reasons.NO_END_MARK)

    def hung_up(self) -> None:
        """The call is over: no mark comes back any more."""
        utterance, self._utterance = self._utterance, None
        if utterance is not None and utterance.is_played:
            self._end_at(utterance.acked_at_ns)
        elif utterance is not None and not utterance.is_started:
            self._notifier.unmeasured(reasons.HUNG_UP_BEFORE_MARK if utterance.marked_ns else reasons.NO_MARK)
        self._marks.clear()
        self._cleared.clear()

    def _lose(self, mark: Mark) -> None:
        self._overtaken.append(mark.name)
        self._notifier.unmeasured(reasons.LOST_MARK)
