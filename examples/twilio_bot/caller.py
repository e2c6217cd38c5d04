"""Twilio and a caller, played: ``python -m examples.twilio_bot.caller http://127.0.0.1:8080``.

Asks the webhook, connects to the stream that it names, and plays what the bot sends, 20 ms of it every 20 ms.
"""

import argparse
import asyncio
import json
import secrets
import time
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET  # nosec B405 # reads what our own bot wrote

import websockets

_SILENT: Final = b"\xff" * 160
_LOUD: Final = b"\x10" * 160
_WAY_S: Final = 0.05
"""What the bot sends takes so long to be played."""


class Caller:
    """One call. `stopped_ns` and `heard_ns` are the truth: when the caller stopped speaking, and first heard an answer.

    Args:
        socket: connected to the bot.
        call_sid: as the webhook was told.
        parameters: what the TwiML says.

    """

    def __init__(self, socket: websockets.ClientConnection, call_sid: str, parameters: dict[str, str]) -> None:
        self.stopped_ns: list[int] = []
        self.heard_ns: list[int] = []
        self.call_sid = call_sid
        self._socket, self._parameters = socket, parameters
        self._stream_sid = f"MZ{secrets.token_hex(16)}"
        self._frames_to_say, self._waits, self._last_sound_s = 0, True, 0.0
        self._buffer, self._marks = b"", list[tuple[str, int]]()

    async def run(self) -> None:
        """Hear the greeting, ask, break into the answer with another question, hear that answer, hang up."""
        start = {"streamSid": self._stream_sid, "callSid": self.call_sid, "customParameters": self._parameters}
        await self._send("connected", protocol="Call", version="1.0.0")
        await self._send("start", start=start)
        async with asyncio.TaskGroup() as tasks:
            line = [tasks.create_task(task()) for task in (self._line, self._receive)]
            await self._until(self._bot_is_silent)
            await self._ask()
            await asyncio.sleep(0.5)
            await self._ask()
            await self._until(self._bot_is_silent)
            for task in line:
                task.cancel()
        await self._send("stop", stop={"callSid": self.call_sid})

    async def _ask(self) -> None:
        self._frames_to_say = 40
        await self._until(lambda: not self._frames_to_say)
        self._waits = True
        await self._until(lambda: not self._waits)

    def _bot_is_silent(self) -> bool:
        return bool(self.heard_ns) and time.monotonic() - self._last_sound_s > 0.8

    @staticmethod
    async def _until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.01)

    async def _line(self) -> None:
        due_s = time.monotonic()
        while True:
            says, self._frames_to_say = self._frames_to_say, max(0, self._frames_to_say - 1)
            if says == 1:
                self.stopped_ns.append(time.perf_counter_ns())
            await self._send("media", media={"payload": b64encode(_LOUD if says else _SILENT).decode()})
            await self._play()
            due_s += 0.02
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _play(self) -> None:
        while self._marks and self._marks[0][1] <= 0:
            await self._send("mark", mark={"name": self._marks.pop(0)[0]})
        if self._buffer:
            self._last_sound_s = time.monotonic()
        if self._buffer and self._waits:
            self._waits = False
            self.heard_ns.append(time.perf_counter_ns())
        self._buffer, played = self._buffer[160:], len(self._buffer[:160])
        self._marks = [(name, before - played) for name, before in self._marks]

    async def _receive(self) -> None:
        async for text in self._socket:
            asyncio.get_running_loop().call_later(_WAY_S, self._take, json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        if message["event"] == "media":
            self._buffer += b64decode(message["media"]["payload"])
        elif message["event"] == "mark":
            self._marks.append((message["mark"]["name"], len(self._buffer)))
        elif message["event"] == "clear":
            self._buffer, self._marks = b"", [(name, 0) for name, _ in self._marks]

    async def _send(self, event: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"event": event, "streamSid": self._stream_sid, **fields}))


def _twiml(url: str, call_sid: str) -> tuple[str, dict[str, str]]:
    """Where the webhook wants the stream to go, and the parameters of it."""
    asked = f"CallSid={call_sid}".encode()
    with urllib.request.urlopen(f"{url}/twiml", asked, timeout=10) as answer:  # nosec B310 # the bot's own URL
        [stream] = ET.fromstring(answer.read()).iter("Stream")  # noqa: S314 # nosec B314 # our own bot wrote it
    return stream.attrib["url"], {each.attrib["name"]: each.attrib["value"] for each in stream.iter("Parameter")}


async def called(url: str) -> Caller:
    """Call the bot at `url`; returns the caller, who has hung up."""
    call_sid = f"CA{secrets.token_hex(16)}"
    stream_url, parameters = await asyncio.to_thread(_twiml, url, call_sid)
    # Twilio wants TLS, which a bot on this machine has not.
    async with websockets.connect(stream_url.replace("wss://", "ws://", 1)) as socket:
        caller = Caller(socket, call_sid, parameters)
        await caller.run()
    return caller


def main(arguments: Sequence[str] | None = None) -> None:
    """Make one call."""
    parser = argparse.ArgumentParser(prog="python -m examples.twilio_bot.caller", description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080", help="the bot's address")
    caller = asyncio.run(called(parser.parse_args(arguments).url))
    waited = zip(caller.stopped_ns, caller.heard_ns[1:], strict=True)
    print(f"{caller.call_sid} waited", ", ".join(f"{(heard - stopped) / 1e6:.0f} ms" for stopped, heard in waited))


if __name__ == "__main__":
    main()
