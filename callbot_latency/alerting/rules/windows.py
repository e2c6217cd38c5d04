"""What happened in the last so many seconds, in memory that does not grow with the traffic."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, exp, log
from typing import Final

from ...base.bounded import MAX_CALLS, BoundedMap
from ...model.metric import LatencyMetric

__all__ = ["RELATIVE_ERROR", "SLICES", "CallWindow", "SlidingWindow", "Window", "WindowCounts"]

SLICES: Final = 60
"""A window is made of so many slices and forgets a slice at a time: it covers 59/60 of its length to all of it."""
RELATIVE_ERROR: Final = 0.01
"""How far a percentile that is shown may be from the exact one, as a share of it."""

_SMALLEST_MS: Final = 0.1
_LARGEST_MS: Final = 3_600_000.0
_LOG_GAMMA: Final = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))


@dataclass(slots=True)
class WindowCounts:
    """What a slice or a whole window counted; times in milliseconds."""

    count: int = 0
    bad: int = 0
    total_ms: float = 0.0
    example: LatencyMetric | None = None
    """The slowest of all where latencies are kept; else the newest that was bad."""
    latencies: Counter[int] = field(default_factory=Counter)

    @property
    def bad_share(self) -> float:
        """From 0 to 1; ask only of a tally that counted something."""
        return self.bad / self.count

    @property
    def mean_ms(self) -> float:
        """Ask only of a tally that counted something."""
        return self.total_ms / self.count

    def has_percentile_from(self, share: float) -> bool:
        """Whether the percentile, by nearest rank, is a bad one: exact, since counts alone decide it."""
        return self.count > 0 and self.count - self.bad < ceil(round(share * self.count, 9))

    def percentile_ms(self, share: float) -> float:
        """The percentile by nearest rank, within `RELATIVE_ERROR`; ask only of a tally that kept latencies."""
        left = ceil(round(share * self.count, 9))
        bucket = 0
        for bucket in sorted(self.latencies):
            left -= self.latencies[bucket]
            if left <= 0:
                break
        return _middle_ms(bucket)


class Window:
    """A row of slices of time, the older ones forgotten: what all sorts of windows share.

    Args:
        window_s: its length, in seconds of the clock whose time `add` and `counts` are given.

    """

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / SLICES

    def _number(self, now_s: float) -> int:
        return int(now_s // self._slice_s)

    def _oldest(self, now_s: float) -> int:
        """The number of the oldest slice that still belongs to the window."""
        return self._number(now_s) - SLICES + 1

    def add(self, metric: LatencyMetric, bad: bool, now_s: float) -> None:
        """Count one."""
        raise NotImplementedError

    def counts(self, now_s: float) -> WindowCounts:
        """What the window holds at `now_s`."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget everything."""
        raise NotImplementedError


class SlidingWindow(Window):
    """Counts operations.

    Latencies are kept, where asked for, as counts by logarithmic buckets whose middle is within 1 % of all they hold
    (the mapping of DDSketch: Masson, Rim and Lee, 2019). Sketches of a library would have to be merged anew at each
    look; counts by slice are summed only when there is something to tell.

    Args:
        window_s: its length in seconds.
        keep_latencies: whether a percentile will be asked for.

    """

    def __init__(self, window_s: float, *, keep_latencies: bool = False) -> None:
        super().__init__(window_s)
        self._keep_latencies = keep_latencies
        self._slices: deque[tuple[int, WindowCounts]] = deque()

    def add(self, metric: LatencyMetric, bad: bool, now_s: float) -> None:
        counts = self._counts_of(self._number(now_s))
        counts.count += 1
        counts.total_ms += metric.latency_ms
        if bad:
            counts.bad += 1
        if self._keep_latencies:
            counts.latencies[_bucket(metric.latency_ms)] += 1
            if counts.example is None or metric.latency_ms >= counts.example.latency_ms:
                counts.example = metric
        elif bad:
            counts.example = metric

    def _counts_of(self, number: int) -> WindowCounts:
        if self._slices and self._slices[-1][0] >= number:
            return self._slices[-1][1]
        self._slices.append((number, counts := WindowCounts()))
        if len(self._slices) > SLICES:
            self._slices.popleft()
        return counts

    def counts(self, now_s: float) -> WindowCounts:
        whole = WindowCounts()
        for counts in self._current(now_s):
            whole.count += counts.count
            whole.bad += counts.bad
            whole.total_ms += counts.total_ms
            whole.example = self._better(whole.example, counts.example)
        return whole

    def percentile_ms(self, share: float, now_s: float) -> float:
        """The percentile over the window, by nearest rank, within `RELATIVE_ERROR`."""
        whole = WindowCounts()
        for counts in self._current(now_s):
            whole.count += counts.count
            whole.latencies.update(counts.latencies)
        return whole.percentile_ms(share)

    def _better(self, older: LatencyMetric | None, newer: LatencyMetric | None) -> LatencyMetric | None:
        if older is None or newer is None:
            return newer or older
        return older if self._keep_latencies and older.latency_ms > newer.latency_ms else newer

    def _current(self, now_s: float) -> Iterator[WindowCounts]:
        oldest = self._oldest(now_s)
        while self._slices and self._slices[0][0] < oldest:
            self._slices.popleft()
        return (counts for _, counts in self._slices)

    def clear(self) -> None:
        self._slices.clear()


class CallWindow(Window):
    """Counts phone calls: each once, and as bad once one of its operations was. Without a call_sid: not counted."""

    def __init__(self, window_s: float) -> None:
        super().__init__(window_s)
        # By call_sid, the one heard of last at the end: the slice of its newest operation, and of its newest bad one.
        self._calls: BoundedMap[str, tuple[int, int | None]] = BoundedMap(MAX_CALLS)
        self._example: LatencyMetric | None = None

    def add(self, metric: LatencyMetric, bad: bool, now_s: float) -> None:
        if metric.call_sid is None:
            return
        number = self._number(now_s)
        _, newest_bad = self._calls.get(metric.call_sid, (0, None))
        self._calls.put(metric.call_sid, (number, number if bad else newest_bad))
        if bad:
            self._example = metric

    def counts(self, now_s: float) -> WindowCounts:
        oldest = self._oldest(now_s)
        while self._calls and next(iter(self._calls.values()))[0] < oldest:
            self._calls.popitem(last=False)
        bad = sum(1 for _, newest_bad in self._calls.values() if newest_bad is not None and newest_bad >= oldest)
        return WindowCounts(len(self._calls), bad, example=self._example if bad else None)

    def clear(self) -> None:
        self._calls.clear()
        self._example = None


def _bucket(latency_ms: float) -> int:
    return ceil(log(min(max(latency_ms, _SMALLEST_MS), _LARGEST_MS)) / _LOG_GAMMA)


def _middle_ms(bucket: int) -> float:
    """The value that is at most `RELATIVE_ERROR` from every one in the bucket."""
    return 2 * exp(bucket * _LOG_GAMMA) / (1 + exp(_LOG_GAMMA))
