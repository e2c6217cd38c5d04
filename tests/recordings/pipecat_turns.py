"""Lets the tutorial's bot on the real pipecat answer a call, and writes down what its turns were made of.

``python -m pipecat_turns > pipecat-1.14.0-turns.json`` in an environment of its own with pipecat-ai[websocket], uvicorn
and websockets installed, and this folder and the repository on PYTHONPATH.
"""

import asyncio
import json
import os
import sys
import time
from base64 import b64decode
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

os.environ |= {"LATENCY_FILE_LOGGING_ENABLED": "false", "LOGURU_LEVEL": "WARNING"}

from pipecat.frames.frames import Frame  # type: ignore[import-not-found]  # noqa: E402

from callbot_latency import init, latency_tracker, shutdown  # noqa: E402
from callbot_latency.twilio import TwilioMediaStream  # noqa: E402
from examples.callbot.servers import serving  # noqa: E402
from examples.pipecat_bot import bot, turns  # noqa: E402
from examples.twilio_bot.caller import called  # noqa: E402

OUTPUT, sys.stdout = sys.stdout, sys.stderr  # the bot prints
FIELDS = ("start_secs", "stop_secs")
told: list[list[Any]] = []


def note(kind: str, what: dict[str, Any]) -> None:
    told.append([time.perf_counter_ns(), kind, what])


class Noted(TwilioMediaStream):
    def on_message(self, received: Any) -> None:
        message = json.loads(received) if isinstance(received, str) else received
        if message["event"] != "media":
            note("received", message)
        super().on_message(received)

    def on_send(self, sent: Any) -> None:
        message = json.loads(sent)
        if message["event"] == "media":
            audio = b64decode(message["media"]["payload"])
            note("sent", {"event": "media", "sample": audio[len(audio) // 2], "samples": len(audio)})
        else:
            note("sent", message)
        super().on_send(sent)


class NotedObserver(turns.TurnObserver):
    async def on_push_frame(self, data: Any) -> None:
        frame: Frame = data.frame
        name = type(frame).__name__
        if name.startswith(("VAD", "Bot", "End", "Cancel")) and name != "BotSpeakingFrame":
            fields = {field: getattr(frame, field) for field in FIELDS if hasattr(frame, field)}
            note("frame", {"name": name, "direction": data.direction.name, **fields})
        await super().on_push_frame(data)


async def main() -> None:
    bot.TwilioMediaStream, bot.TurnObserver = Noted, NotedObserver
    init()
    async with serving(bot.app) as address:
        caller = await called(f"http://{address}")
    waited_ms = [(heard - stopped) / 1e6 for stopped, heard in zip(caller.stopped_ns, caller.heard_ns[1:], strict=True)]
    written = {
        "with": f"pipecat-ai {version('pipecat-ai')}",
        "on": f"{datetime.now(UTC):%Y-%m-%d}",
        "waited_ms": waited_ms,
        "turns": [each.to_dict() for each in latency_tracker.get_turns(caller.call_sid)],
        "operations": [m.to_dict() for m in latency_tracker.metrics if m.call_sid == caller.call_sid],
        "told": told,
    }
    shutdown()
    OUTPUT.write(json.dumps(written, separators=(",", ":")) + "\n")


asyncio.run(main())
