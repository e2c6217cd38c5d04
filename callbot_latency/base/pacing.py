"""How much a thread of ours does before it gives way to whoever waits for the interpreter's lock."""

import threading
from collections.abc import Callable, Iterable, Iterator
from time import monotonic, sleep
from typing import Final, TypeVar

from .concurrency import is_patched

__all__ = ["Pace", "set_hurry_check", "yielding"]

T = TypeVar("T")

AT_ONCE: Final = 5
"""How many things a reporter makes of its batch before it gives way: a tenth of a millisecond's work."""
GIVE_WAY_S: Final = 0.0002
"""How long a thread then sleeps, so that whoever waits for the interpreter's lock gets it at once.

Otherwise an event loop that wakes meanwhile waits for `sys.getswitchinterval()`, which is 5 ms.
"""
LONG_S: Final = 0.002
"""Where it slept longer, others kept the lock for long: it then does twice as much before the next time."""
MAX_CHUNK_SIZE: Final = 1_000
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
        self._most = MOST_BETWEEN_GREENLETS if is_patched() else MAX_CHUNK_SIZE
        self.chunk_size: int = least

    def at_least(self, amount: int) -> None:
        """From now on so much at once, or more."""
        self._least = max(self._least, min(amount, self._most))
        self.chunk_size = max(self.chunk_size, self._least)

    def hurry(self) -> None:
        """Somebody waits for what is done: as much at once as there may be."""
        self.at_least(self._most)

    def yield_gil(self) -> None:
        """Let others run: whoever waits for the interpreter's lock, in a hurry other greenlets alone."""
        before_s = monotonic()
        sleep(0.0 if self._least == self._most else GIVE_WAY_S)
        self.chunk_size = min(2 * self.chunk_size, self._most) if monotonic() - before_s > LONG_S else self._least


def set_hurry_check(is_hurried: Callable[[], bool]) -> None:
    """Say for the running thread how to learn whether somebody waits for its work; `yielding` asks it."""
    _of_thread.is_hurried = is_hurried


def yielding(items: Iterable[T]) -> Iterator[T]:
    """Each of `items`, giving way after every few: for a reporter that makes something of each in a loop.

    Not where gevent has made its thread a greenlet: one that sleeps goes along with a fork, and would go on there.
    """
    if is_patched():
        yield from items
        return
    is_hurried = getattr(_of_thread, "is_hurried", _never)
    pace, left = Pace(AT_ONCE), AT_ONCE
    for item in items:
        if not left:
            if is_hurried():
                pace.hurry()
            pace.yield_gil()
            left = pace.chunk_size
        left -= 1
        yield item


def _never() -> bool:
    return False


_of_thread: Final = threading.local()
