"""Everything that an application may do with us, in any order, from a hundred threads: chosen by a seed."""

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

import callbot_latency as cl
from callbot_latency.base.drop_counters import dropped
from callbot_latency.runtime import lifecycle as runtime

THREADS = 100
LEAST_STEPS = 1_500
"""So many there are, and one fork among them, however slow the machine."""
FORKS_AT_ONCE = 3
HANG_S = 120
"""Longer takes no step, however busy the machine."""


@cl.measure_latency("speech_to_text")
def listen() -> None:
    pass


@cl.measure_latency("text_to_speech")
def speak() -> Iterator[bytes]:
    yield b"."
    yield b"."


@cl.measure_latency("text_to_speech")
async def speak_async() -> AsyncIterator[bytes]:
    yield b"."
    yield b"."


@cl.measure_latency("rag_inference")
def fails() -> None:
    raise LookupError


class Good:
    def __init__(self, random: Random) -> None:
        self._random = random

    def start(self) -> None:
        pass

    def report(self, batch: Any) -> None:
        pass

    def report_turns(self, turns: Any) -> None:
        pass

    def notify(self, alert: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Bad(Good):
    """Fails now and then, in every way that there is, and measures itself."""

    def report(self, batch: Any) -> None:
        listen()
        chance = self._random.random()
        if chance < 0.2:
            raise cl.TransientError("busy", retry_after_s=0.001)
        if chance < 0.4:
            raise cl.PermanentError("no")
        if chance < 0.5:
            raise SystemExit
        if chance < 0.6:
            raise RuntimeError

    def notify(self, alert: Any) -> None:
        self.report([])


class Slow(Good):
    def report(self, batch: Any) -> None:
        threading.Event().wait(0.02)


class Fuzz:
    """One run; what is wrong gathers in `faults`."""

    def __init__(self, seed: str, seconds: float) -> None:
        self.seed, self.until_s = seed, monotonic() + seconds
        self._latest_s = self.until_s + HANG_S
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        self._forks = threading.Semaphore(FORKS_AT_ONCE)

    def thread(self, number: int) -> None:
        random = Random(f"{self.seed}/{number}")
        mine = Steps(self, random)
        choices = list(mine.weights)
        weights = list(mine.weights.values())
        while self._goes_on() and not self.faults:
            (step,) = random.choices(choices, weights)
            try:
                step()
            except BaseException:
                self.faults.append(f"{step.__name__}: {traceback.format_exc()}")
            self.done[step.__name__] += 1
        mine.remove_all()

    def _goes_on(self) -> bool:
        now_s = monotonic()
        has_enough = self.done["forked"] > 0 and sum(list(self.done.values())) >= LEAST_STEPS
        return now_s < (self.until_s if has_enough else self._latest_s)

    def forked(self) -> None:
        """A child that measures and ends; one that hangs tells where, and is killed."""
        if not self._forks.acquire(blocking=False):
            return
        try:
            child = os.fork()
            if child == 0:
                self._in_child()
            if code := ended(child):
                self.faults.append(f"a child ended with {code}")
        finally:
            self._forks.release()

    @staticmethod
    def _in_child() -> None:
        code = 1
        try:
            listen()
            cl.init()
            listen()
            cl.latency_tracker.get_stats()
            code = 0 if runtime._lifecycle.acquire(timeout=HANG_S / 4) else 3
            runtime._lifecycle.release()
            cl.shutdown(timeout_s=2)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def ended(child: int) -> int:
    """Its exit code; one that hangs tells where, in every thread that it has, and is ended."""
    until_s = monotonic() + HANG_S / 2
    while not (answer := os.waitpid(child, os.WNOHANG))[0]:
        if monotonic() > until_s:
            os.kill(child, signal.SIGABRT)  # at which faulthandler speaks
            answer = os.waitpid(child, 0)
            break
        sleep(0.005)
    return os.waitstatus_to_exitcode(answer[1])


class Steps:
    """What one thread may do next, and how often."""

    def __init__(self, fuzz: Fuzz, random: Random) -> None:
        self._random = random
        self._reporters: list[Good] = []
        self._streams: list[Any] = []
        self.weights: dict[Callable[[], object], float] = {
            self.measure: 40,
            self.measure_a_turn: 20,
            self.measure_in_a_loop: 2,
            self.break_off: 10,
            self.drop_references: 5,
            self.init: 6,
            self.shutdown: 4,
            self.flush: 4,
            self.read: 3,
            self.add_reporter: 4,
            self.remove_reporter: 4,
            self.collect: 0.5,
            fuzz.forked: 0.3,
        }

    def measure(self) -> None:
        listen()
        list(speak())
        with contextlib.suppress(LookupError):
            fails()
        cl.record(cl.LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))

    def measure_a_turn(self) -> None:
        with cl.call(f"CA{self._random.randrange(50)}"), cl.turn() as turn:
            turn.speech_ended()
            with cl.measure_latency_context("rag_inference", "ask") as handle, cl.attempt("google"):
                handle.set_metadata(a=1)
            list(speak())
            turn.audio_sent()

    def measure_in_a_loop(self) -> None:
        async def consume() -> None:
            async for _ in speak_async():
                break

        async def several() -> None:
            async with asyncio.timeout(HANG_S):
                await asyncio.gather(*(consume() for _ in range(3)))

        asyncio.run(several())

    def break_off(self) -> None:
        stream = speak()
        next(stream)
        self._streams.append(stream)

    def drop_references(self) -> None:
        self._streams.clear()
        self._reporters[:-3] = []  # those stay with the manager, unless somebody removes them

    def init(self) -> None:
        cl.init()

    def shutdown(self) -> None:
        cl.shutdown(timeout_s=self._random.choice([0, 0.01, 0.5]))

    def flush(self) -> None:
        if (running := runtime._runtime) is not None:
            running.pipeline.flush(self._random.choice([0, 0.01, 0.1]))

    def read(self) -> None:
        cl.latency_tracker.get_stats()
        cl.latency_tracker.get_turns()
        cl.report_manager.status()
        dropped.by_reason()

    def add_reporter(self) -> None:
        kind = self._random.choice([Good, Bad, Slow])
        if len(cl.report_manager.reporters) < 20:
            self._reporters.append(kind(Random(self._random.random())))
            cl.report_manager.add_reporter(self._reporters[-1])

    def remove_reporter(self) -> None:
        if self._reporters:
            reporter = self._reporters.pop(self._random.randrange(len(self._reporters)))
            cl.report_manager.remove_reporter(reporter, timeout_s=0.1)

    def collect(self) -> None:
        gc.collect(self._random.randrange(3))

    def remove_all(self) -> None:
        self._streams.clear()
        while self._reporters:
            self.remove_reporter()


