"""The bot: answers a call over Twilio's Media Streams.

What callbot_latency needs here: the WebSocket is read along by a `TwilioMediaStream`, ``call()`` and ``turn()`` say
what belongs together, and the end-pointer's findings are told to the stream. The operations of a call are measured
where they are written: speech.py, knowledge.py, salesforce.py, voice.py.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceError
from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from callbot_latency import Anchor, call, turn
from callbot_latency.twilio import TwilioMediaStream, measured_websocket

from .knowledge import Inference, KnowledgeClient
from .playback import Playback
from .salesforce import CustomerRecords
from .slow import Slow
from .speech import Endpointer, GrammarRecognizer, Heard, HybridRecognizer, SphinxRecognizer
from .voice import Voice

_log = logging.getLogger(__name__)

NOT_UNDERSTOOD: Final = "Sorry, I did not understand. Please say it in other words."
ONE_MOMENT: Final = "One moment please, I am looking it up."
NOT_AVAILABLE: Final = "Sorry, I cannot look that up right now."


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was said in a call; `speaker` is ``caller`` (as the bot heard it) or ``bot``."""

    call_sid: str
    trace_id: str | None
    speaker: str
    text: str
    at: float = field(default_factory=time.time)


OnLine = Callable[[Line], None]


@dataclass(slots=True)
class Services:
    """What all calls share."""

    knowledge: KnowledgeClient
    salesforce: Salesforce
    sentences: list[str]
    second_recognizer: SphinxRecognizer
    on_line: OnLine
    slow: Slow = field(default_factory=Slow)


