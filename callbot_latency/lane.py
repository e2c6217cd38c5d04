"""A bounded buffer and a thread for one reporter that may be slow."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from . import semconv
from .drops import dropped
from .guard import contained, delivered
from .metric import LatencyMetric
from .reporters import LatencyReporter

if TYPE_CHECKING:
    from .alerting import Alert

__all__ = ["Lane"]

CAPACITY: Final = 16_384


class Lane:
    """Reports to `reporter` on a thread of its own, so that a slow one delays nobody else.

    What arrives while `capacity` measurements wait is dropped and counted as ``<name>_lane_full``; what the reporter
    fails on as ``<name>_failed``; what a hanging one did not confirm before the end as ``<name>_unconfirmed``.
    """

    def __init__(self, name: str, reporter: LatencyReporter, capacity: int = CAPACITY) -> None:
        self.name = name
        self._reporter = reporter
        self._capacity = capacity
        self._reset()

    def _reset(self) -> None:
        self._work: deque[tuple[Callable[[Any], None], Any, int]] = deque()
        self._waiting = 0
        self._in_hand = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"callbot_latency.{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def restart_after_fork(self) -> None:
        """In a forked child: the buffer is the parent's, the thread did not come along."""
        self._reset()
        self.start()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hand over a batch; never waits."""
        self._put(self._reporter.report, batch, len(batch))

    def notify(self, alert: "Alert") -> None:
        """Hand over an alert that is for this lane; never waits."""
        notify = getattr(self._reporter, "notify", None)
        if notify is not None and (alert.channels is None or self.name in alert.channels):
            self._put(notify, alert, 1)

    def _put(self, act: Callable[[Any], None], work: Any, amount: int) -> None:
        with self._changed:
            if self._waiting + amount <= self._capacity and not self._closing:
                self._work.append((act, work, amount))
                self._waiting += amount
                self._changed.notify_all()
                return
        dropped.add(self.name + semconv.DROPPED_FULL_SUFFIX, amount)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was handed over is reported; False when the time was too short."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._work and not self._in_hand, timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Report what waits, close the reporter and end the thread, within `timeout_s`; what remains is counted.

        What a hanging reporter has in hand counts too: it may still arrive, but nobody will know.
        """
        deadline_s = monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is self._thread:
            # A callback that shuts us down: the lane does the rest when that returns, and ends.
            return not self._work
        self._thread.join(max(0.0, deadline_s - monotonic()))
        with self._changed:
            left, self._waiting = self._waiting + self._in_hand, 0
            self._work.clear()
        if left:
            dropped.add(self.name + semconv.DROPPED_UNCONFIRMED_SUFFIX, left)
        return not left

    def _run(self) -> None:
        contained(self._reporter.start)
        while (work := self._next()) is not None:
            act, argument, amount = work
            delivered(act, argument, self.name + semconv.DROPPED_FAILED_SUFFIX, amount)
        contained(self._reporter.close)

    def _next(self) -> tuple[Callable[[Any], None], Any, int] | None:
        with self._changed:
            self._in_hand = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._work or self._closing)
            if not self._work:
                return None
            work = self._work.popleft()
            self._in_hand = work[2]
            self._waiting -= work[2]
            return work
