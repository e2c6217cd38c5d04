"""Counts of what was dropped, by reason."""

import itertools
import threading
from typing import Final

__all__ = ["Drops", "dropped", "unmeasured"]


class _Count:
    """A counter whose `add` is one atomic step: no lock, so it may run in a finaliser or a signal handler.

    ``next(itertools.count())`` cannot be interrupted under the GIL; a read costs one step too, and is subtracted.
    """

    __slots__ = ("_lock", "_reads", "_steps")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self._reads = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        next(self._steps)

    def value(self) -> int:
        with self._lock:
            steps = next(self._steps) - self._reads
            self._reads += 1
            return steps


class Drops:
    """Dropped items by reason, for the life of the process. Safe from any thread, finaliser or signal handler."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def add(self, reason: str, amount: int = 1) -> None:
        """Count `amount` items dropped for `reason`."""
        count = self._counts.get(reason) or self._counts.setdefault(reason, _Count())
        for _ in range(amount):
            count.add()

    def by_reason(self) -> dict[str, int]:
        """A copy of the counts; a reason that never occurred is absent."""
        return {reason: count.value() for reason, count in list(self._counts.items())}

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent dropped is the parent's to tell."""
        self._counts = {}


dropped: Final = Drops()
unmeasured: Final = Drops()
"""Turns, and instants of them, that cannot be measured."""
