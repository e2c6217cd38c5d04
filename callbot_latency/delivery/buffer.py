"""What waits for one reporter: alerts one by one, measurements and turns in batches."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric

if TYPE_CHECKING:
    from ..model.alert import Alert
    from .probe import Probe

__all__ = ["Batch", "Buffer", "are_turns"]

Batch = Sequence[LatencyMetric] | Sequence[TurnMetric]


def are_turns(batch: Batch) -> bool:
    """Whether it is a batch of turns; an empty one is of measurements."""
    return len(batch) > 0 and isinstance(batch[0], TurnMetric)


class Buffer:
    """Bounded, in order; alerts first, since somebody waits for them. Its lane holds the lock around every call.

    Measurements and turns wait in one line. What of it is due at one moment is handed out as a batch of each,
    turns first: a reporter that sends all it knows with its measurements sends them along.

    Args:
        capacity: how many measurements and turns may wait; as many alerts besides.
        batch_size: the most measurements and turns that are due at one moment; None for as they came.
        interval_s: how long, in seconds, an incomplete batch waits for more; 0 for not at all.
        when_idle: whether a batch of measurements, empty if none waits, is due every `interval_s`, above 0, and right
            after each batch of turns.

    """

    def __init__(self, capacity: int, batch_size: int | None, interval_s: float, *, when_idle: bool = False) -> None:
        self._capacity = capacity
        self._batch_size = batch_size
        self._interval_s = interval_s
        self._as_they_come = batch_size is None and interval_s == 0
        self._alerts: deque[Alert | Probe] = deque()
        self._batches: deque[Batch] = deque()
        self._due: deque[Batch] = deque()
        self._amount = 0
        self._since_s = monotonic()
        self._when_idle = when_idle and interval_s > 0
        self._due_s = monotonic() + interval_s if self._when_idle else math.inf
        self.hurry: bool = False
        """Whether an incomplete batch waits no longer; until nothing waits."""

    def __len__(self) -> int:
        return len(self._alerts) + self._amount

    def put_alert(self, alert: "Alert | Probe") -> bool:
        """Take it in; False when there is no room."""
        if len(self._alerts) >= self._capacity:
            return False
        self._alerts.append(alert)
        return True

    def put_batch(self, batch: Batch) -> int:
        """Take in what there is room for, from its beginning; how many that was."""
        room = min(len(batch), self._capacity - self._amount)
        if room:
            if not self._amount:
                self._since_s = monotonic()
            self._batches.append(batch if room == len(batch) else batch[:room])
            self._amount += room
        return room

    def take_alert(self) -> "Alert | Probe | None":
        """The oldest alert."""
        return self._alerts.popleft() if self._alerts else None

    def take_batch(self) -> Batch | None:
        """The next batch, of one kind, once it is complete, has waited its time, or is in a hurry."""
        if not self._due:
            if self.wait_s():
                return None
            self._due.extend([self._batches.popleft()] if self._as_they_come else self._sorted())
            self._since_s = monotonic()
        batch: Batch = self._due.popleft() if self._due else ()
        self._amount -= len(batch)
        if self._when_idle:
            self._due_s = monotonic() + (0.0 if are_turns(batch) else self._interval_s)
        return batch

    def wait_s(self) -> float:
        """Seconds until a batch is due: 0 for now, infinity for not before something comes."""
        now_s = monotonic()
        if not self._amount:
            self.hurry = False
            return max(0.0, self._due_s - now_s)
        if self.hurry or self._amount >= (self._batch_size or self._capacity):
            return 0.0
        return max(0.0, min(self._since_s + self._interval_s, self._due_s) - now_s)

    def _sorted(self) -> Iterator[Batch]:
        """The oldest of what waits: its turns, then its measurements."""
        size, turns, measurements = self._batch_size or self._capacity, list[TurnMetric](), list[LatencyMetric]()
        while self._batches and size:
            batch = self._batches.popleft()
            joined: list[Any] = turns if are_turns(batch) else measurements
            joined += batch[:size]
            if len(batch) > size:
                self._batches.appendleft(batch[size:])
            size = max(0, size - len(batch))
        return filter(None, (turns, measurements))

    def clear(self) -> int:
        """Forget what waits; how much that was."""
        left = len(self)
        self._alerts.clear()
        self._batches.clear()
        self._due.clear()
        self._amount = 0
        return left
