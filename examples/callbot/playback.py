"""What the bot sends: sound that Twilio plays, marks that tell how far it got, and a way to take back the rest."""

import asyncio
import base64
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from callbot_latency.twilio import TwilioMediaStream

from .audio import PHONE_RATE, seconds_of

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends one message of Twilio's Media Streams."""

LEAD_S: Final = 4.0
"""How much unplayed sound may wait at Twilio. Without a limit a long text would be synthesised to its end at once,
however early the caller breaks in."""
ANSWERED: Final = "answered"
_MARK_EVERY_BYTES: Final = PHONE_RATE // 2


class Playback:
    """Speaks to the caller over one media stream; `stream` is told what of it is no answer."""

    def __init__(self, stream_sid: str, send: Send, stream: TwilioMediaStream) -> None:
        self._stream_sid = stream_sid
        self._send = send
        self._stream = stream
        self._marks_sent = 0
        self._unmarked = 0
        self._waiting: deque[tuple[str, float]] = deque()
        self._acknowledged = asyncio.Condition()

    async def play(self, chunks: AsyncGenerator[bytes, None], *, is_answer: bool = True) -> None:
        """Send speech as it is synthesised, and return once the caller has heard all of it.

        Behind an answer stands a mark whose name begins with `ANSWERED`: now it is the caller's turn.
        """
        self._stream.filler(not is_answer)
        # Twilio says when the first of it is played by returning the mark behind it.
        mark_at = 1
        async with aclosing(chunks):
            async for chunk in chunks:
                payload = base64.b64encode(chunk).decode()
                await self._message("media", media={"payload": payload})
                self._unmarked += len(chunk)
                if self._unmarked >= mark_at:
                    mark_at = _MARK_EVERY_BYTES
                    await self._mark()
                    await self._until(LEAD_S)
        await self._mark(ANSWERED if is_answer else "sound")
        await self._until(0)

    async def acknowledge(self, name: str) -> None:
        """Twilio returned a mark: the sound before it was played, or thrown away."""
        async with self._acknowledged:
            while self._waiting and name in {waiting for waiting, _ in self._waiting}:
                if self._waiting.popleft()[0] == name:
                    break
            self._acknowledged.notify_all()

    async def clear(self) -> None:
        """Throw away what Twilio has not played yet."""
        self._unmarked = 0
        await self._message("clear")

    async def _mark(self, kind: str = "sound") -> None:
        if self._unmarked or kind == ANSWERED:
            self._marks_sent += 1
            name = f"{kind}-{self._marks_sent}"
            self._waiting.append((name, self._unmarked / PHONE_RATE))
            self._unmarked = 0
            await self._message("mark", mark={"name": name})

    async def _until(self, ahead_s: float) -> None:
        async with self._acknowledged:
            await self._acknowledged.wait_for(lambda: sum(s for _, s in self._waiting) <= ahead_s)

    async def _message(self, event: str, **fields: Any) -> None:
        await self._send({"event": event, "streamSid": self._stream_sid, **fields})


class PlaybackBuffer:
    """Twilio's end of it: plays at the pace of the line, returns marks when what lies before them was played.

    Args:
        held_frames: for how many frames it keeps sound that comes into the empty buffer before it plays it.

    """

    def __init__(self, held_frames: int = 0) -> None:
        self._sound = bytearray()
        self._held_frames = self._still_held = held_frames
        # A mark with the number of bytes that must be played before it returns.
        self._marks: deque[tuple[str, int]] = deque()

    @property
    def seconds(self) -> float:
        """How much is still to be played."""
        return seconds_of(bytes(self._sound))

    def add(self, sound: bytes) -> None:
        """A ``media`` message came."""
        self._sound += sound

    def mark(self, name: str) -> None:
        """A ``mark`` message came."""
        self._marks.append((name, len(self._sound)))

    def play(self, size: int) -> tuple[bytes, list[str]]:
        """The next `size` bytes, fewer where there are no more, and the marks that return."""
        if self._sound and self._still_held:
            self._still_held -= 1
            return b"", []
        played = bytes(self._sound[:size])
        del self._sound[:size]
        if not self._sound:
            self._still_held = self._held_frames
        self._marks = deque((name, behind - len(played)) for name, behind in self._marks)
        returned = []
        while self._marks and self._marks[0][1] <= 0:
            returned.append(self._marks.popleft()[0])
        return played, returned

    def clear(self) -> list[str]:
        """A ``clear`` message came: nothing more is played, and every mark returns at once."""
        self._sound.clear()
        self._still_held = self._held_frames
        returned = [name for name, _ in self._marks]
        self._marks.clear()
        return returned
