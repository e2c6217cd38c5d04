"""The example callbot in a process of its own, under load; told what to do on stdin, tells on stdout, a line each."""

import argparse
import asyncio
import functools
import gc
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from opentelemetry import metrics
from starlette.applications import Starlette

from callbot_latency import call, init, latency_config, measure_latency_context, report_manager, shutdown
from callbot_latency.base.drop_counters import dropped
from callbot_latency.reporters import rotation
from callbot_latency.runtime.otel_providers import _relay
from examples.callbot import servers, speech
from examples.callbot.bot import Services, media_stream_route
from examples.callbot.run import services_running
from examples.callbot.servers import serving
from tests.chaos.account import Ears, Spans, Witness, account, limit_files
from tests.chaos.children import Children
from tests.chaos.clock import wall

TICK_S = 0.02
LATE_S = 0.2
"""What took longer to begin or to end a measured operation is told."""
PULSE_S = 0.05
PATIENCE_S = 200.0
_EVERYTHING = 2
"""The oldest generation of Python's garbage collector."""


def say(**told: Any) -> None:
    """One line, whole."""
    with _saying:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


_saying = threading.Lock()


class Passage:
    """The path of a call through our code, timed around nothing: what it cost, and when it was late."""

    def __init__(self) -> None:
        self.slowest_s = 0.0
        self.measured = 0
        self.late: list[tuple[float, float, str]] = []

    def measure(self, kind: str, name: str, sleep_s: float = 0.0) -> None:
        measuring = measure_latency_context(kind, name, provider="chaos")
        began_s = time.monotonic()
        measuring.__enter__()
        self._note(began_s, f"{name} begins")
        if sleep_s:
            time.sleep(sleep_s)
        began_s = time.monotonic()
        measuring.__exit__(None, None, None)
        self._note(began_s, f"{name} ends")
        self.measured += 1

    def _note(self, began_s: float, what: str) -> None:
        now_s = time.monotonic()
        self.slowest_s = max(self.slowest_s, now_s - began_s)
        if now_s - began_s > LATE_S:
            self.late.append((began_s, now_s, what))


def tell_of_engines(held: list[tuple[float, float]]) -> None:
    """Note when a speech engine loads: it holds Python's lock meanwhile, and with it everything in this process."""
    load = speech.pocketsphinx.Decoder

    def loaded(*args: Any, **named: Any) -> Any:
        began_s = time.monotonic()
        try:
            return load(*args, **named)
        finally:
            held.append((began_s, time.monotonic()))

    speech.pocketsphinx.Decoder = loaded


def tell_of_collections(collections: list[tuple[float, float, float]]) -> None:
    """Note when Python's garbage collector looks through everything, and its CPU time: it holds everything up."""
    began_s = cpu_s = 0.0

    def collecting(phase: str, what: dict[str, int]) -> None:
        nonlocal began_s, cpu_s
        if what["generation"] < _EVERYTHING:
            return
        if phase == "start":
            began_s, cpu_s = time.monotonic(), time.thread_time()
        else:
            collections.append((began_s, time.monotonic(), time.thread_time() - cpu_s))

    gc.callbacks.append(collecting)


class Load(threading.Thread):
    """Measures so many operations a second in a call of its own, and bursts when it is asked to."""

    def __init__(self, rate: int) -> None:
        super().__init__(name="load")
        self._rate = rate
        self.path = Passage()
        self.bursts: list[int] = []
        self._over = threading.Event()

    def run(self) -> None:
        began_s, count = time.monotonic(), 0
        with call("CAload", stream_sid="MZload"):
            while not self._over.wait(TICK_S):
                due = int(self._rate * (time.monotonic() - began_s))
                # What it could not do in time is not made up for: that would be a burst of its own.
                todo = min(due - count, self._rate) + (self.bursts.pop() if self.bursts else 0)
                count = due
                for n in range(todo):
                    self.path.measure("speech_to_text", "load", 0.003 if n % 200 == 0 else 0.0)

    def end(self) -> None:
        self._over.set()
        self.join()