class Conversation:
    """One call, from the message ``start`` to its end."""

    def __init__(
        self,
        socket: WebSocket,
        stream: TwilioMediaStream,
        start: dict[str, Any],
        services: Services,
        trace_id: str | None,
    ) -> None:
        self._socket = socket
        self._stream = stream
        self._services = services
        self._trace_id = trace_id
        self._call_sid: str = start["callSid"]
        self._phone = str(start.get("customParameters", {}).get("from", ""))
        self._playback = Playback(start["streamSid"], socket.send_json, stream)
        self._voice = Voice(slow_s=services.slow.tts)
        self._endpointer = Endpointer()
        self._utterances: asyncio.Queue[None] = asyncio.Queue(maxsize=1)
        self._saying: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._records = CustomerRecords(
            services.salesforce,
            self._call_sid,
            on_hang=lambda: self._loop.call_soon_threadsafe(self._ask_for_patience),
        )
        # There while the caller waits for Salesforce: what is said meanwhile belongs to it.
        self._meanwhile: asyncio.TaskGroup | None = None
        self._contact: dict[str, Any] | None = None
        self._lines: list[str] = []

    async def run(self) -> None:
        """Listen and talk, until one of the two ends: the caller hangs up, or says goodbye."""
        first = await asyncio.to_thread(GrammarRecognizer, self._services.sentences)
        self._recognizer = HybridRecognizer(first, self._services.second_recognizer, self._services.slow.stt)
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._talk())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._recognizer.close()
        for result in ended:
            if isinstance(result, Exception) and not self._is_hang_up(result):
                raise result
        await self._note_call()

    def _is_hang_up(self, error: Exception) -> bool:
        """Whether the caller hung up while the bot was speaking: then Starlette refuses to receive, too."""
        is_closed = self._socket.application_state is WebSocketState.DISCONNECTED
        return isinstance(error, WebSocketDisconnect) or (isinstance(error, RuntimeError) and is_closed)

    # -- listening ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        with suppress(WebSocketDisconnect):
            async for message in self._socket.iter_json():
                match message["event"]:
                    case "media":
                        await self._hear(base64.b64decode(message["media"]["payload"]))
                    case "mark":
                        await self._playback.acknowledge(message["mark"]["name"])
                    case "stop":
                        return

    async def _hear(self, frame: bytes) -> None:
        noticed = self._endpointer.feed(frame)
        if noticed is Heard.SPEECH_STARTED:
            self._stream.speech_started(onset_delay_ms=self._endpointer.settings.starts_after_ms)
            await self._interrupt()
            self._recognizer.begin()
            self._recognizer.feed(self._endpointer.before)
        elif noticed is Heard.SPEECH_ENDED:
            self._stream.speech_ended(
                source=Anchor.TWILIO_MEDIA_CLOCK, hangover_ms=self._endpointer.settings.ends_after_ms
            )
            # While an answer is looked up the caller may speak again: what was said last counts.
            if self._utterances.empty():
                self._utterances.put_nowait(None)
        elif self._endpointer.speaking:
            self._recognizer.feed(frame)

    async def _interrupt(self) -> None:
        """The caller speaks while the bot does: be silent at once."""
        if self._saying is not None and self._saying.cancel():
            await self._playback.clear()

    # -- talking --------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        self._contact = await self._looked_up(self._records.find_contact, self._phone)
        name = f" {self._contact['FirstName']}" if self._contact else ""
        await self._say(f"Hello{name}. How can I help you?")
        is_over = False
        while not is_over:
            await self._utterances.get()
            async with turn():
                is_over = await self._take_turn()

    async def _take_turn(self) -> bool:
        """Answer what the caller has said; whether that was a goodbye."""
        heard = await self._recognizer.transcribe()
        self._note("caller", heard)
        try:
            found = await self._services.knowledge.infer(heard) if heard else None
        except httpx.HTTPError as error:
            _log.warning("The RAG API did not answer: %r", error)
            await self._say(NOT_AVAILABLE)
            return False
        await self._say(await self._answer(found))
        return found is not None and found.action == "goodbye"

    async def _answer(self, found: Inference | None) -> str:
        if found is None:
            return NOT_UNDERSTOOD
        if found.action != "order_status":
            return found.answer
        order = await self._looked_up(self._records.find_order, self._contact["Id"]) if self._contact else None
        return found.answer.format(number=order["OrderNumber"], status=order["Status"]) if order else NOT_AVAILABLE

    async def _say(self, text: str, *, is_answer: bool = True) -> None:
        """Speak, until all of it was heard or the caller breaks in."""
        self._note("bot", text)
        speech = self._voice.synthesize_stream(text)
        self._saying = asyncio.create_task(self._playback.play(speech, is_answer=is_answer))
        try:
            # Not awaited itself: that would raise here when the caller breaks in.
            await asyncio.wait([self._saying])
            if not self._saying.cancelled():
                self._saying.result()
        finally:
            self._saying.cancel()
            await asyncio.gather(self._saying, return_exceptions=True)
            self._saying = None

    # -- what is known of the caller ------------------------------------------------------------------------------

    async def _looked_up(self, method: Callable[..., Any], *args: Any) -> Any:
        """What Salesforce knows. The caller waits for it, so that where it hangs the bot says something meanwhile."""
        try:
            async with asyncio.TaskGroup() as self._meanwhile:
                return await self._salesforce(method, *args)
        finally:
            self._meanwhile = None

    def _ask_for_patience(self) -> None:
        if self._meanwhile is not None:
            self._meanwhile.create_task(self._say(ONE_MOMENT, is_answer=False))

    async def _salesforce(self, method: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking method in a thread, which asyncio.to_thread gives this call's binding; None where it fails."""
        try:
            return await asyncio.to_thread(method, *args)
        except (SalesforceError, OSError) as error:
            _log.warning("Salesforce: %s failed: %s", method.__name__, error)
            return None

    async def _note_call(self) -> None:
        if self._contact and self._lines:
            await self._salesforce(self._records.create_task, self._contact["Id"], "\n".join(self._lines))

    def _note(self, speaker: str, text: str) -> None:
        self._lines.append(f"{speaker}: {text}")
        self._services.on_line(Line(self._call_sid, self._trace_id, speaker, text))


def media_stream_route(services: Services) -> BaseRoute:
    """The WebSocket that Twilio's ``<Stream>`` connects to."""

    async def media_stream(socket: WebSocket) -> None:
        socket = measured_websocket(socket, stream := TwilioMediaStream())
        await socket.accept()
        try:
            start = await _started(socket)
            if start is not None:
                async with call(start["callSid"], stream_sid=start["streamSid"]) as bound:
                    await Conversation(socket, stream, start, services, bound.trace_id).run()
        finally:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close()

    return WebSocketRoute("/media", media_stream)


async def _started(socket: WebSocket) -> dict[str, Any] | None:
    with suppress(WebSocketDisconnect):
        async for message in socket.iter_json():
            if message["event"] == "start":
                started: dict[str, Any] = message["start"]
                return started
    return None


def bot_app(services: Services) -> Starlette:
    """The bot's server."""
    return Starlette(routes=[media_stream_route(services)])
