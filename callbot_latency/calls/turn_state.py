"""What is known of an open turn."""

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

from ..measuring.event_loop_lag import AwaitTimes, LoopLag, current_loop_lag
from ..measuring.measurement import Measurement
from ..model.units import NS_PER_MS
from ..timeline import Anchor, BargeIn, Timeline

__all__ = ["SpeechEnd", "Turn"]

MAX_OPERATIONS: Final = 500
"""Operations of one turn that its parts are made of."""


class SpeechEnd(NamedTuple):
    """When the caller had stopped speaking, when that was known, and from what."""

    at_ns: int
    reported_ns: int
    source: Anchor
    uncertainty_ms: float


class Turn:
    """One open turn, as `turn()` yields it; its instants are in nanoseconds of `time.perf_counter_ns()`.

    A `TwilioMediaStream` tells what happens. A bot without one says it itself: `speech_ended`, `audio_sent`,
    `playback_started`.
    """

    def __init__(self, timeline: Timeline | None, number: int, metadata: Mapping[str, Any]) -> None:
        self.number = number
        self.metadata = metadata
        self.operations: list[Measurement] = []
        self.speech: SpeechEnd | None = None
        self.began_ns: int = perf_counter_ns()
        self.sent_ns: int | None = None
        self.answer_ns: int | None = None
        self.silence_ns: int | None = None
        self.playing_ns: int | None = None
        self.playing_uncertainty_ms: float | None = None
        self.playing_told_ns: int | None = None
        self.barge_in: BargeIn | None = None
        self.is_broken_into = False
        """Whether the caller speaks while the bot does, and what became of that is not told yet."""
        self.is_over: bool = timeline is None
        """Whether it is told, or another one has begun, or nobody measures it: what happens then is not its own."""
        self.hung_up_ns: int | None = None
        self.ended_ns: int | None = None
        self.loop_lag: LoopLag | None = None
        """What is known of the event loop that the turn was opened on."""
        self.rejected: str | None = None
        """Why what was told of the end of the speech cannot be."""
        self._timeline = timeline

    def speech_ended(
        self, source: Anchor | str = Anchor.STT_FINAL, *, hangover_ms: float = 0.0, uncertainty_ms: float = 0.0
    ) -> None:
        """Say that the caller has stopped speaking: now, less the `hangover_ms` that it took to be sure.

        Raises:
            ValueError: an unknown source, or a negative duration.

        """
        now_ns = perf_counter_ns()
        if hangover_ms < 0 or uncertainty_ms < 0:
            raise ValueError("hangover_ms, uncertainty_ms: expected milliseconds >= 0")
        at_ns, anchor = now_ns - int(hangover_ms * NS_PER_MS), Anchor(source)
        if (timeline := self._told()) is not None:
            timeline.speech_ended(at_ns, source=anchor, uncertainty_ms=uncertainty_ms, reported_ns=now_ns)

    def audio_sent(self, *, is_filler: bool = False) -> None:
        """Say that the first audio of something was sent: the answer, or a filler before it."""
        if (timeline := self._told()) is not None:
            timeline.audio_sent(perf_counter_ns(), leading_silence_ns=None, is_filler=is_filler)

    def playback_started(self, *, uncertainty_ms: float = 0.0) -> None:
        """Say that the caller hears it from now on."""
        if (timeline := self._told()) is not None:
            timeline.playback_started(perf_counter_ns(), uncertainty_ms=uncertainty_ms)

    def _told(self) -> Timeline | None:
        return None if self.is_over else self._timeline

    def waits_here(self) -> AwaitTimes | None:
        """Where an operation notes when it waits; None elsewhere than on the turn's event loop, and once it is over."""
        on_its_loop = self.loop_lag is not None and not self.is_over and self.loop_lag is current_loop_lag()
        return AwaitTimes() if on_its_loop else None

    def add(self, measurement: Measurement) -> None:
        """Take in an operation that begins."""
        if not self.is_over and len(self.operations) < MAX_OPERATIONS:
            self.operations.append(measurement)
