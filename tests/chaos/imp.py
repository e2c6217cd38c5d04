"""Does what the plan says: a thread for each target, so that a server that is long in coming back delays itself."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import httpx

from devservers.processes import StackError
from devservers.stack import Stack
from tests.chaos.disk import SmallDisk
from tests.chaos.plan import Event
from tests.chaos.process import BotProcess
from tests.chaos.proxy import Road
from tests.chaos.slack import Slack

STARTS = 3
"""A port that a connection of before still has, and an overloaded machine, cost a start."""


class Imp:
    """Lets everything go wrong, and puts everything right again; what it did stands in `done`."""

    def __init__(
        self,
        stack: Stack,
        roads: Mapping[str, Road],
        slack: Slack,
        disk: SmallDisk,
        bot: BotProcess,
        plan: Mapping[str, Sequence[Event]],
        seconds: float,
    ) -> None:
        self._stack, self._roads, self._slack, self._disk, self._bot = stack, roads, slack, disk, bot
        self.now: dict[str, Event] = {}
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self._over = threading.Event()
        self._seconds = seconds
        self._left = threading.Semaphore(0)
        # They stay until `close`: a server ends with the thread that started it.
        self._threads = [
            threading.Thread(target=self._run, args=(events,), name=f"imp of {target}", daemon=True)
            for target, events in plan.items()
        ]

    def start(self) -> None:
        """From now on."""
        self._began_s = time.monotonic()
        self._ends_s = self._began_s + self._seconds
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Until all is over and well again."""
        for _ in self._threads:
            self._left.acquire()

    def close(self) -> None:
        """Let go of the servers, which end with that."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, events: Sequence[Event]) -> None:
        try:
            for planned in events:
                self._over.wait(max(0.0, self._began_s + planned.at_s - time.monotonic()))
                left_s = self._ends_s - time.monotonic()
                # Servers took long to come back: what is late by more than the run is left out.
                if left_s <= 0 or self._over.is_set():
                    break
                event = replace(planned, for_s=min(planned.for_s, left_s))
                self.now[event.target] = event
                self.done[f"{event.target} {event.kind}"] += 1
                self._do(event)
                del self.now[event.target]
        except Exception as error:
            self.errors.append(f"{events[0].target}: {error!r}")
        self._left.release()
        self._over.wait()

    def _do(self, event: Event) -> None:
        target, kind = event.target, event.kind
        match target:
            case "slack":
                self._slack.turn(kind)
                self._over.wait(event.for_s)
                self._slack.turn("well")
            case "disk":
                self._fill(event.for_s)
            case "clock":
                self._bot.tell("step", by_s=event.amount)
            case "fork":
                self._bot.tell("fork", for_s=event.for_s, kill=kind == "killed")
                self._over.wait(event.for_s)
            case "burst":
                self._bot.tell("burst", amount=int(event.amount))
            case _ if kind in ("slow", "hung", "cut"):
                self._roads[target].turn(kind)
                self._over.wait(event.for_s)
                self._roads[target].turn("well")
            case _:
                self._hurt_process(target, kind, event.for_s)

    def _fill(self, for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while (left_s := until_s - time.monotonic()) > 0 and not self._over.is_set():
            # Again and again: an archive that is made gives room back.
            self._disk.fill()
            self._over.wait(min(0.2, left_s))
        self._disk.free()

    def _hurt_process(self, name: str, kind: str, for_s: float) -> None:
        server = self._stack._servers[name]
        if kind == "stop":
            server.tell(signal.SIGSTOP)
            self._over.wait(for_s)
            server.tell(signal.SIGCONT)
            return
        server.end(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        if kind == "kill":
            self._over.wait(for_s)
        for _ in range(STARTS):
            # Users and databases are there since its first start: one that is too slow to say so has them all the same.
            with suppress(StackError, httpx.HTTPError):
                self._stack.start(name)
            if server.runs:
                return
        raise StackError(f"{name} does not start any more:\n{server.log_end()}")
