"""The media clock: from a place in the caller's audio to the instant at which it arrived here."""

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MediaClock", "milliseconds_of"]

_WINDOW_NS: Final = 5_000_000_000
"""Two windows of this length are looked at: long enough to hold a message without delay, short enough for two clocks
that are 100 ppm apart to differ by a millisecond."""
_BACKWARDS_NS: Final = 1_000_000_000
"""A timestamp that is earlier by more than this is no late message: the clock began anew."""
_MAX_MS: Final = 10**12


def milliseconds_of(value: Any) -> int | None:
    """`media.timestamp`, which Twilio sends as a string; None where it is no such number."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 12):
            return None
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_MS:
        return None
    return value


@dataclass(slots=True, eq=False)
class MediaClock:
    """Driven by `media.timestamp`, or, where a message has none, by its bytes.

    The audio arrives in a stream that the network and a busy event loop can only delay. So the least delay of the last
    seconds is what maps the audio to the clock: a message that waited does not move the caller's speech.
    """

    position_ns: int = 0
    """End of the audio that has come, in nanoseconds since the stream began."""
    arrived_ns: int | None = None
    """When the last of it came."""
    _base_ns: int | None = None
    _least_ns: int | None = None
    _least_before_ns: int | None = None
    _window_ns: int = 0

    def feed(self, at_ns: int, timestamp_ms: int | None, length_ns: int) -> None:
        """A message of the caller's audio came."""
        self.arrived_ns = at_ns
        if timestamp_ms is None:
            # The bytes alone do not tell of a gap, so that no earlier delay may be compared with this one.
            self.position_ns += length_ns
            self._base_ns = at_ns - self.position_ns
            self._least_ns = self._least_before_ns = None
            return
        end_ns = timestamp_ms * 1_000_000 + length_ns
        if end_ns < self.position_ns - _BACKWARDS_NS:
            self.position_ns, self._least_ns, self._least_before_ns = 0, None, None
        self.position_ns = max(self.position_ns, end_ns)
        base_ns = at_ns - end_ns
        if self._least_ns is None:
            self._least_ns, self._window_ns = base_ns, at_ns
        elif at_ns - self._window_ns >= _WINDOW_NS:
            self._least_before_ns, self._least_ns, self._window_ns = self._least_ns, base_ns, at_ns
        elif base_ns < self._least_ns:
            self._least_ns = base_ns
        before_ns = self._least_before_ns
        self._base_ns = self._least_ns if before_ns is None else min(before_ns, self._least_ns)

    def instant_of(self, audio_ns: int) -> int | None:
        """When the audio until `audio_ns` had come, or None where it has not."""
        if self._base_ns is None or not 0 <= audio_ns <= self.position_ns:
            return None
        return self._base_ns + audio_ns
