"""A bot's weeks in minutes: calls as asyncio tasks, each of several turns, and what they leave behind."""

import asyncio
import gc
import os
import sys
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import callbot_latency as cl
from callbot_latency.base.drop_counters import dropped
from callbot_latency.reporters.rotation import backups_of
from callbot_latency.runtime import lifecycle as runtime

CALLS_AT_ONCE = 50
TURNS_A_CALL = 10
KEPT_TASKS = 500
COMPRESSED_S = 60
STEPS = 10
"""So often memory is looked at, after as much has run as fills every bounded table."""


@cl.measure_latency("speech_to_text", provider="google")
async def listen() -> None:
    await asyncio.sleep(0)


@cl.measure_latency("text_to_speech", provider="google")
async def speak() -> Any:
    yield b"."
    await asyncio.sleep(0)
    yield b"."


class Soak:
    """Calls one after another, and those of their measurements that still live."""

    def __init__(self, different_calls: int | None) -> None:
        self.alive: set[weakref.ref[Any]] = set()
        self.measured = 0
        self._calls = 0
        self._different = different_calls
        # A task keeps the context that it ran in.
        self.tasks: deque[asyncio.Task[None]] = deque(maxlen=KEPT_TASKS)

    def watch(self, measurement: Any) -> None:
        self.measured += 1
        self.alive.add(weakref.ref(measurement, self.alive.discard))

    async def turn(self) -> None:
        with cl.turn() as turn:
            turn.speech_ended()
            await listen()
            async with cl.measure_latency_context("rag_inference", "ask") as handle:
                self.watch(handle)
                with cl.attempt("google"):
                    await asyncio.sleep(0)
            async for _ in speak():
                turn.audio_sent()

    async def call(self, number: int) -> None:
        with cl.call(f"CA{number:032x}", stream_sid=f"MZ{number:032x}"):
            for _ in range(TURNS_A_CALL):
                await self.turn()

    async def run(self, turns: int) -> None:
        for _ in range(max(1, turns // (CALLS_AT_ONCE * TURNS_A_CALL))):
            tasks = [asyncio.create_task(self.call(self._next())) for _ in range(CALLS_AT_ONCE)]
            await asyncio.gather(*tasks)
            self.tasks.extend(tasks)

    def _next(self) -> int:
        self._calls += 1
        return self._calls if self._different is None else self._calls % self._different


def let_go(soak: Soak) -> int:
    """Report everything, and forget what the tracker shows of the last calls; how many measurements live.

    Their tasks are kept until they are counted.
    """
    running = runtime._runtime
    assert running is not None
    assert running.pipeline.flush(200)
    gc.collect()
    alive = len(soak.alive)
    soak.tasks.clear()
    cl.latency_tracker.reset_stats()
    for _ in range(3):
        gc.collect()
    return alive


def is_compressing() -> bool:
    """Whether a file that was moved aside is still to become an archive."""
    found = backups_of(Path("outputs/logs/latency_metrics.jsonl").absolute())
    return any(forms != {".gz"} for forms in found.values())


def settled(before: int | None, count: Callable[[], int]) -> int:
    """`count()`, which is waited for where it is above `before`: a file may just be compressed."""
    until_s = monotonic() + COMPRESSED_S
    while (before is None and is_compressing()) or (before is not None and count() > before):
        if monotonic() > until_s:
            break
        sleep(0.02)
    return count()


def descriptors() -> int:
    """How many are open."""
    return sum(fd.exists() for fd in Path("/proc/self/fd").iterdir())


def run(turns: int, warm_up: int, different_calls: int | None = None) -> dict[str, Any]:
    """So many turns after so many to fill what is bounded; what is held after each tenth of them.

    Args:
        turns: of operations, attempts and streams; ten a call.
        warm_up: turns before the first look.
        different_calls: so many call_sids come again and again; None for a new one each call.

    """
    os.environ["LATENCY_METRICS_FILE_MAX_MB"] = "1"  # rotated and compressed from the beginning
    os.environ["LATENCY_METRICS_FILE_BACKUPS"] = "1"
    cl.init()
    soak = Soak(different_calls)
    columns = {name: array("q", [0] * (STEPS + 1)) for name in ("blocks", "threads", "fds", "alive")}
    for step in range(STEPS + 1):
        # Each on a loop of its own: what is known of when a loop was held up goes with the loop.
        asyncio.run(soak.run(turns // STEPS if step else warm_up))
        columns["alive"][step] = let_go(soak)
        for name, count in (("threads", threading.active_count), ("fds", descriptors)):
            columns[name][step] = settled(columns[name][0] if step else None, count)
        columns["blocks"][step] = sys.getallocatedblocks()
    return {
        **{name: list(column) for name, column in columns.items()},
        "watched": soak.measured,
        "dropped": dropped.by_reason(),
        "ended": cl.shutdown(timeout_s=60),
    }
