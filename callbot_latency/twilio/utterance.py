"""What the bot says at one go, and the marks that tell how far it was played."""

__all__ = ["Mark", "Utterance"]


class Utterance:
    """Audio that the bot sends without a pause in between; instants and durations in nanoseconds."""

    __slots__ = (
        "acked_at_ns",
        "acked_ns",
        "audible",
        "audio_ns",
        "is_ended",
        "is_filler",
        "is_started",
        "marked_ns",
        "scheduled_ns",
        "sent_ns",
        "silence_ns",
    )

    def __init__(self, sent_ns: int, scheduled_ns: int, is_filler: bool) -> None:
        self.sent_ns: int = sent_ns
        """When its first audio was sent."""
        self.scheduled_ns: int = scheduled_ns
        """When that would be played, if nothing took time: at once, or after the audio before it."""
        self.is_filler: bool = is_filler
        self.audio_ns: int = 0
        """How much of it was sent."""
        self.silence_ns: int = 0
        """How much of it was inaudible before the first audible sample."""
        self.audible: bool = False
        self.marked_ns: int = 0
        """How much of it lies before its last mark."""
        self.acked_ns: int = 0
        """How much of it was played, as its marks tell."""
        self.acked_at_ns: int = 0
        self.is_started: bool = False
        self.is_ended: bool = False

    @property
    def is_played(self) -> bool:
        """Whether its marks tell that all that was sent of it was played."""
        return self.acked_ns == self.audio_ns


class Mark:
    """A mark that was sent and is to come back."""

    __slots__ = ("name", "played_ns", "scheduled_ns", "sent_ns", "utterance")

    def __init__(self, name: str, utterance: Utterance | None, sent_ns: int, scheduled_ns: int) -> None:
        self.name: str = name
        self.utterance: Utterance | None = utterance
        """None where nothing was left to be played: such a mark comes back at once."""
        self.sent_ns: int = sent_ns
        self.scheduled_ns: int = scheduled_ns
        """When it would come back, if nothing but the playing took time."""
        self.played_ns: int = utterance.audio_ns if utterance is not None else 0
        """How much of its utterance lies before it."""

    @property
    def pauses_ns(self) -> int:
        """How long the bot kept Twilio waiting for audio, between the utterance's beginning and this mark."""
        if self.utterance is None:
            return 0
        return max(0, self.scheduled_ns - self.utterance.scheduled_ns - self.played_ns)
