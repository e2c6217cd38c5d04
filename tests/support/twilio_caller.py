"""The fake Twilio and its caller, over a real WebSocket: in real time, or by a script's clock.

`Line` runs in a thread of its own and notes when everything really happened, in seconds of `time.perf_counter()`. The
caller's audio goes out in frames of 20 ms. What the bot sends is played a set time after it came, and each mark comes
back once the audio before it was played. `ClockedCaller` moves the clock of both sides instead of waiting.
"""

import asyncio
import base64
import functools
import heapq
import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import websockets

from tests.support.clock import Clock
from tests.support.twilio_script import CONNECTED, LOUD, MS, SILENT, STOP, frame_message, start_message

FRAME_S = 0.02
SPEECH_FRAMES = 2
HANGOVER_FRAMES = 3
PAUSE_FRAMES = 6
"""Between two turns of this caller; the stream takes what comes after a shorter pause as the same utterance."""
PATIENCE_S = 100.0

Given = dict[str, Any]


@dataclass
class Line:
    """What one caller does, and what became of it.

    Args:
        turns: how often the caller speaks.
        buffer_s: how long what comes waits before it is played, from the least to the most.
        back_s: how long a mark takes on its way back.
        lose: marks that never come back, by their name.
        swap: whether the last mark comes back before the first.
        breaks_in_s: so long after the playback began the caller speaks into it; None for not at all.
        hangs_up_s: so long after the first speech the caller hangs up.
        streams: the stream's id in each turn; a new one begins with a new ``start``.

    """

    call_sid: str = "CA1"
    turns: int = 3
    buffer_s: tuple[float, float] = (0.005, 0.025)
    back_s: float = 0.0
    lose: Callable[[str], bool] = lambda _: False
    swap: bool = False
    breaks_in_s: float | None = None
    hangs_up_s: float | None = None
    streams: tuple[str, ...] = ("MZ1",)
    stopped: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    playing: list[float] = field(default_factory=list)
    cleared: list[float] = field(default_factory=list)
    heard_s: list[float] = field(default_factory=list)
    """Of each ``clear``: how much of what had come was played."""

    def call(self, url: str) -> threading.Thread:
        """Make the call, in a thread."""
        thread = threading.Thread(target=lambda: asyncio.run(_Caller(self).run(url)), name="caller")
        thread.start()
        return thread