def state() -> dict[str, Any]:
    """What must be afterwards as it was before."""
    gc.collect()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "fds": sum(fd.exists() for fd in Path("/proc/self/fd").iterdir()),
        "sigterm": repr(signal.getsignal(signal.SIGTERM)),
    }


def run(seed: str, seconds: float) -> dict[str, Any]:
    """Run for so many seconds; what was done, what went wrong, and what was left behind."""
    faulthandler.enable(all_threads=True)
    faulthandler.dump_traceback_later(seconds + 3 * HANG_S, exit=True)
    sys.setswitchinterval(1e-6)
    cl.init()
    listen()
    cl.shutdown(timeout_s=HANG_S)
    before = state()
    fuzz = Fuzz(seed, seconds)
    threads = [threading.Thread(target=fuzz.thread, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(0.005)
    for reporter in cl.report_manager.reporters:
        cl.report_manager.remove_reporter(reporter, timeout_s=HANG_S)
    ended = cl.shutdown(timeout_s=HANG_S)
    for thread in threading.enumerate():
        if thread.name.startswith("callbot_latency"):
            thread.join(HANG_S)  # of sessions whose shutdown had no time
    return {
        "faults": fuzz.faults[:3],
        "done": dict(fuzz.done),
        "ended": ended,
        "before": before,
        "after": state(),
        "dropped": dropped.by_reason(),
    }
