"""What is decided under a lock and handed over without it."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ..base.internal_errors import call_safely
from ..model.alert import Alert

__all__ = ["Outbox"]

LONGEST_WAIT_S: Final = 0.1


class Outbox:
    """Alerts for lanes, handed over in the order in which they were put in, by whichever thread comes by.

    A fault there is logged, and a handler of the log may hang: so whoever decides what is told holds no lock meanwhile,
    and a thread that finds another one at it leaves what it has to that one.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[Alert], object], Alert]] = deque()
        self._turn = threading.Lock()

    def put(self, notify: Callable[[Alert], object], alert: Alert) -> None:
        """Have `notify(alert)` called; does nothing else."""
        self._waiting.append((notify, alert))

    def flush(self) -> None:
        """Call what waits, unless another thread does."""
        while self._waiting and self._turn.acquire(blocking=False):
            try:
                self._empty()
            finally:
                self._turn.release()

    def close(self) -> None:
        """Call what waits, whatever another thread hangs in."""
        has_turn = self._turn.acquire(timeout=LONGEST_WAIT_S)
        try:
            self._empty()
        finally:
            if has_turn:
                self._turn.release()

    def _empty(self) -> None:
        while self._waiting:
            try:
                notify, alert = self._waiting.popleft()
            except IndexError:  # the end of the session was faster
                return
            call_safely(notify, alert)