class _Caller:
    def __init__(self, line: Line) -> None:
        self._line = line
        self._random = random.Random(line.call_sid)
        self._speech: deque[bytes] = deque()
        self._frames = 0
        self._marks: deque[tuple[str, float]] = deque()
        self._played_until = 0.0
        self._playing_since = 0.0
        self._sent_s = 0.0
        self._turn = 0
        self._is_last = False
        self._answered = asyncio.Event()
        self._began = asyncio.Event()
        self._spoken = asyncio.Event()

    async def run(self, url: str) -> None:
        async with websockets.connect(url) as self._socket:
            await self._send(CONNECTED)
            await self._start()
            tasks = [asyncio.create_task(each) for each in (self._speak_on(), self._listen(), self._return_marks())]
            try:
                async with asyncio.timeout(PATIENCE_S + self._line.turns):
                    await self._converse()
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(websockets.ConnectionClosed):
                await self._send({"event": "stop", "stop": {"callSid": self._line.call_sid}})
        for result in ended:
            if isinstance(result, Exception) and not isinstance(result, websockets.ConnectionClosed):
                raise result

    @property
    def _stream_sid(self) -> str:
        return self._line.streams[min(self._turn, len(self._line.streams) - 1)]

    async def _send(self, message: Given) -> None:
        await self._socket.send(json.dumps({"streamSid": self._stream_sid, **message}))

    async def _start(self) -> None:
        self._frames = 0
        await self._send(start_message(self._stream_sid, self._line.call_sid))

    async def _converse(self) -> None:
        for turn in range(self._line.turns):
            before, self._turn = self._stream_sid, turn
            if self._stream_sid != before:
                await self._start()
            await self._say()
            if self._line.hangs_up_s is not None:
                await asyncio.sleep(self._line.hangs_up_s)
                return
            await self._hear()
        await self._answered.wait()

    async def _say(self) -> None:
        self._answered.clear()
        self._is_last = False
        self._began.clear()
        self._spoken.clear()
        self._speech.extend([SILENT * 160] * PAUSE_FRAMES + [LOUD * 160] * SPEECH_FRAMES)
        await self._spoken.wait()

    async def _hear(self) -> None:
        if self._line.breaks_in_s is None or self._turn == self._line.turns - 1:
            await self._answered.wait()
        else:
            await self._began.wait()
            # The pause before speech, and the frames of speech that the bot needs, come on top.
            await asyncio.sleep(self._line.breaks_in_s)

    async def _speak_on(self) -> None:
        """The caller's audio, at the pace of the line; when each piece of speech began and ended."""
        due = time.perf_counter()
        while True:
            frame = self._speech.popleft() if self._speech else SILENT * 160
            before = self._frames
            media = {"track": "inbound", "timestamp": str(before * 20), "payload": base64.b64encode(frame).decode()}
            self._frames += 1
            now = time.perf_counter()
            await self._send({"event": "media", "media": media})
            if frame[:1] == LOUD and len(self._speech) == SPEECH_FRAMES - 1:
                self._line.began.append(now - FRAME_S)
            if frame[:1] == LOUD and not self._speech:
                self._line.stopped.append(now)
                self._spoken.set()
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _listen(self) -> None:
        async for text in self._socket:
            now, message = time.perf_counter(), json.loads(text)
            match message["event"]:
                case "media":
                    self._take(now, len(base64.b64decode(message["media"]["payload"])) / 8_000)
                case "mark":
                    self._marks.append((message["mark"]["name"], self._played_until))
                    if self._line.swap and len(self._marks) == 2:
                        self._marks.reverse()
                case "clear":
                    self._clear(now)

    def _take(self, now: float, length_s: float) -> None:
        if self._played_until <= now:
            buffered_s = self._random.uniform(*self._line.buffer_s)
            self._played_until = now + buffered_s
            asyncio.get_running_loop().call_later(buffered_s, self._play)
        self._played_until += length_s
        self._sent_s += length_s

    def _play(self) -> None:
        self._playing_since = time.perf_counter()
        # Of each turn the first; what comes too late to go on without a gap is the same answer.
        if len(self._line.playing) < len(self._line.stopped):
            self._line.playing.append(self._playing_since)
        self._began.set()

    def _clear(self, now: float) -> None:
        self._line.cleared.append(now)
        self._line.heard_s.append(max(0.0, min(now, self._played_until) - self._playing_since))
        self._played_until = now
        self._marks = deque((name, now) for name, _ in self._marks)

    async def _return_marks(self) -> None:
        while True:
            while self._marks and self._marks[0][1] <= time.perf_counter():
                name, _ = self._marks.popleft()
                if not self._line.lose(name):
                    if self._line.back_s:
                        await asyncio.sleep(self._line.back_s)
                    await self._send({"event": "mark", "mark": {"name": name}})
                self._is_last |= name == f"last {self._turn + 1}"
                if self._is_last and not self._marks:
                    self._answered.set()
            due = self._marks[0][1] - time.perf_counter() if self._marks else 0.001
            await asyncio.sleep(min(0.001, max(0.0, due)))


TURNS = 6
THERE_S, BACK_S = 0.06, 0.03
"""How long audio takes to the caller, and a mark back."""


class AnsweringBot(Protocol):
    """A bot that says what it has done, so that the clock may move on."""

    sent: int

    async def has_handled(self, messages: int) -> None:
        """Wait until it is done with so many messages."""


Act = Callable[[], Awaitable[None]]


