"""People who ring the bot, one call after the other on each line, while everything else goes wrong."""

import asyncio
import threading
from dataclasses import dataclass

from examples.callbot.caller import Caller
from examples.callbot.run import SCRIPT
from examples.callbot.salesforce_stub import PHONES

ANSWERS = len(SCRIPT) + 1
"""The greeting, and one for each thing that a caller says."""
PATIENCE_S = 180.0
"""A caller is harmed who gets no answer at all. How long measuring holds a call up is judged by the bot's own clock."""


@dataclass(frozen=True)
class Call:
    """What became of one."""

    call_sid: str
    answers: int
    seconds: float
    error: str | None = None

    @property
    def is_harmed(self) -> bool:
        """Whether the caller did not get every answer."""
        return self.error is not None or self.answers != ANSWERS


class Callers(threading.Thread):
    """So many lines at once, in an event loop of their own; each begins its next call as soon as one is over."""

    def __init__(self, url: str, lines: int) -> None:
        super().__init__(name="callers")
        self._url = url
        self._lines = lines
        self._over = threading.Event()
        self.calls: list[Call] = []

    def run(self) -> None:
        asyncio.run(self._all())

    def end(self) -> None:
        """Wait for the calls that there are; nobody rings any more."""
        self._over.set()
        self.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._line(number) for number in range(self._lines)))

    async def _line(self, number: int) -> None:
        await asyncio.sleep(number)
        while not self._over.is_set():
            caller = Caller(self._url, PHONES[number % len(PHONES)], SCRIPT, patience_s=PATIENCE_S)
            seconds, error = 0.0, None
            try:
                seconds = await caller.run()
            except Exception as failed:
                error = repr(failed)
            self.calls.append(Call(caller.call_sid, caller.answers, seconds, error))
