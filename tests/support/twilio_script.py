"""A scripted clock, a listener that remembers, and Twilio's messages, for the tests of the media stream."""

import base64
from dataclasses import dataclass, field
from typing import Any

from callbot_latency.timeline import Anchor, BargeIn
from callbot_latency.twilio import TwilioMediaStream

MS = 1_000_000
SILENT, LOUD = b"\xff", b"\x10"
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
STOP = {"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}}


@dataclass
class Remembered:
    """A timeline that keeps what it is told: (name, milliseconds, what else)."""

    told: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    barge_ins: list[BargeIn] = field(default_factory=list)

    def _keep(self, name: str, at_ns: int, **more: Any) -> None:
        self.told.append((name, at_ns / MS, more))

    def speech_started(self, at_ns: int) -> None:
        self._keep("speech_started", at_ns)

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        self._keep("speech_ended", at_ns, source=source, uncertainty_ms=uncertainty_ms, reported_ms=reported_ns / MS)

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        silence_ms = None if leading_silence_ns is None else leading_silence_ns / MS
        self._keep("audio_sent", at_ns, silence_ms=silence_ms, is_filler=is_filler)

    def audible_after(self, leading_silence_ns: int) -> None:
        self.told.append(("audible_after", leading_silence_ns / MS, {}))

    def playback_started(self, at_ns: int, *, uncertainty_ms: float, sent_ns: int | None = None) -> None:
        self._keep("playback_started", at_ns, uncertainty_ms=uncertainty_ms)

    def playback_ended(self, at_ns: int) -> None:
        self._keep("playback_ended", at_ns)

    def broken_into(self, at_ns: int) -> None:
        self._keep("broken_into", at_ns)

    def barge_in(self, barge_in: BargeIn) -> None:
        self.barge_ins.append(barge_in)

    def unmeasured(self, reason: str) -> None:
        self.reasons.append(reason)

    def hung_up(self, at_ns: int) -> None:
        self._keep("hung_up", at_ns)

    def times(self, name: str) -> list[float]:
        """When each of these happened, in milliseconds."""
        return [at_ms for told, at_ms, _ in self.told if told == name]

    def last(self, name: str) -> dict[str, Any]:
        """What else the last of these said."""
        return [more for told, _, more in self.told if told == name][-1]


def start_message(stream_sid: str = "MZ1", call_sid: str = "CA1", **parameters: str) -> dict[str, Any]:
    """Twilio's ``start``."""
    return {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": "AC1",
            "streamSid": stream_sid,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        },
        "streamSid": stream_sid,
    }


class Script:
    """One call on a clock that the test moves: `at` takes the milliseconds since the call began."""

    def __init__(self, *, started: bool = True) -> None:
        self.timeline = Remembered()
        self.now_ns = 0
        self.stream = TwilioMediaStream(self.timeline, clock=lambda: self.now_ns)
        if started:
            self.stream.on_message({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            self.stream.on_message(start_message())

    def at(self, ms: float) -> "Script":
        """It is so late now."""
        self.now_ns = round(ms * MS)
        return self

    def hear(self, timestamp_ms: int | None = None, length_ms: int = 20, **more: Any) -> None:
        """A message of the caller's audio comes."""
        media: dict[str, Any] = {"track": "inbound", "chunk": "2", "payload": payload(SILENT, length_ms), **more}
        if timestamp_ms is not None:
            media["timestamp"] = str(timestamp_ms)
        self.stream.on_message({"event": "media", "sequenceNumber": "4", "media": media, "streamSid": "MZ1"})

    def say(self, length_ms: int, mark: str | None = None, silence_ms: int = 0) -> None:
        """The bot sends audio, and a mark after it."""
        audio = SILENT * (8 * silence_ms) + LOUD * (8 * (length_ms - silence_ms))
        media = {"payload": base64.b64encode(audio).decode()}
        self.stream.on_send({"event": "media", "streamSid": "MZ1", "media": media})
        if mark is not None:
            self.mark(mark)

    def mark(self, name: str) -> None:
        """The bot sends a mark."""
        self.stream.on_send({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})

    def returned(self, name: str) -> None:
        """A mark comes back."""
        mark = {"event": "mark", "sequenceNumber": "5", "streamSid": "MZ1", "mark": {"name": name}}
        self.stream.on_message(mark)

    def clear(self) -> None:
        """The bot takes back what was not played."""
        self.stream.on_send({"event": "clear", "streamSid": "MZ1"})

    def stop(self) -> None:
        """Twilio ends the stream."""
        self.stream.on_message({"event": "stop", "streamSid": "MZ1", "stop": {"accountSid": "AC1", "callSid": "CA1"}})


def payload(sample: bytes, length_ms: int) -> str:
    """So many milliseconds of one sample."""
    return base64.b64encode(sample * (8 * length_ms)).decode()


def frame_message(number: int, sample: bytes) -> dict[str, Any]:
    """20 ms of the caller's audio."""
    media = {"track": "inbound", "timestamp": str(20 * number), "payload": payload(sample, 20)}
    return {"event": "media", "streamSid": "MZ1", "media": media}
