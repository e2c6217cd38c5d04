"""A bot on Twilio Media Streams: ``uvicorn examples.twilio_bot.bot:app --port 8080``."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from xml.sax.saxutils import quoteattr  # nosec B406 # it writes, and parses nothing

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from callbot_latency import call, init, latency_tracker, shutdown, turn
from callbot_latency.twilio import TwilioMediaStream, call_sid_of, measured_websocket, stream_parameters

from .engines import HANGOVER_MS, ONSET_MS, SOUND_200_MS, Detector, ask, find_queue, speak, transcribe


async def twiml(request: Request) -> Response:
    """Twilio's webhook: a call comes in."""
    if (call_sid := call_sid_of(await request.body())) is None:
        return Response(status_code=400)
    with call(call_sid, joins=True):
        parameters = stream_parameters({"queue": await find_queue()})
    stream = f"<Stream url={quoteattr(f'wss://{request.url.netloc}/media')}>{parameters}</Stream>"
    return Response(f"<Response><Connect>{stream}</Connect></Response>", media_type="text/xml")


async def media(websocket: WebSocket) -> None:
    """Twilio's Media Stream: one call."""
    websocket = measured_websocket(websocket, stream := TwilioMediaStream())
    await websocket.accept()
    async for message in (messages := websocket.iter_json()):
        if message["event"] == "start":
            sid, queue = message["start"]["callSid"], stream.custom_parameters.get("queue", "")
            async with call(sid, stream_sid=stream.stream_sid, metadata={"queue": queue}):
                await Conversation(websocket, stream).run(messages)
            show(sid)


class Conversation:
    """What is heard and said in one call."""

    def __init__(self, websocket: WebSocket, stream: TwilioMediaStream) -> None:
        self.websocket, self.stream, self.detector, self.played = websocket, stream, Detector(), asyncio.Event()

    async def run(self, messages: AsyncIterator[Any]) -> None:
        async with asyncio.TaskGroup() as self.tasks:
            self.saying = self.tasks.create_task(self.say("Hello, how can I help?"))
            async for message in messages:
                if message["event"] == "media":
                    await self.hear(b64decode(message["media"]["payload"]))
                elif message["event"] == "mark" and message["mark"]["name"] == "last":
                    self.played.set()
                elif message["event"] == "stop":
                    break
            self.saying.cancel()

    async def hear(self, frame: bytes) -> None:
        noticed = self.detector.feed(frame)
        if noticed == "started":
            self.stream.speech_started(onset_delay_ms=ONSET_MS)
            self.saying.cancel()
            await self.send("clear")
        elif noticed == "ended":
            self.stream.speech_ended(source="vad_minus_hangover", hangover_ms=HANGOVER_MS)
            self.saying = self.tasks.create_task(self.take_turn(self.detector.speech))

    async def take_turn(self, speech: bytes) -> None:
        async with turn():
            filler = self.tasks.create_task(self.fill())
            try:
                answer = await ask(await transcribe(speech))
            finally:
                filler.cancel()
            await self.say(answer)

    async def fill(self) -> None:
        await asyncio.sleep(0.4)
        with self.stream.filler():
            await self.play(SOUND_200_MS, mark="filler")

    async def say(self, text: str) -> None:
        self.played.clear()
        async with aclosing(speak(text)) as chunks:
            await self.play(await anext(chunks), mark="first")
            async for chunk in chunks:
                await self.play(chunk)
        await self.send("mark", mark={"name": "last"})
        await self.played.wait()

    async def play(self, chunk: bytes, mark: str | None = None) -> None:
        await self.send("media", media={"payload": b64encode(chunk).decode()})
        if mark is not None:
            await self.send("mark", mark={"name": mark})

    async def send(self, event: str, **fields: Any) -> None:
        await self.websocket.send_json({"event": event, "streamSid": self.stream.stream_sid, **fields})


def show(call_sid: str) -> None:
    """What the caller waited, and for what."""
    for told in latency_tracker.get_turns(call_sid):
        waited = "unknown" if told.response_ms is None else f"{told.response_ms:.0f} ms"
        parts = " + ".join(f"{part} {ms:.0f}" for part, ms in told.parts_ms.items())
        print(f"turn {told.turn}, {told.outcome}: {waited} = {parts}", flush=True)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Measuring begins and ends with the server."""
    init()
    yield
    await asyncio.to_thread(shutdown)


app = Starlette(routes=[Route("/twiml", twiml, methods=["POST"]), WebSocketRoute("/media", media)], lifespan=lifespan)
