"""A bot whose engines take the time that a script sets, and note what they really took."""

import asyncio
import base64
import random
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from callbot_latency import Anchor, OperationType, call, measure_latency, turn
from callbot_latency.twilio import TwilioMediaStream, measured_websocket
from examples.callbot.servers import serving
from tests.support.twilio_caller import FRAME_S, HANGOVER_FRAMES, SPEECH_FRAMES, Line
from tests.support.twilio_script import LOUD, SILENT, payload

LEADING_SILENCE_MS = 5
FIRST_CHUNK_MS = 20


@dataclass
class Truth:
    """What one turn really did: seconds of `perf_counter`, noted by whoever did it."""

    stamps: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.stamps[name] = time.perf_counter()

    def ms(self, begin: str, end: str) -> float:
        return (self.stamps[end] - self.stamps[begin]) * 1000


class Engine:
    """Takes its time in a thread, so that it is over when it is, whatever the event loop does."""

    def __init__(self, name: str, least_ms: float = 2, most_ms: float = 10) -> None:
        self.name = name
        self._random = random.Random(name)
        self._least_ms, self._most_ms = least_ms, most_ms

    async def works(self, truth: Truth) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def set_over() -> None:
            if not over.done():
                over.set_result(None)

        def work() -> None:
            time.sleep(self._random.uniform(self._least_ms, self._most_ms) / 1000)
            truth.mark(f"{self.name} ends")
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(set_over)

        worker = threading.Thread(target=work, daemon=True)
        truth.mark(f"{self.name} begins")
        worker.start()
        await over


@dataclass
class Bot:
    """Answers each utterance of one call; `answers` may be replaced by what a test wants to see instead."""

    answer_ms: int = 60
    chunk_gap_s: float = 0.0
    busy: "Callable[[], Coroutine[Any, Any, None]] | None" = None
    truths: list[Truth] = field(default_factory=list)
    stream: TwilioMediaStream = field(default_factory=TwilioMediaStream)
    stt: Engine = field(default_factory=lambda: Engine("stt"))
    rag: Engine = field(default_factory=lambda: Engine("rag", 8, 15))
    crm: Engine = field(default_factory=lambda: Engine("crm", 1, 5))
    tts: Engine = field(default_factory=lambda: Engine("tts"))
    transcribes: "Callable[[Bot, Truth], Awaitable[None]] | None" = None
    asks: "Callable[[Bot, Truth], Awaitable[None]] | None" = None
    reported: list[float] = field(default_factory=list)
    noticed: list[float] = field(default_factory=list)
    _loud: int = 0
    _silent: int = 0
    _speaks: bool = False
    _saying: "asyncio.Task[None] | None" = None

    @measure_latency(OperationType.STT, provider="script")
    async def transcribe(self, truth: Truth) -> None:
        await (self.stt.works(truth) if self.transcribes is None else self.transcribes(self, truth))

    @measure_latency(OperationType.RAG, provider="script")
    async def ask(self, truth: Truth) -> None:
        await (self.rag.works(truth) if self.asks is None else self.asks(self, truth))

    @measure_latency(OperationType.SALESFORCE, provider="script")
    def look_up(self, truth: Truth) -> None:
        truth.mark("crm begins")
        time.sleep(0.003)
        truth.mark("crm ends")

    @measure_latency(OperationType.TTS, provider="script")
    async def speak(self, truth: Truth) -> AsyncIterator[int]:
        await self.tts.works(truth)
        yield FIRST_CHUNK_MS
        rest_ms = self.answer_ms - FIRST_CHUNK_MS
        if self.chunk_gap_s:
            yield rest_ms // 2
            await asyncio.sleep(self.chunk_gap_s)
            rest_ms -= rest_ms // 2
        yield rest_ms

    async def serve(self, socket: WebSocket) -> None:
        socket = measured_websocket(socket, self.stream)
        await socket.accept()
        said: asyncio.Queue[Truth] = asyncio.Queue()
        message: dict[str, Any] = {}
        while message.get("event") != "start":
            message = await socket.receive_json()
        async with call(message["start"]["callSid"], stream_sid=message["streamSid"]):
            tasks = [asyncio.create_task(self._talk(socket, said))]
            if self.busy is not None:
                tasks.append(asyncio.create_task(self.busy()))
            try:
                async for message in socket.iter_json():
                    if message["event"] == "media":
                        await self._hear(socket, message["media"]["payload"], said)
                    elif message["event"] == "stop":
                        break
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, socket: WebSocket, frame: str, said: "asyncio.Queue[Truth]") -> None:
        is_loud = frame == _LOUD_FRAME
        self._loud = self._loud + 1 if is_loud else 0
        self._silent = 0 if is_loud else self._silent + 1
        if self._loud == SPEECH_FRAMES and not self._speaks:
            self._speaks = True
            self.noticed.append(time.perf_counter())
            self.stream.speech_started(onset_delay_ms=SPEECH_FRAMES * 20)
            if self._saying is not None and self._saying.cancel():
                await socket.send_json({"event": "clear", "streamSid": self.stream.stream_sid})
        elif self._speaks and self._silent == HANGOVER_FRAMES:
            self._speaks = False
            truth = Truth()
            truth.mark("reported")
            self.stream.speech_ended(source=Anchor.TWILIO_MEDIA_CLOCK, hangover_ms=HANGOVER_FRAMES * FRAME_S * 1000)
            said.put_nowait(truth)

    async def _talk(self, socket: WebSocket, said: "asyncio.Queue[Truth]") -> None:
        while True:
            truth = await said.get()
            self.truths.append(truth)
            async with turn():
                await self.transcribe(truth)
                await asyncio.gather(self.ask(truth), asyncio.to_thread(self.look_up, truth))
                self._saying = asyncio.create_task(self._say(socket, truth))
                await asyncio.wait([self._saying])
                self._saying = None

    async def _say(self, socket: WebSocket, truth: Truth) -> None:
        number, left_ms = len(self.truths), self.answer_ms
        async for length_ms in self.speak(truth):
            is_first, left_ms = left_ms == self.answer_ms, left_ms - length_ms
            media = {"payload": _sound(length_ms, LEADING_SILENCE_MS if is_first else 0)}
            if is_first:
                truth.mark("sent")
            await socket.send_json({"event": "media", "streamSid": self.stream.stream_sid, "media": media})
            mark = {"name": f"{'first' if is_first else 'middle' if left_ms else 'last'} {number}"}
            await socket.send_json({"event": "mark", "streamSid": self.stream.stream_sid, "mark": mark})
        await asyncio.sleep(self.answer_ms / 1000)


