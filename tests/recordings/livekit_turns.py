"""Lets the tutorial's bot on the real LiveKit Agents answer a caller, and writes down what its turns were made of.

``python -m livekit_turns > livekit-agents-1.8.9-turns.json`` in an environment of its own with livekit-agents
installed, and this folder and the repository on PYTHONPATH.
"""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

os.environ["LATENCY_FILE_LOGGING_ENABLED"] = "false"

from callbot_latency import init, latency_tracker, shutdown  # noqa: E402
from examples.livekit_bot import bot  # noqa: E402

OUTPUT, sys.stdout = sys.stdout, sys.stderr  # the bot prints
SID = "CA" + "0123456789abcdef" * 2
told: list[list[Any]] = []
new_session = bot.new_session


def noted_session() -> Any:
    session = new_session()

    def note(event: Any) -> None:
        what = {"type": event.type, "old_state": event.old_state, "new_state": event.new_state}
        told.append([time.perf_counter_ns(), "event", {**what, "user_state": session.user_state}])

    session.on("user_state_changed", note)
    session.on("agent_state_changed", note)
    return session


bot.new_session = noted_session
init()
waited_ms = asyncio.run(bot.scripted(SID))
written = {
    "with": f"livekit-agents {version('livekit-agents')}",
    "on": f"{datetime.now(UTC):%Y-%m-%d}",
    "waited_ms": waited_ms,
    "turns": [each.to_dict() for each in latency_tracker.get_turns(SID)],
    "operations": [metric.to_dict() for metric in latency_tracker.metrics],
    "told": told,
}
shutdown()
OUTPUT.write(json.dumps(written, separators=(",", ":")) + "\n")
