"""A whole call over a real WebSocket: what the stream tells, against the instants that the far side took down."""

import asyncio
import base64
import contextlib
import functools
import json
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from callbot_latency.twilio import TwilioMediaStream, measured_websocket
from examples.callbot.servers import serving
from tests.twilio_script import LOUD, MS, SILENT, Remembered, payload, start_message

HANGOVER_FRAMES = 5
TURNS = 6
THERE_S, BACK_S = 0.06, 0.03

Handler = Callable[[WebSocket], Awaitable[None]]


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in an event loop of its own."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        asyncio.run(test(**arguments))

    return run


@contextlib.asynccontextmanager
async def connected(handler: Handler) -> AsyncGenerator[websockets.ClientConnection, None]:
    """A WebSocket to a server whose handler is this one; the handler's own end is awaited."""
    ended = asyncio.Event()

    async def route(socket: WebSocket) -> None:
        try:
            await handler(socket)
        finally:
            ended.set()

    async with serving(Starlette(routes=[WebSocketRoute("/", route)])) as address:
        async with websockets.connect(f"ws://{address}/") as client:
            yield client
        async with asyncio.timeout(10):
            await ended.wait()


class Bot:
    """Answers each utterance with a second of sound; falls silent when the caller breaks in."""

    def __init__(self) -> None:
        self.timeline = Remembered()
        self.stream = TwilioMediaStream(self.timeline)
        self._speaks = False
        self._silent_frames = 0
        self._turns = 0

    async def answer(self, socket: WebSocket) -> None:
        socket = measured_websocket(socket, self.stream)
        await socket.accept()
        async for message in socket.iter_json():
            if message["event"] == "media":
                await self._hear(socket, base64.b64decode(message["media"]["payload"]))

    async def _hear(self, socket: WebSocket, frame: bytes) -> None:
        is_loud = frame[:1] == LOUD
        self._silent_frames = 0 if is_loud else self._silent_frames + 1
        if is_loud and not self._speaks:
            self._speaks = True
            self.stream.speech_started()
            if self._turns:
                await socket.send_json({"event": "clear", "streamSid": "MZ1"})
        elif self._speaks and self._silent_frames == HANGOVER_FRAMES:
            self._speaks = False
            self.stream.speech_ended(source="vad_minus_hangover", hangover_ms=20 * HANGOVER_FRAMES)
            self._turns += 1
            await self._speak(socket)

    async def _speak(self, socket: WebSocket) -> None:
        for length_ms, mark in ((20, "first"), (980, "last")):
            media = {"payload": payload(LOUD, length_ms)}
            await socket.send_json({"event": "media", "streamSid": "MZ1", "media": media})
            name = f"{self._turns} {mark}"
            await socket.send_text(json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}))


