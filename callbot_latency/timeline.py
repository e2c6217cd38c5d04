"""What happens in one call, and who is told of it."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = ["Anchor", "BargeIn", "Timeline"]


class Anchor(Enum):
    """Where the end of the caller's speech is known from."""

    VAD_MINUS_HANGOVER = "vad_minus_hangover"
    STT_WORD_END = "stt_word_end"
    STT_FINAL = "stt_final"
    TWILIO_MEDIA_CLOCK = "twilio_media_clock"
    LAST_FRAME = "last_frame"


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller spoke while the bot did. What is not known is None."""

    at_ns: int
    """When the caller began, in nanoseconds of `time.perf_counter_ns()`."""
    reaction_ms: float | None = None
    """Until ``clear`` was sent, in milliseconds."""
    silenced_ms: float | None = None
    """Until the last mark came back, in milliseconds."""
    heard_share: float | None = None
    """How much of the answer had been played, from 0 to 1."""
    is_false: bool = False
    """Whether nothing was said after all."""

    def facts(self) -> dict[str, float | bool]:
        """What is known of it, by its names."""
        known = {"reaction_ms": self.reaction_ms, "silenced_ms": self.silenced_ms, "heard_share": self.heard_share}
        return {name: fact for name, fact in known.items() if fact is not None} | {"is_false": self.is_false}


class Timeline(Protocol):
    """What happens in one call; instants in nanoseconds of `time.perf_counter_ns()`."""

    def speech_started(self, at_ns: int) -> None:
        """The caller began to speak."""

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        """The caller had stopped speaking at `at_ns`, as was known at `reported_ns`."""

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        """The first audio of something that the bot says was sent."""

    def audible_after(self, leading_silence_ns: int) -> None:
        """The leading silence of what was sent last, where `audio_sent` did not know it yet."""

    def playback_started(self, at_ns: int, *, uncertainty_ms: float, sent_ns: int | None = None) -> None:
        """The caller could hear from then on what `audio_sent` told at `sent_ns`; None: what it told first."""

    def playback_ended(self, at_ns: int) -> None:
        """The last of it was played."""

    def broken_into(self, at_ns: int) -> None:
        """The caller speaks while the bot does; once it is known, `barge_in` tells what became of that.

        Where `barge_in` can be told at once, this need not be told before.
        """

    def barge_in(self, barge_in: BargeIn) -> None:
        """The caller spoke while the bot did."""

    def unmeasured(self, reason: str) -> None:
        """An anchor or mark is missing, stale or impossible."""

    def hung_up(self, at_ns: int) -> None:
        """The call is over."""
