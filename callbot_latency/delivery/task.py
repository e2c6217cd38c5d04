"""What a reporter has in hand, and what it answered about it."""

from collections.abc import Callable
from typing import Any

from .errors import PermanentError, TransientError, whole_in

__all__ = ["Task"]


class Task:
    """One alert, or a batch that shrinks as parts of it arrive.

    Args:
        act: the reporter's method.
        work: its one argument.
        left: how much of it has neither arrived nor been dropped.

    """

    __slots__ = ("act", "failed", "left", "work")

    def __init__(self, act: Callable[[Any], Any], work: Any, left: int) -> None:
        self.act: Callable[[Any], Any] = act
        self.work: Any = work
        self.left: int = left
        self.failed: int = 0

    def shrink(self, error: TransientError) -> tuple[int, int]:
        """Keep what is to be tried again; how many of the beginning arrived, and how many were refused."""
        arrived = _within(error.delivered, self.left)
        refused = _within(error.refused, self.left - arrived)
        if done := arrived + refused:
            self.left -= done
            # An alert is one: where it arrived, nothing is left.
            self.work = self.work[done:] if self.left else None
            self.failed = 0
        return arrived, refused

    def refused(self, error: PermanentError) -> int:
        """How many of what is left were refused; the others arrived."""
        return self.left if whole_in(error.refused) is None else _within(error.refused, self.left)


def _within(number: Any, most: int) -> int:
    return max(0, min(whole_in(number) or 0, most))
