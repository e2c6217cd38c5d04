"""The caller's side of a stream: what came of their audio, and when they began and stopped speaking."""

import math
from typing import Final

from ..model.units import NS_PER_MS
from ..timeline import Anchor, Timeline
from . import reasons
from .media_clock import MediaClock
from .timeline_notifier import TimelineNotifier

__all__ = ["DEFAULT_UNCERTAINTY_MS", "Caller"]

STALE_NS: Final = 60_000_000_000
FRESH_NS: Final = 100_000_000
"""Audio comes every 20 ms: what came longer ago is not what a detector hears now."""

DEFAULT_UNCERTAINTY_MS: Final = {
    Anchor.VAD_MINUS_HANGOVER: 20.0,
    Anchor.STT_WORD_END: 100.0,
    Anchor.STT_FINAL: 500.0,
    Anchor.TWILIO_MEDIA_CLOCK: 20.0,
    Anchor.LAST_FRAME: 20.0,
}
"""What is said where the bot says nothing: a packet of Twilio's; the step in which recognisers give a word's end; how
long after the last word a recogniser is done."""
_IN_THE_AUDIO: Final = frozenset({Anchor.STT_WORD_END, Anchor.TWILIO_MEDIA_CLOCK})


class Caller:
    """What the bot reports of the caller's speech, checked, on the one clock."""

    def __init__(self, began_ns: int, notifier: TimelineNotifier) -> None:
        self.clock: MediaClock = MediaClock()
        self._notifier = notifier
        self._began_ns = began_ns
        self._onset_ns: int | None = None
        self._ended_ns: int | None = None

    def speech_started(self, at_ns: int, delay_ms: float, audio_ms: float | None) -> int | None:
        """The instant of the onset, or None where it is impossible."""
        began_ns = self._instant(self._heard_ns(at_ns), delay_ms, audio_ms)
        if began_ns is None or not self._began_ns <= began_ns <= at_ns or began_ns < (self._ended_ns or 0):
            self._notifier.unmeasured(reasons.IMPOSSIBLE_ONSET)
            return None
        self._onset_ns = began_ns
        self._notifier.notify(Timeline.speech_started, began_ns)
        return began_ns

    def speech_ended(
        self, at_ns: int, source: Anchor, hangover_ms: float, uncertainty_ms: float | None, audio_ms: float | None
    ) -> None:
        """Tell when the caller stopped speaking, or why that is not known."""
        if uncertainty_ms is None:
            uncertainty_ms = DEFAULT_UNCERTAINTY_MS[source]
        if audio_ms is None and source is Anchor.STT_WORD_END:
            self._notifier.unmeasured(reasons.NO_ANCHOR)
            return
        ended_ns = self._ended(at_ns, source, hangover_ms, audio_ms)
        reason = self._fault(ended_ns, at_ns) if _is_length(uncertainty_ms) else reasons.IMPOSSIBLE_ANCHOR
        if ended_ns is None or reason is not None:
            self._notifier.unmeasured(reason or reasons.IMPOSSIBLE_ANCHOR)
            return
        self._ended_ns = ended_ns
        self._onset_ns = None
        self._notifier.notify(
            Timeline.speech_ended, ended_ns, source=source, uncertainty_ms=uncertainty_ms, reported_ns=at_ns
        )

    def _ended(self, at_ns: int, source: Anchor, hangover_ms: float, audio_ms: float | None) -> int | None:
        if source is Anchor.LAST_FRAME:
            arrived_ns = self.clock.arrived_ns
            return None if arrived_ns is None else self._instant(arrived_ns, hangover_ms, None)
        if audio_ms is None and source in _IN_THE_AUDIO:
            audio_ms = self.clock.position_ns / NS_PER_MS
        return self._instant(at_ns, hangover_ms, audio_ms)

    def _heard_ns(self, at_ns: int) -> int:
        """When the last of what the detector hears came: a busy event loop hands it over later.

        By the same clock as the end of speech, so that an onset that is seen late never lies behind it.
        """
        clock = self.clock
        if clock.arrived_ns is None or at_ns - clock.arrived_ns > FRESH_NS:
            return at_ns
        came_ns = clock.instant_of(clock.position_ns)
        return at_ns if came_ns is None else min(at_ns, came_ns)

    def _instant(self, at_ns: int, before_ms: float, audio_ms: float | None) -> int | None:
        """`before_ms` before the place `audio_ms` in the audio, or else before `at_ns`."""
        if not _is_length(before_ms):
            return None
        from_ns: int | None = at_ns
        if audio_ms is not None:
            from_ns = self.clock.instant_of(round(audio_ms * NS_PER_MS)) if _is_length(audio_ms) else None
        return None if from_ns is None else from_ns - round(before_ms * NS_PER_MS)

    def _fault(self, ended_ns: int | None, at_ns: int) -> str | None:
        if ended_ns is None or ended_ns > at_ns:
            return reasons.IMPOSSIBLE_ANCHOR
        if at_ns - ended_ns > STALE_NS or (self._ended_ns is not None and ended_ns <= self._ended_ns):
            return reasons.STALE_ANCHOR
        if ended_ns < max(self._began_ns, self._onset_ns or 0):
            return reasons.IMPOSSIBLE_ANCHOR
        return None


def _is_length(ms: object) -> bool:
    return isinstance(ms, int | float) and math.isfinite(ms) and 0 <= ms < 1e12
