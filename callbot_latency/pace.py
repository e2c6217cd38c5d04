"""How much a thread of ours does before it gives way to whoever waits for the interpreter's lock."""

from collections.abc import Iterable, Iterator
from time import monotonic, sleep
from typing import Final, TypeVar

from .greenlets import is_patched

__all__ = ["Pace", "paced"]

T = TypeVar("T")

AT_ONCE: Final = 5
"""How many things a reporter makes of its batch before it gives way: a tenth of a millisecond's work."""
GIVE_WAY_S: Final = 0.0002
"""How long a thread then sleeps, so that whoever waits for the interpreter's lock gets it at once.

Otherwise an event loop that wakes meanwhile waits for `sys.getswitchinterval()`, which is 5 ms.
"""
LONG_S: Final = 0.004
"""Where it slept longer, nearly a switch interval, busy threads kept the lock: then it does twice as much at once."""
MOST_AT_ONCE: Final = 1_000
"""The most that is done before giving way, and what is done where somebody waits for it."""
MOST_BETWEEN_GREENLETS: Final = 100
"""That where gevent has made the thread a greenlet, and nobody else runs meanwhile."""


class Pace:
    """So much at once, and then a moment for the others.

    Args:
        least: how many are done at once where nobody keeps the lock for long.

    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._most = MOST_BETWEEN_GREENLETS if is_patched() else MOST_AT_ONCE
        self.at_once: int = least

    def hurry(self) -> None:
        """Somebody waits for what is done: as much at once as there may be."""
        self._least = self.at_once = self._most

    def give_way(self) -> None:
        """Let others run: whoever waits for the interpreter's lock, in a hurry other greenlets alone."""
        before_s = monotonic()
        sleep(0.0 if self._least == self._most else GIVE_WAY_S)
        self.at_once = min(2 * self.at_once, self._most) if monotonic() - before_s > LONG_S else self._least


def paced(items: Iterable[T]) -> Iterator[T]:
    """Each of `items`, giving way after every few: for a reporter that makes something of each in a loop."""
    pace, left = Pace(AT_ONCE), AT_ONCE
    for item in items:
        if not left:
            pace.give_way()
            left = pace.at_once
        left -= 1
        yield item