_LOUD_FRAME = payload(LOUD, 20)


def _sound(length_ms: int, silent_ms: int) -> str:
    return base64.b64encode(SILENT * (8 * silent_ms) + LOUD * (8 * (length_ms - silent_ms))).decode()


class Machine:
    """Measures how late the machine wakes a thread of this process that wants to run: the control of each bound.

    A measured instant and the true one are noted by different threads. On a busy machine the later one is late, for
    reasons that no measurement can know. So each bound allows some of the lateness that this thread saw meanwhile.
    """

    GAP_S = 0.003
    BEAT_S = 0.001
    HOPS = 4
    """How many threads wait for each other between two instants: engine, bot, WebSocket, far side."""

    def __enter__(self) -> "Machine":
        self._held_up: list[tuple[float, float]] = []
        self._late_ms: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()
        return self

    def _beat(self) -> None:
        before = time.perf_counter()
        while not self._over.wait(self.BEAT_S):
            now = time.perf_counter()
            self._late_ms.append((now - before - self.BEAT_S) * 1000)
            if now - before > self.GAP_S:
                self._held_up.append((before, now))
            before = now

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def allows(self, least_ms: float, turns: int) -> float:
        """Return the bound in milliseconds of what is typical of so many turns.

        It is `least_ms`, the mean lateness of each hop, and four standard errors of that mean.
        """
        deviation_ms = statistics.pstdev(self._late_ms) * (self.HOPS / turns) ** 0.5
        return least_ms + self.HOPS * statistics.fmean(self._late_ms) + 4 * deviation_ms

    def allows_once(self, least_ms: float) -> float:
        """Return the bound of a single value in milliseconds: `least_ms`, and the worst lateness of each hop."""
        return least_ms + self.HOPS * max(self._late_ms)

    def ran_between(self, begin: float, end: float) -> bool:
        """Whether nothing was held up in that time."""
        return not any(begun < end and ended > begin for begun, ended in self._held_up)


def hold_up_the_loop(for_s: float) -> Callable[[], Coroutine[Any, Any, None]]:
    """A task that blocks the event loop for so long, again and again."""

    async def busy() -> None:
        pauses = random.Random(11)
        while True:
            await asyncio.sleep(pauses.uniform(0.001, for_s))
            time.sleep(for_s)  # noqa: ASYNC251 - that is what it is for

    return busy


@asynccontextmanager
async def answering(*bots: Bot) -> AsyncIterator[Sequence[str]]:
    """The bots' server; gives the address of each."""

    async def route(socket: WebSocket) -> None:
        with suppress(WebSocketDisconnect):
            await bots[socket.path_params["number"]].serve(socket)

    async with serving(Starlette(routes=[WebSocketRoute("/{number:int}", route)])) as address:
        yield [f"ws://{address}/{number}" for number in range(len(bots))]


async def answered(*calls: tuple[Bot, Line]) -> None:
    """Calls at the same time, each from its beginning to its end."""
    async with answering(*(bot for bot, _ in calls)) as urls:
        threads = [line.call(url) for url, (_, line) in zip(urls, calls, strict=True)]
        for thread in threads:
            await asyncio.to_thread(thread.join)