@dataclass
class ClockedCaller:
    """A caller by a script's clock.

    It speaks in frames of 20 ms, plays what comes `THERE_S` later and gives marks back after `BACK_S`.

    It moves the clock of both sides from one thing that it does to the next, each time after the bot has handled the
    last and what the bot sent has come. So how long the machine takes for a message does not matter.
    """

    client: websockets.ClientConnection
    bot: AnsweringBot
    clock: Clock
    spoke_ns: list[int] = field(default_factory=list)
    stopped_ns: list[int] = field(default_factory=list)
    played_ns: list[int] = field(default_factory=list)
    _agenda: list[tuple[int, int, Act]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _began_ns: int = 0
    _sent: int = 0
    _received: int = 0
    _sent_frames: int = 0
    _loud_frames: int = 0
    _turns: int = 0
    _was_loud: bool = False
    _waiting: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)
    _playing: dict[str, Any] | None = None

    async def call(self) -> None:
        """Take turns: each breaks into the answer of the last, half a second into it."""
        await self._send(CONNECTED)
        await self._send(start_message())
        self._began_ns = self.clock.now_ns
        self._loud_frames = 10
        self._after(0, self._frame)
        while self._turns < TURNS:
            await self._settle()
            due_ns, _, act = heapq.heappop(self._agenda)
            self.clock.now_ns = max(self.clock.now_ns, due_ns)
            await act()
        await self._settle()
        await self._send(STOP)

    async def _settle(self) -> None:
        """The bot has handled all, and what it sent is here."""
        await self.bot.has_handled(self._sent)
        while self._received < self.bot.sent:
            self._received += 1
            self._take(json.loads(await self.client.recv()))

    def _after(self, wait_ns: int, act: Act) -> None:
        heapq.heappush(self._agenda, (self.clock.now_ns + wait_ns, next(self._numbers), act))

    async def _send(self, message: dict[str, Any]) -> None:
        self._sent += 1
        await self.client.send(json.dumps(message))

    async def _take_turn(self) -> None:
        self._turns += 1
        self._loud_frames = 10

    async def _frame(self) -> None:
        is_loud, self._loud_frames = self._loud_frames > 0, max(0, self._loud_frames - 1)
        now_ns = self.clock.now_ns
        if is_loud and not self._was_loud:
            self.spoke_ns.append(now_ns)
        if is_loud and not self._loud_frames:
            self.stopped_ns.append(now_ns)
        self._was_loud = is_loud
        await self._send(frame_message(self._sent_frames, LOUD if is_loud else SILENT))
        self._sent_frames += 1
        # Each frame is sent a little late, and one in seven much too late.
        late_ms = self._sent_frames * 3 % 5 + (14 if self._sent_frames % 7 == 0 else 0)
        self._after(self._began_ns + (20 * self._sent_frames + late_ms) * MS - now_ns, self._frame)

    def _take(self, message: dict[str, Any]) -> None:
        """A message came from the bot."""
        if message["event"] == "clear":
            dropped = [message for _, message in self._waiting]
            self._waiting.clear()
            if self._playing is not None:
                dropped.insert(0, self._playing)
                self._playing = None
            for each in dropped:
                self._give_back(each)
        else:
            self._waiting.append((self.clock.now_ns + round(THERE_S * 1e9), message))
            self._play_the_next()

    def _play_the_next(self) -> None:
        if self._playing is None and self._waiting:
            due_ns, self._playing = self._waiting.popleft()
            self._after(max(0, due_ns - self.clock.now_ns), functools.partial(self._play, self._playing))

    async def _play(self, message: dict[str, Any]) -> None:
        if message is not self._playing:
            return
        length_ns = 0
        if message["event"] == "media":
            samples = len(base64.b64decode(message["media"]["payload"]))
            length_ns = samples * 125_000
            if samples == 160:
                self.played_ns.append(self.clock.now_ns)
                self._after(500 * MS, self._take_turn)
        self._after(length_ns, functools.partial(self._end, message))

    async def _end(self, message: dict[str, Any]) -> None:
        if message is self._playing:
            self._give_back(message)
            self._playing = None
            self._play_the_next()

    def _give_back(self, message: dict[str, Any]) -> None:
        if message["event"] == "mark":
            mark = {"event": "mark", "streamSid": "MZ1", "mark": message["mark"]}
            self._after(round(BACK_S * 1e9), functools.partial(self._send, mark))