@dataclass
class Twilio:
    """The far side: speaks in frames of 20 ms, plays what comes `THERE_S` later, gives marks back after `BACK_S`."""

    client: websockets.ClientConnection
    spoke_ns: list[int] = field(default_factory=list)
    stopped_ns: list[int] = field(default_factory=list)
    played_ns: list[int] = field(default_factory=list)
    _sent_frames: int = 0
    _loud_frames: int = 0
    _waiting: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    _returning: list[asyncio.Task[None]] = field(default_factory=list)
    _is_playing: bool = False
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    _cleared: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self) -> None:
        """Take turns: each breaks into the answer of the last, half a second into it."""
        await self.client.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await self.client.send(json.dumps(start_message()))
        tasks = [asyncio.create_task(step()) for step in (self._line, self._receive, self._play)]
        try:
            for _ in range(TURNS):
                self._loud_frames = 10
                async with asyncio.timeout(20):
                    await self._answered.wait()
                self._answered.clear()
                await asyncio.sleep(0.5)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *self._returning, return_exceptions=True)
        await self.client.send(json.dumps({"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}}))

    async def _line(self) -> None:
        began = asyncio.get_running_loop().time()
        was_loud = False
        while True:
            is_loud, self._loud_frames = self._loud_frames > 0, max(0, self._loud_frames - 1)
            media = {
                "track": "inbound",
                "timestamp": str(20 * self._sent_frames),
                "payload": payload(LOUD if is_loud else SILENT, 20),
            }
            now_ns = time.perf_counter_ns()
            if is_loud and not was_loud:
                self.spoke_ns.append(now_ns)
            if is_loud and not self._loud_frames:
                self.stopped_ns.append(now_ns)
            was_loud = is_loud
            await self.client.send(json.dumps({"event": "media", "streamSid": "MZ1", "media": media}))
            self._sent_frames += 1
            await asyncio.sleep(max(0, began + 0.02 * self._sent_frames - asyncio.get_running_loop().time()))

    async def _receive(self) -> None:
        async for text in self.client:
            message = json.loads(text)
            if message["event"] != "clear":
                self._waiting.put_nowait({**message, "due_ns": time.perf_counter_ns() + round(THERE_S * 1e9)})
                continue
            while not self._waiting.empty():
                self._give_back(self._waiting.get_nowait())
            if self._is_playing:
                self._cleared.set()

    async def _play(self) -> None:
        while True:
            self._is_playing = False
            message = await self._waiting.get()
            self._is_playing = True
            if await self._until(message["due_ns"]) and message["event"] == "media":
                samples = len(base64.b64decode(message["media"]["payload"]))
                now_ns = time.perf_counter_ns()
                if samples == 160:
                    self.played_ns.append(now_ns)
                    self._answered.set()
                await self._until(now_ns + samples * 125_000)
            self._give_back(message)

    async def _until(self, due_ns: int) -> bool:
        """Until then: true; or until all is cleared: false."""
        try:
            async with asyncio.timeout(max(0, (due_ns - time.perf_counter_ns()) / 1e9)):
                await self._cleared.wait()
        except TimeoutError:
            return True
        self._cleared.clear()
        return False

    def _give_back(self, message: dict[str, Any]) -> None:
        if message["event"] == "mark":
            self._returning.append(asyncio.create_task(self._return(message["mark"])))

    async def _return(self, mark: dict[str, Any]) -> None:
        await asyncio.sleep(BACK_S)
        await self.client.send(json.dumps({"event": "mark", "streamSid": "MZ1", "mark": mark}))


@awaited
async def test_a_call_is_told_as_it_was() -> None:
    """End of speech, playback, barge-in, hang-up: near the far side's own stamps, and inside of the uncertainty."""
    bot = Bot()
    async with connected(bot.answer) as client:
        far = Twilio(client)
        await far.call()
    told = bot.timeline
    assert told.reasons == []
    assert (bot.stream.call_sid, bot.stream.stream_sid) == ("CA1", "MZ1")
    assert len(told.times("hung_up")) == 1

    starts, ends = told.times("speech_started"), told.times("speech_ended")
    assert len(starts) == len(ends) == TURNS
    assert _median_gap(starts, far.spoke_ns) < 10
    assert _median_gap(ends, far.stopped_ns) < 10

    sent, started = told.times("audio_sent"), told.times("playback_started")
    assert len(sent) == len(started) == TURNS
    uncertain = [more["uncertainty_ms"] for name, _, more in told.told if name == "playback_started"]
    for truth_ns, before_ms, told_ms, off_ms in zip(far.played_ns, sent, started, uncertain, strict=True):
        assert before_ms <= truth_ns / MS <= told_ms
        assert told_ms - off_ms <= truth_ns / MS
    back_ms = statistics.median(told_ms - ns / MS for told_ms, ns in zip(started, far.played_ns, strict=True))
    assert BACK_S * 1_000 <= back_ms < BACK_S * 1_000 + 15

    assert len(told.barge_ins) == TURNS - 1
    for barge_in, spoke_ns in zip(told.barge_ins, far.spoke_ns[1:], strict=True):
        assert not barge_in.is_false
        # A frame that this line sent late is placed where it would have come.
        assert barge_in.at_ns >= spoke_ns - 20 * MS
        assert barge_in.reaction_ms is not None
        assert barge_in.silenced_ms is not None
        assert barge_in.silenced_ms >= BACK_S * 1_000
        assert barge_in.heard_share is not None
        assert 0.4 < barge_in.heard_share < 0.95
    onsets_ms = [barge_in.at_ns / MS for barge_in in told.barge_ins]
    assert _median_gap(onsets_ms, far.spoke_ns[1:]) < 5
    assert statistics.median(barge_in.reaction_ms or 0 for barge_in in told.barge_ins) < 20


def _median_gap(told_ms: list[float], truth_ns: list[int]) -> float:
    return statistics.median(abs(ms - ns / MS) for ms, ns in zip(told_ms, truth_ns, strict=True))


@awaited
async def test_messages_pass_through_unchanged() -> None:
    """In every form that Starlette has, in both directions, and the stream heard each of them."""
    stream = TwilioMediaStream()
    start, seen = json.dumps(start_message()), []

    async def handler(plain: WebSocket) -> None:
        socket = measured_websocket(plain, stream)
        await socket.accept()
        seen.append(await socket.receive_text())
        seen.append(await socket.receive_json())
        seen.append(await socket.receive_bytes())
        seen.append((await socket.receive())["text"])
        await socket.send_text("text")
        await socket.send_json({"json": 1})
        await socket.send_bytes(b"bytes")
        await socket.send({"type": "websocket.send", "text": "raw"})
        assert socket.client == plain.client
        await socket.close(1000)

    async with connected(handler) as client:
        for message in (start, "[1]", b"\x00\xff", "raw"):
            await client.send(message)
        assert [message async for message in client] == ["text", '{"json":1}', b"bytes", "raw"]
    assert seen == [start, [1], b"\x00\xff", "raw"]
    assert stream.call_sid == "CA1"


@pytest.mark.parametrize("how", ["receive_text", "receive_json", "receive_bytes", "receive", "iter_text", "iter_bytes"])
@awaited
async def test_a_far_side_that_goes_away_hangs_up(how: str) -> None:
    """And the application sees what it would see without us."""
    timeline, raised = Remembered(), []
    stream = TwilioMediaStream(timeline)

    async def handler(socket: WebSocket) -> None:
        socket = measured_websocket(socket, stream)
        await socket.accept()
        try:
            if how.startswith("iter"):
                assert [message async for message in getattr(socket, how)()] == []
            elif how == "receive":
                assert (await socket.receive())["type"] == "websocket.disconnect"
            else:
                await getattr(socket, how)()
        except WebSocketDisconnect as error:
            raised.append(error)

    async with connected(handler):
        pass
    assert len(timeline.times("hung_up")) == 1
    assert len(raised) == how.startswith("receive_")


@awaited
async def test_what_is_no_json_raises_as_without_us() -> None:
    """The application's error is not swallowed, and the call goes on."""
    stream, raised = TwilioMediaStream(Remembered()), []

    async def handler(socket: WebSocket) -> None:
        socket = measured_websocket(socket, stream)
        await socket.accept()
        for receive in (socket.receive_json, anext(socket.iter_json())):
            try:
                await (receive if not callable(receive) else receive())
            except ValueError as error:
                raised.append(error)
        await socket.receive_json()

    async with connected(handler) as client:
        for message in ("no", "no", json.dumps(start_message())):
            await client.send(message)
    assert len(raised) == 2
    assert stream.call_sid == "CA1"
