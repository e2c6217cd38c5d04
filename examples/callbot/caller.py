"""A caller, with Twilio's part of the line: speaks in real time, plays what the bot sends, returns its marks."""

import asyncio
import base64
import json
import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import websockets

from .audio import FRAME_BYTES, FRAME_MS, SILENCE, frames
from .playback import ANSWERED, PlaybackBuffer
from .voice import Voice

_SILENT_FRAME: Final = SILENCE * FRAME_BYTES
_PAUSE_S: Final = 0.4
_HELD_FRAMES: Final = 3
PATIENCE_S: Final = 20.0
"""How long a caller waits for an answer."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something to say: when the bot has finished, or while it speaks."""

    text: str
    interrupts_after_s: float | None = None


@dataclass(slots=True)
class Caller:
    """One call. `hang_up_after_s` ends it that long after the bot began to answer the last utterance.

    `events` counts the messages that the bot sent, by their name.
    """

    url: str
    phone: str
    script: Sequence[Utterance]
    hang_up_after_s: float | None = None
    patience_s: float = PATIENCE_S
    voice: Voice = field(default_factory=lambda: Voice("en-us+f3", 150))
    call_sid: str = field(default_factory=lambda: f"CA{secrets.token_hex(16)}")
    stream_sid: str = field(default_factory=lambda: f"MZ{secrets.token_hex(16)}")
    events: dict[str, int] = field(default_factory=dict)
    heard_s: float = 0.0
    answers: int = 0
    _buffer: PlaybackBuffer = field(default_factory=lambda: PlaybackBuffer(_HELD_FRAMES))
    _speech: deque[bytes] = field(default_factory=deque)
    _spoken: asyncio.Event = field(default_factory=asyncio.Event)
    _last_sound: float = 0.0

    async def run(self) -> float:
        """Make the call; returns how many seconds it took."""
        began = time.monotonic()
        spoken = [frames(await self.voice.speak(utterance.text)) for utterance in self.script]
        async with websockets.connect(self.url) as socket:
            await self._send(socket, {"event": "connected", "protocol": "Call", "version": "1.0.0"})
            await self._send(socket, self._start())
            tasks = [
                asyncio.create_task(self._line(socket)),
                asyncio.create_task(self._receive(socket)),
                asyncio.create_task(self._converse(spoken)),
            ]
            try:
                # The bot hangs up: its messages end. The caller does: the conversation ends. The line alone never ends.
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop(socket)
        for result in ended:
            if isinstance(result, Exception) and not isinstance(result, websockets.ConnectionClosedOK):
                raise result
        return time.monotonic() - began

    def _start(self) -> dict[str, Any]:
        return {
            "event": "start",
            "streamSid": self.stream_sid,
            "start": {
                "streamSid": self.stream_sid,
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"from": self.phone},
            },
        }

    async def _line(self, socket: websockets.ClientConnection) -> None:
        """Every 20 ms: a frame to the bot, and a frame of the bot's played."""
        loop = asyncio.get_running_loop()
        due, at_ms = loop.time(), 0
        while True:
            frame = self._speech.popleft() if self._speech else _SILENT_FRAME
            media = {"track": "inbound", "timestamp": str(at_ms), "payload": base64.b64encode(frame).decode()}
            await self._send(socket, {"event": "media", "streamSid": self.stream_sid, "media": media})
            at_ms += FRAME_MS
            if not self._speech:
                self._spoken.set()
            played, marks = self._buffer.play(FRAME_BYTES)
            if played:
                self._last_sound = loop.time()
                self.heard_s += FRAME_MS / 1_000
            await self._return_marks(socket, marks)
            due += FRAME_MS / 1_000
            await asyncio.sleep(max(0, due - loop.time()))

    async def _receive(self, socket: websockets.ClientConnection) -> None:
        async for text in socket:
            message = json.loads(text)
            self.events[message["event"]] = self.events.get(message["event"], 0) + 1
            match message["event"]:
                case "media":
                    self._buffer.add(base64.b64decode(message["media"]["payload"]))
                case "mark":
                    self._buffer.mark(message["mark"]["name"])
                case "clear":
                    await self._return_marks(socket, self._buffer.clear())

    async def _converse(self, spoken: Sequence[list[bytes]]) -> None:
        for utterance, speech in zip(self.script, spoken, strict=True):
            async with asyncio.timeout(self.patience_s):
                await self._until_heard(utterance.interrupts_after_s)
            self._spoken.clear()
            self._speech.extend(speech)
            await self._spoken.wait()
            if utterance.interrupts_after_s is not None or self._buffer.seconds:
                # What the bot said before it noticed is no answer.
                await asyncio.sleep(_PAUSE_S)
        if self.hang_up_after_s is None:
            # It is the bot that ends the call after a goodbye; one that does not is left at last.
            await asyncio.sleep(self.patience_s)
        else:
            await self._until_heard(self.hang_up_after_s)

    async def _until_heard(self, seconds: float | None) -> None:
        """Until the bot has spoken for so long, or, with None, has given an answer and is silent again.

        This caller cannot tell "one moment, please" from an answer by its words: the bot's mark tells.
        """
        loop = asyncio.get_running_loop()
        heard_before, answers_before = self.heard_s, self.answers
        while True:
            is_answered = self.answers > answers_before and not self._buffer.seconds
            if seconds is not None and self.heard_s - heard_before >= seconds:
                return
            if seconds is None and is_answered and loop.time() - self._last_sound > _PAUSE_S:
                return
            await asyncio.sleep(FRAME_MS / 1_000)

    async def _return_marks(self, socket: websockets.ClientConnection, names: Sequence[str]) -> None:
        for name in names:
            self.answers += name.startswith(ANSWERED)
            await self._send(socket, {"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})

    async def _stop(self, socket: websockets.ClientConnection) -> None:
        # The bot may have hung up first.
        with suppress(websockets.ConnectionClosed):
            await self._send(
                socket, {"event": "stop", "streamSid": self.stream_sid, "stop": {"callSid": self.call_sid}}
            )

    @staticmethod
    async def _send(socket: websockets.ClientConnection, message: dict[str, Any]) -> None:
        await socket.send(json.dumps(message))
