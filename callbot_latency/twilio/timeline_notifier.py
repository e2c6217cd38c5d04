"""The one way from a media stream to the call's timeline."""

from ..base.internal_errors import call_safely
from ..timeline import Anchor, BargeIn, Timeline
from ..tracing.context import bound

__all__ = ["TimelineNotifier"]


class TimelineNotifier:
    """Tells a timeline, if there is one; a fault of its own stays there.

    Unless one is given, that is the timeline of the call which is bound where something is told, if that is not known
    to be another call than `call_sid`; and where none is bound, the one that was before.
    """

    __slots__ = ("_bound", "_call_sid", "_given")

    def __init__(self, timeline: Timeline | None) -> None:
        self._given = timeline
        self._bound: Timeline | None = None
        self._call_sid: str | None = None

    @property
    def call_sid(self) -> str | None:
        """Of the stream, as soon as that is known."""
        return self._call_sid

    @call_sid.setter
    def call_sid(self, call_sid: str | None) -> None:
        if call_sid != self._call_sid:
            self._call_sid, self._bound = call_sid, None

    @property
    def timeline(self) -> Timeline | None:
        if self._given is not None:
            return self._given
        binding = bound()
        if binding is not None and binding.timeline is not None and self._call_sid in (None, binding.call_sid):
            self._bound = binding.timeline
        return self._bound

    @timeline.setter
    def timeline(self, timeline: Timeline | None) -> None:
        self._given, self._bound = timeline, None

    def speech_started(self, at_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.speech_started, at_ns)

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        if self.timeline is not None:
            call_safely(
                self.timeline.speech_ended,
                at_ns,
                source=source,
                uncertainty_ms=uncertainty_ms,
                reported_ns=reported_ns,
            )

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.audio_sent, at_ns, leading_silence_ns=leading_silence_ns, is_filler=is_filler)

    def audible_after(self, leading_silence_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.audible_after, leading_silence_ns)

    def playback_started(self, at_ns: int, *, uncertainty_ms: float, sent_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.playback_started, at_ns, uncertainty_ms=uncertainty_ms, sent_ns=sent_ns)

    def playback_ended(self, at_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.playback_ended, at_ns)

    def broken_into(self, at_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.broken_into, at_ns)

    def barge_in(self, barge_in: BargeIn) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.barge_in, barge_in)

    def unmeasured(self, reason: str) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.unmeasured, reason)

    def hung_up(self, at_ns: int) -> None:
        if self.timeline is not None:
            call_safely(self.timeline.hung_up, at_ns)
