"""Counts of what was dropped, by reason."""

import itertools
from typing import Final

__all__ = ["Drops", "dropped", "unmeasured"]


class _Count:
    """A counter whose `add` and `value` are one step each: no lock, so both may run in a finaliser or a signal handler.

    ``next(itertools.count())`` cannot be interrupted under the GIL.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps = itertools.count()

    def add(self) -> None:
        next(self._steps)

    def value(self) -> int:
        # Its text is "count(5)": the one way to read the next number without taking it.
        return int(repr(self._steps)[len("count(") : -1])


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
