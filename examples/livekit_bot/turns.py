"""What LiveKit Agents knows of a turn, told to callbot_latency."""

import asyncio
import time
from typing import Any

from livekit.agents import AgentSession

from callbot_latency import call, turn
from callbot_latency.timeline import BargeIn


async def tell_turns(session: AgentSession[Any], bound: call, hangover_ms: float) -> None:
    """Open a turn wherever the caller stops speaking, until cancelled; to be run in a task of its own within `bound`.

    LiveKit's events come in several tasks, and a turn is opened and closed in one: hence the queue.
    """
    events: asyncio.Queue[Any] = asyncio.Queue()
    session.on("user_state_changed", events.put_nowait)
    session.on("agent_state_changed", events.put_nowait)
    event = await events.get()
    while True:
        while not _caller_stopped(event):
            event = await events.get()
        is_answered = False
        with turn() as current:
            current.speech_ended("vad_minus_hangover", hangover_ms=hangover_ms, uncertainty_ms=50)
            while not (is_answered and (_caller_stopped(event) or _agent_stopped(event, session))):
                event = await events.get()
                if _agent_started(event):
                    current.audio_sent()
                    is_answered = True
                elif _caller_stopped(event) and not is_answered:  # the caller went on after a pause
                    current.speech_ended("vad_minus_hangover", hangover_ms=hangover_ms, uncertainty_ms=50)
                elif _caller_started(event) and is_answered and bound.timeline is not None:
                    now_ns = time.perf_counter_ns()
                    bound.timeline.broken_into(now_ns)
                    bound.timeline.barge_in(BargeIn(now_ns))


def _caller_started(event: Any) -> bool:
    return bool(event.type == "user_state_changed" and event.new_state == "speaking")


def _caller_stopped(event: Any) -> bool:
    return bool(event.type == "user_state_changed" and event.old_state == "speaking")


def _agent_started(event: Any) -> bool:
    return bool(event.type == "agent_state_changed" and event.new_state == "speaking")


def _agent_stopped(event: Any, session: AgentSession[Any]) -> bool:
    return bool(
        event.type == "agent_state_changed" and event.old_state == "speaking" and session.user_state != "speaking"
    )