class Bot:
    """Everything in this process."""

    def __init__(self, folder: Path, rate: int) -> None:
        self._folder = folder
        self.witness, self.ears = Witness(), Ears()
        self.load = Load(rate)
        self.pulse = Passage()
        self.ended = asyncio.Event()
        self._resting = False
        self._talking = 0
        self._pulse_is_over = threading.Event()
        report_manager.add_reporter(self.witness)
        self.ears.listen()
        self._held: list[tuple[float, float]] = []
        tell_of_engines(self._held)
        self._collections: list[tuple[float, float, float]] = []
        tell_of_collections(self._collections)
        init()
        self.spans = Spans(_relay.targets[0])

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.ears.exceptions.append(f"loop: {context}"))
        async with services_running(lambda _: None) as services, serving(self._app(services)) as address:
            ports = [address.rpartition(":")[2], services.salesforce.sf_instance.rpartition(":")[2]]
            ports.append(str(services.knowledge._client.base_url.port))
            self.children = Children(self._folder, frozenset(map(int, ports)), self._is_child, self._account)
            self.load.start()
            pulse = asyncio.create_task(self._pulse())
            threading.Thread(target=self._obey, args=(loop,), daemon=True, name="obey").start()
            threading.Thread(target=self._tell_on, daemon=True, name="tell").start()
            # As the example's own server does.
            gc.freeze()
            say(ready=address)
            await self.ended.wait()
            pulse.cancel()

    def _app(self, services: Services) -> Starlette:
        """The example's, which knows how many calls there are: one is over a while after its caller has gone."""
        route = media_stream_route(services)
        answer = route.app

        async def counted(*args: Any) -> None:
            self._talking += 1
            try:
                await answer(*args)
            finally:
                self._talking -= 1

        route.app = counted
        return Starlette(routes=[route])

    async def _pulse(self) -> None:
        """On the event loop, where the calls are."""
        while not self._resting:
            self.pulse.measure("rag_inference", "pulse")
            await asyncio.sleep(PULSE_S)
        self._pulse_is_over.set()

    def _is_child(self) -> None:
        self.ears.forget()
        self.spans.forget()

    def _account(self, tag: str) -> dict[str, Any]:
        return account(tag, self.witness, self.ears)

    def _tell_on(self) -> None:
        while True:
            time.sleep(1)
            pending = {name: status.pending for name, status in report_manager.status().items()}
            say(measured=self.load.path.measured, pending=pending, dropped=dropped.by_reason())

    def _obey(self, loop: asyncio.AbstractEventLoop) -> None:
        for line in sys.stdin:
            told = json.loads(line)
            match told.pop("do"):
                case "step":
                    wall.step(**told)
                case "limit":
                    limit_files(latency_config.metrics_file_path, **told)
                case "burst":
                    self.load.bursts.append(told["amount"])
                case "fork":
                    self.children.fork(**told)
                case "rest":
                    self._rest()
                case "account":
                    say(account=self._whole())
                case "end":
                    break
        loop.call_soon_threadsafe(self.ended.set)

    def _rest(self) -> None:
        """Nothing is measured any more; what was is on its way."""
        self.load.end()
        self._resting = True
        self._pulse_is_over.wait(PATIENCE_S)
        self.children.wait()
        until_s = time.monotonic() + PATIENCE_S
        while self._talking and time.monotonic() < until_s:
            time.sleep(TICK_S)
        wall.settle()
        say(rests=True)

    def _whole(self) -> dict[str, Any]:
        return {
            **self._account("bot"),
            "measured": {"load": self.load.path.measured, "pulse": self.pulse.measured},
            "slowest_s": max(self.load.path.slowest_s, self.pulse.slowest_s),
            "late": self.load.path.late + self.pulse.late,
            "held": self._held,
            "collections": self._collections,
            "protocol": latency_config.otlp_protocol,
            "spans": self.spans.told(),
            "children": self.children.ended,
            "forks": self.children.forks,
            "pid": os.getpid(),
            "instance": metrics.get_meter_provider()._sdk_config.resource.attributes["service.instance.id"],  # type: ignore[attr-defined]
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rate", type=int, required=True)
    options = parser.parse_args()
    logging.getLogger("callbot_latency").setLevel(logging.WARNING)
    # The day of a file is the file system's, whose clock nobody steps here.
    rotation.time = wall.machines
    # A connection that its server closes just as it is used again is no fault of ours, and none of this run's.
    servers.uvicorn.Config = functools.partial(servers.uvicorn.Config, timeout_keep_alive=3_600)
    bot = Bot(options.folder, options.rate)
    asyncio.run(bot.serve())
    began_s = time.monotonic()
    in_time = shutdown(20)
    say(account={**bot._whole(), "in_time": in_time, "shutdown_s": time.monotonic() - began_s}, last=True)
