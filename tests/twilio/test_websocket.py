"""A whole call over a real WebSocket: what the stream tells, against the instants that the far side took down."""

import asyncio
import base64
import contextlib
import functools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from callbot_latency.twilio import TwilioMediaStream, measured_websocket
from examples.callbot.servers import serving
from tests.support.clock import Clock
from tests.support.twilio_caller import BACK_S, TURNS, ClockedCaller
from tests.support.twilio_script import (
    CONNECTED,
    LOUD,
    MS,
    SILENT,
    STOP,
    Remembered,
    frame_message,
    payload,
    start_message,
)

HANGOVER_FRAMES = 5

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
        async with websockets.connect(
            f"ws://{address}/", open_timeout=60, close_timeout=60, ping_interval=None
        ) as client:
            yield client
        async with asyncio.timeout(60):
            await ended.wait()


class Bot:
    """Answers each utterance with a second of sound; falls silent when the caller breaks in."""

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.timeline = Remembered()
        self.stream = TwilioMediaStream(self.timeline, clock=clock)
        self.noted: dict[str, list[int]] = defaultdict(list)
        """When it was done with what has this name, by a look of its own at the clock."""
        self.sent = 0
        self._clock = clock
        self._handled = 0
        self._has_handled = asyncio.Condition()
        self._speaks = False
        self._silent_frames = 0
        self._turns = 0

    async def answer(self, socket: WebSocket) -> None:
        socket = measured_websocket(socket, self.stream)
        await socket.accept()
        async for message in socket.iter_json():
            if message["event"] == "media":
                await self._hear(socket, base64.b64decode(message["media"]["payload"]))
            self._note(message["event"])
            async with self._has_handled:
                self._handled += 1
                self._has_handled.notify_all()

    async def has_handled(self, messages: int) -> None:
        """Wait until it is done with so many messages."""
        async with self._has_handled:
            await self._has_handled.wait_for(lambda: self._handled >= messages)

    def _note(self, name: str) -> None:
        self.noted[name].append(self._clock())

    async def _hear(self, socket: WebSocket, frame: bytes) -> None:
        is_loud = frame[:1] == LOUD
        self._silent_frames = 0 if is_loud else self._silent_frames + 1
        if is_loud and not self._speaks:
            self._speaks = True
            self.stream.speech_started()
            self._note("speech_started")
            if self._turns:
                self.sent += 1
                await socket.send_json({"event": "clear", "streamSid": "MZ1"})
        elif self._speaks and self._silent_frames == HANGOVER_FRAMES:
            self._speaks = False
            self.stream.speech_ended(source="vad_minus_hangover", hangover_ms=20 * HANGOVER_FRAMES)
            self._note("speech_ended")
            self._turns += 1
            await self._speak(socket)

    async def _speak(self, socket: WebSocket) -> None:
        for length_ms, mark in ((20, "first"), (980, "last")):
            media = {"payload": payload(LOUD, length_ms)}
            self.sent += 2
            await socket.send_json({"event": "media", "streamSid": "MZ1", "media": media})
            name = f"{self._turns} {mark}"
            await socket.send_text(json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}))


@awaited
async def test_a_call_is_told_as_it_was() -> None:
    """End of speech, playback, barge-in, hang-up: near the far side's own stamps, and inside of the uncertainty."""
    clock = Clock()
    bot = Bot(clock)
    async with connected(bot.answer) as client:
        far = ClockedCaller(client, bot, clock)
        async with asyncio.timeout(60):
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


@awaited
async def test_a_turn_by_the_machines_clock_is_told_between_what_both_sides_noted() -> None:
    """Nothing before the far side sent what it is derived from, nothing after the bot had handled that."""
    bot, sent_ns = Bot(), []
    async with connected(bot.answer) as client, asyncio.timeout(60):
        messages = [CONNECTED, start_message()]
        messages += [frame_message(n, LOUD if 3 <= n < 8 else SILENT) for n in range(8 + HANGOVER_FRAMES)]
        for n, message in enumerate(messages):
            sent_ns.append(time.perf_counter_ns())
            await client.send(json.dumps(message))
            await bot.has_handled(n + 1)
            await asyncio.sleep(0.02)
        assert json.loads(await client.recv())["event"] == "media"
        came_ns = time.perf_counter_ns()
        mark = json.loads(await client.recv())
        await asyncio.sleep(BACK_S)
        await client.send(json.dumps(mark))
        await bot.has_handled(len(messages) + 1)
        stopped_ns = time.perf_counter_ns()
        await client.send(json.dumps(STOP))
        await bot.has_handled(len(messages) + 2)
    told, frames_ns = bot.timeline, sent_ns[2:]
    assert told.reasons == []

    # A frame that was sent late is placed where it would have come.
    onset_ns = min(at_ns - 20 * n * MS for n, at_ns in enumerate(frames_ns[:4])) + 60 * MS
    _is_between(onset_ns, told.times("speech_started"), bot.noted["speech_started"][0])
    hangover_ns = 20 * HANGOVER_FRAMES * MS
    _is_between(frames_ns[-1] - hangover_ns, told.times("speech_ended"), bot.noted["speech_ended"][0] - hangover_ns)
    _is_between(bot.noted["speech_ended"][0], told.times("audio_sent"), came_ns)
    _is_between(round(told.times("audio_sent")[0] * MS), told.times("playback_started"), bot.noted["mark"][0])
    _is_between(stopped_ns, told.times("hung_up"), bot.noted["stop"][0])


def _is_between(earliest_ns: int, told_ms: list[float], latest_ns: int) -> None:
    (at_ms,) = told_ms
    # Milliseconds are kept as floats: to the microsecond they are exact.
    assert earliest_ns / MS - 0.001 <= at_ms <= latest_ns / MS + 0.001


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
