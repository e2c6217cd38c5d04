"""What waits for one reporter: alerts one by one, measurements in batches."""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from .metric import LatencyMetric

if TYPE_CHECKING:
    from .alerting import Alert
    from .alerting.probe import Probe
    from .turn_metric import TurnMetric

__all__ = ["Buffer"]


class Buffer:
    """Bounded, in order; alerts first, since somebody waits for them. Its lane holds the lock around every call.

    Args:
        capacity: how many measurements may wait; as many alerts besides.
        batch_size: the most measurements of one batch; None for as they came.
        interval_s: how long, in seconds, an incomplete batch waits for more; 0 for not at all.
        when_idle: whether an empty batch is due after each `interval_s`, above 0, without another.

    """

    def __init__(self, capacity: int, batch_size: int | None, interval_s: float, *, when_idle: bool = False) -> None:
        self._capacity = capacity
        self._batch_size = batch_size
        self._interval_s = interval_s
        self._as_they_come = batch_size is None and interval_s == 0
        self._alerts: deque[Alert | Probe | TurnMetric] = deque()
        self._batches: deque[Sequence[LatencyMetric]] = deque()
        self._measurements = 0
        self._when_idle = when_idle and interval_s > 0
        self._since_s = monotonic()
        self.hurry = False
        """Whether an incomplete batch waits no longer; until nothing waits."""

    def __len__(self) -> int:
        return len(self._alerts) + self._measurements

    def put_alert(self, alert: "Alert | Probe | TurnMetric") -> bool:
        """Take it in; False when there is no room."""
        if len(self._alerts) >= self._capacity:
            return False
        self._alerts.append(alert)
        return True

    def put_batch(self, batch: Sequence[LatencyMetric]) -> int:
        """Take in what there is room for, from its beginning; how many that was."""
        room = min(len(batch), self._capacity - self._measurements)
        if room:
            # What hears from us all the time hears in time, also of what came late in its interval.
            if not self._measurements and not self._when_idle:
                self._since_s = monotonic()
            self._batches.append(batch if room == len(batch) else batch[:room])
            self._measurements += room
        return room

    def take_alert(self) -> "Alert | Probe | TurnMetric | None":
        """The oldest alert."""
        return self._alerts.popleft() if self._alerts else None

    def take_batch(self) -> Sequence[LatencyMetric] | None:
        """The next batch, once it is complete, has waited its time, or is in a hurry."""
        if not self._measurements or self.wait_s():
            return None
        batch = self._batches.popleft() if self._as_they_come else self._joined()
        self._measurements -= len(batch)
        self._since_s = monotonic()
        return batch

    def take_idle(self) -> bool:
        """Whether an empty batch is due, which counts as taken."""
        if not self._when_idle or self._measurements or self._left_s() > 0:
            return False
        self._since_s = monotonic()
        return True

    def wait_s(self) -> float | None:
        """Seconds until a batch is due: 0 for now, None for not before something comes."""
        if not self._measurements:
            self.hurry = False
            return self._left_s() if self._when_idle else None
        if self.hurry or self._measurements >= (self._batch_size or self._capacity):
            return 0.0
        return self._left_s()

    def _left_s(self) -> float:
        return max(0.0, self._since_s + self._interval_s - monotonic())

    def _joined(self) -> list[LatencyMetric]:
        size, joined = self._batch_size or self._capacity, list[LatencyMetric]()
        while self._batches and len(joined) < size:
            batch, room = self._batches.popleft(), size - len(joined)
            joined += batch[:room]
            if len(batch) > room:
                self._batches.appendleft(batch[room:])
        return joined

    def clear(self) -> int:
        """Forget what waits; how much that was."""
        left = len(self)
        self._alerts.clear()
        self._batches.clear()
        self._measurements = 0
        return left
