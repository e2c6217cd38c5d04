"""What reading a Media Stream along costs a message: microseconds on the thread that runs the WebSocket.

Messages are those of a call: 20 ms of audio in both directions, a mark in ten, a turn in a hundred. Each kind is timed
in short chunks that take turns; a round's value is the median of its chunks, and the least and the median round are
printed, next to what reading the JSON costs alone.
"""

import argparse
import base64
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from callbot_latency.timeline import Anchor, BargeIn
from callbot_latency.twilio import TwilioMediaStream

ROUNDS = 9
CHUNKS = 60
MESSAGES = 100
SOUND = base64.b64encode(b"\x10" * 160).decode()
SILENCE = base64.b64encode(b"\xff" * 160).decode()
LONG = base64.b64encode(b"\xff" * 160 + b"\x10" * 7_840).decode()


class Nobody:
    """Takes in what happens, and does nothing."""

    def speech_started(self, at_ns: int) -> None: ...
    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None: ...
    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None: ...
    def audible_after(self, leading_silence_ns: int) -> None: ...
    def playback_started(self, at_ns: int, *, uncertainty_ms: float, sent_ns: int | None = None) -> None: ...
    def playback_ended(self, at_ns: int) -> None: ...
    def broken_into(self, at_ns: int) -> None: ...
    def barge_in(self, barge_in: BargeIn) -> None: ...
    def unmeasured(self, reason: str) -> None: ...
    def hung_up(self, at_ns: int) -> None: ...


def heard(place: int) -> dict[str, Any]:
    media = {"track": "inbound", "chunk": str(place), "timestamp": str(20 * place), "payload": SOUND}
    return {"event": "media", "sequenceNumber": str(place), "media": media, "streamSid": "MZ1"}


def said(payload: str) -> dict[str, Any]:
    return {"event": "media", "streamSid": "MZ1", "media": {"payload": payload}}


MARK = {"event": "mark", "streamSid": "MZ1", "mark": {"name": "part"}}


def new_stream() -> TwilioMediaStream:
    stream = TwilioMediaStream(Nobody())
    start = {"streamSid": "MZ1", "callSid": "CA1", "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000}}
    stream.on_message({"event": "start", "start": start, "streamSid": "MZ1"})
    return stream


def kinds() -> dict[str, Callable[[], float]]:
    """A chunk of each kind: microseconds a message."""
    stream = new_stream()
    inbound = [heard(place) for place in range(MESSAGES)]
    texts = [json.dumps(message) for message in inbound]
    sound, silence = said(SOUND), said(SILENCE)

    def marks() -> None:
        stream.on_send(MARK)
        stream.on_message(MARK)

    def first(message: dict[str, Any]) -> None:
        stream.new_utterance()
        stream.on_send(message)

    def turn() -> None:
        stream.speech_started()
        stream.speech_ended(source="stt_final")
        stream.new_utterance()
        stream.on_send(sound)
        stream.on_send(MARK)
        stream.on_message(MARK)
        stream.on_send({"event": "clear", "streamSid": "MZ1"})

    return {
        "json.loads of a received one, alone": over(texts, json.loads),
        "received audio, dict": over(inbound, stream.on_message),
        "received audio, str": over(texts, stream.on_message),
        "sent audio, dict": over([sound] * MESSAGES, stream.on_send),
        "sent silence, dict": over([silence] * MESSAGES, new_stream().on_send),
        "first audio of an utterance, 1 s, dict": over([said(LONG)] * MESSAGES, first),
        "a mark sent and back": over([None] * MESSAGES, lambda _: marks()),
        "a turn: two reports, four messages": over([None] * MESSAGES, lambda _: turn()),
    }


def over(messages: list[Any], function: Callable[[Any], Any]) -> Callable[[], float]:
    def chunk() -> float:
        started = time.perf_counter_ns()
        for message in messages:
            function(message)
        return (time.perf_counter_ns() - started) / len(messages) / 1000

    return chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    chunks = kinds()
    values: dict[str, list[float]] = {name: [] for name in chunks}
    for _ in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in chunks}
        for _ in range(CHUNKS):
            for name, chunk in chunks.items():
                taken[name].append(chunk())
        for name, times in taken.items():
            values[name].append(statistics.median(times))
    print(f"{'µs a message':40} {'least':>8} {'median':>8}")
    for name, times in values.items():
        print(f"{name:40} {min(times):8.2f} {statistics.median(times):8.2f}")


if __name__ == "__main__":
    main()
