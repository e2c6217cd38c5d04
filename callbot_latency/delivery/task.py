"""What a reporter has in hand, and what it answered about it."""

from collections.abc import Callable
from typing import Any

from .errors import PermanentError, TransientError, whole_in

__all__ = ["Work"]


class Work:
    """One alert, or a batch that shrinks as parts of it arrive.

    Args:
        act: the reporter's method.
        work: its one argument.
        left: how much of it has neither arrived nor been dropped.

    """

    __slots__ = ("failed", "method", "payload", "remaining")

    def __init__(self, method: Callable[[Any], Any], payload: Any, remaining: int) -> None:
        self.method: Callable[[Any], Any] = method
        self.payload: Any = payload
        self.remaining: int = remaining
        self.failed: int = 0

    def apply_partial(self, error: TransientError) -> tuple[int, int]:
        """Keep what is to be tried again; how many of the beginning arrived, and how many were refused."""
        arrived = _within(error.delivered, self.remaining)
        refused = _within(error.refused, self.remaining - arrived)
        if done := arrived + refused:
            self.remaining -= done
            # An alert is one: where it arrived, nothing is left.
            self.payload = self.payload[done:] if self.remaining else None
            self.failed = 0
        return arrived, refused

    def refused_count(self, error: PermanentError) -> int:
        """How many of what is left were refused; the others arrived."""
        return self.remaining if whole_in(error.refused) is None else _within(error.refused, self.remaining)


def _within(number: Any, most: int) -> int:
    return max(0, min(whole_in(number) or 0, most))
