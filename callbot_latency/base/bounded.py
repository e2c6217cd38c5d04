"""The numbers of turns: one sequence for a call, however often and from however many streams it is opened."""

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Final

__all__ = ["MAX_CALLS", "TurnNumbers"]

MAX_CALLS: Final = 10_000
"""Of so many calls, the newest, it is known how many turns they had."""


class TurnNumbers:
    """Without a lock: from any thread, and in a forked child."""

    def __init__(self) -> None:
        self._counts: dict[str, itertools.count[int]] = {}
        self._in_order: deque[str] = deque()

    def of(self, call_sid: str) -> Iterator[int]:
        """The call's sequence, from 1; whoever keeps it goes on with it."""
        fresh = itertools.count(1)
        count = self._counts.setdefault(call_sid, fresh)
        if count is fresh:
            self._in_order.append(call_sid)
            if len(self._in_order) > MAX_CALLS:
                self._counts.pop(self._in_order.popleft(), None)
        return count
