"""The one way from a media stream to the call's timeline."""

from ..guard import contained
from ..timeline import Anchor, BargeIn, Timeline

__all__ = ["Telling"]


class Telling:
    """Tells a timeline, if there is one; a fault of its own stays there.

    A timeline that has the method ``audible_after(leading_silence_ns)`` is told the leading silence of what
    `audio_sent` told last, where that was not known yet.
    """

    __slots__ = ("timeline",)

    def __init__(self, timeline: Timeline | None) -> None:
        self.timeline = timeline

    def speech_started(self, at_ns: int) -> None:
        if self.timeline is not None:
            contained(self.timeline.speech_started, at_ns)

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        if self.timeline is not None:
            contained(
                self.timeline.speech_ended,
                at_ns,
                source=source,
                uncertainty_ms=uncertainty_ms,
                reported_ns=reported_ns,
            )

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        if self.timeline is not None:
            contained(self.timeline.audio_sent, at_ns, leading_silence_ns=leading_silence_ns, is_filler=is_filler)

    def audible_after(self, leading_silence_ns: int) -> None:
        told = getattr(self.timeline, "audible_after", None)
        if told is not None:
            contained(told, leading_silence_ns)

    def playback_started(self, at_ns: int, *, uncertainty_ms: float) -> None:
        if self.timeline is not None:
            contained(self.timeline.playback_started, at_ns, uncertainty_ms=uncertainty_ms)

    def playback_ended(self, at_ns: int) -> None:
        if self.timeline is not None:
            contained(self.timeline.playback_ended, at_ns)

    def barge_in(self, barge_in: BargeIn) -> None:
        if self.timeline is not None:
            contained(self.timeline.barge_in, barge_in)

    def unmeasured(self, reason: str) -> None:
        if self.timeline is not None:
            contained(self.timeline.unmeasured, reason)

    def hung_up(self, at_ns: int) -> None:
        if self.timeline is not None:
            contained(self.timeline.hung_up, at_ns)
