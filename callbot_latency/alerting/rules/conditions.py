"""Whether what a rule describes is the case: one class for each kind of condition, fed by the rule engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from ...model.metric import LatencyMetric
from ...model.operation import OperationStatus, OperationType
from ..policy import HEALTHY_IN_A_ROW
from . import schema
from .text import in_words
from .windows import CallWindow, SlidingWindow, Window

__all__ = ["Evaluation", "Evaluator", "evaluator_for"]

_FAILED: Final = frozenset({OperationStatus.ERROR, OperationStatus.TIMEOUT})
_SHARES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a look at the measurements gave; None in its place says that there is nothing to say."""

    holds: bool
    metric: LatencyMetric | None
    """The measurement that shows it best."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Values for the fields of the rule's text."""
    threshold_ms: float | None = None
    value_ms: float | None = None
    known: bool = True
    """False: it no longer holds only because there is nothing left to judge by."""


class Evaluator(ABC):
    """Keeps what one rule must know of the measurements that it matches.

    Times are in seconds of one monotonic clock.
    """

    each_counts = False
    """Whether each finding is a case of its own, or all of them in a row are one that lasts."""

    @abstractmethod
    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        """Take in a measurement."""

    def evaluate(self, _now_s: float) -> Evaluation | None:
        """Judge what time alone may have changed; called about once a second."""
        return None

    @abstractmethod
    def reset(self, now_s: float) -> None:
        """Forget everything: the rule comes into force now."""


def evaluator_for(rule: schema.Rule) -> Evaluator:
    """The evaluator of a rule's condition."""
    condition = rule.condition
    if isinstance(condition, schema.Latency):
        return _Latency(condition)
    if isinstance(condition, schema.Statistic):
        return _Statistic(condition)
    if isinstance(condition, schema.ErrorRate):
        return _ErrorRate(condition)
    if isinstance(condition, schema.TimeoutsInARow):
        return _TimeoutsInARow(condition)
    if isinstance(condition, schema.NoTraffic):
        return _NoTraffic(condition, rule.match)
    return _BurnRate(condition)


def _is_cancelled(metric: LatencyMetric) -> bool:
    return metric.status is OperationStatus.CANCELLED


class _Latency(Evaluator):
    each_counts = True

    def __init__(self, condition: schema.Latency) -> None:
        self._threshold_ms = condition.threshold_ms
        self._healthy = 0

    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        if _is_cancelled(metric):
            return None
        slow = metric.latency_ms >= self._threshold_ms
        if not slow:
            self._healthy += metric.status is OperationStatus.SUCCESS
            if self._healthy != HEALTHY_IN_A_ROW:
                return None
        else:
            self._healthy = 0
        facts = {"value_ms": _ms(metric.latency_ms), "threshold_ms": _ms(self._threshold_ms)}
        return Evaluation(slow, metric, facts, self._threshold_ms, metric.latency_ms)

    def reset(self, now_s: float) -> None:
        self._healthy = 0


class _TimeoutsInARow(Evaluator):
    def __init__(self, condition: schema.TimeoutsInARow) -> None:
        self._needed = condition.count
        self._row = 0
        self._newest: LatencyMetric | None = None

    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        if _is_cancelled(metric):
            return None
        if metric.status is not OperationStatus.TIMEOUT:
            ended, self._row = self._row >= self._needed, 0
            return Evaluation(False, metric) if ended else None
        self._row += 1
        self._newest = metric
        return self.evaluate(now_s) if self._row == self._needed else None

    def evaluate(self, _now_s: float) -> Evaluation | None:
        return Evaluation(True, self._newest, {"count": str(self._row)}) if self._row >= self._needed else None

    def reset(self, now_s: float) -> None:
        self._row = 0
        self._newest = None


class _NoTraffic(Evaluator):
    """What it shows is what it waits for: an operation that has not come, and for how long it has not."""

    def __init__(self, condition: schema.NoTraffic, match: schema.Match) -> None:
        self._window_s = condition.window_s
        self._awaited = LatencyMetric(
            OperationType.of(match.operation_type[0]),
            ", ".join(match.operation_name) or "*",
            0.0,
            OperationStatus.RUNNING,
            provider=", ".join(match.provider) or None,
        )
        self._heard_s = 0.0

    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        self._heard_s = now_s
        return None

    def evaluate(self, now_s: float) -> Evaluation | None:
        silence_s = max(0.0, now_s - self._heard_s)
        silence_ms = silence_s * 1000
        awaited = replace(self._awaited, latency_ms=silence_ms, timestamp=datetime.now(UTC))
        facts = {"window": in_words(self._window_s), "silence": in_words(silence_s)}
        return Evaluation(silence_s >= self._window_s, awaited, facts, self._window_s * 1000, silence_ms)

    def reset(self, now_s: float) -> None:
        self._heard_s = now_s


class _Windowed(Evaluator):
    """Something that is counted over a window, and says nothing while there is less than `min_count` of it."""

    def __init__(self, window: Window, window_s: float, min_count: int) -> None:
        self._window = window
        self._window_s = window_s
        self._min_count = min_count

    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        if not _is_cancelled(metric):
            self._window.add(metric, self._is_bad(metric), now_s)
        return None

    def reset(self, now_s: float) -> None:
        self._window.clear()

    def evaluate(self, now_s: float) -> Evaluation | None:
        count = self._window.counts(now_s).count
        if count >= self._min_count:
            return self._judged(now_s)
        return None if count else Evaluation(False, None, {"window": in_words(self._window_s)}, known=False)

    @abstractmethod
    def _is_bad(self, metric: LatencyMetric) -> bool: ...

    @abstractmethod
    def _judged(self, now_s: float) -> Evaluation: ...


class _Statistic(_Windowed):
    """Whether a percentile reaches the threshold is told by counts, exactly; the value that is shown is within 1 %."""

    def __init__(self, condition: schema.Statistic) -> None:
        self._share = _SHARES.get(condition.kind)
        self._kept = SlidingWindow(condition.window_s, keep_latencies=True)
        super().__init__(self._kept, condition.window_s, condition.min_count)
        self._threshold_ms = condition.threshold_ms

    def _is_bad(self, metric: LatencyMetric) -> bool:
        return metric.latency_ms >= self._threshold_ms

    def _judged(self, now_s: float) -> Evaluation:
        counts, threshold_ms = self._kept.counts(now_s), self._threshold_ms
        if self._share is None:
            value_ms = counts.mean_ms
            holds = value_ms >= threshold_ms
        else:
            holds = counts.has_percentile_from(self._share)
            value_ms = self._kept.percentile_ms(self._share, now_s)
            # On the side of the threshold on which the exact value is.
            value_ms = max(value_ms, threshold_ms) if holds else min(value_ms, threshold_ms)
        facts = {
            "value_ms": _ms(value_ms),
            "threshold_ms": _ms(threshold_ms),
            "count": str(counts.count),
            "window": in_words(self._window_s),
        }
        return Evaluation(holds, counts.example, facts, threshold_ms, value_ms)


class _ErrorRate(_Windowed):
    def __init__(self, condition: schema.ErrorRate) -> None:
        super().__init__(SlidingWindow(condition.window_s), condition.window_s, condition.min_count)
        self._threshold_percent = condition.threshold_percent

    def _is_bad(self, metric: LatencyMetric) -> bool:
        return metric.status in _FAILED

    def _judged(self, now_s: float) -> Evaluation:
        counts = self._window.counts(now_s)
        facts = {
            "value_percent": _percent(counts.bad_share * 100),
            "threshold_percent": _percent(self._threshold_percent),
            "bad": str(counts.bad),
            "count": str(counts.count),
            "window": in_words(self._window_s),
        }
        holds = counts.bad * 100 >= self._threshold_percent * counts.count
        return Evaluation(holds, counts.example, facts)


class _BurnRate(_Windowed):
    """Two windows, as in chapter 5 of Google's SRE workbook: the long one says that it matters, the short one that it
    is still so.
    """

    def __init__(self, condition: schema.BurnRate) -> None:
        window = CallWindow if condition.per == "call" else SlidingWindow
        super().__init__(window(condition.long_window_s), condition.long_window_s, condition.min_count)
        self._short: Window = window(condition.short_window_s)
        self._condition = condition

    def _is_bad(self, metric: LatencyMetric) -> bool:
        return metric.latency_ms >= self._condition.threshold_ms

    def add(self, metric: LatencyMetric, now_s: float) -> Evaluation | None:
        if not _is_cancelled(metric):
            bad = self._is_bad(metric)
            self._window.add(metric, bad, now_s)
            self._short.add(metric, bad, now_s)
        return None

    def reset(self, now_s: float) -> None:
        super().reset(now_s)
        self._short.clear()

    def _judged(self, now_s: float) -> Evaluation:
        condition = self._condition
        long, short = self._window.counts(now_s), self._short.counts(now_s)
        percent = condition.threshold_percent
        holds = all(counts.count and _reaches(counts.bad * 100, percent * counts.count) for counts in (long, short))
        facts = {
            "value_percent": _percent(long.bad_share * 100),
            "threshold_percent": _percent(percent),
            "threshold_ms": _ms(condition.threshold_ms),
            "objective_percent": _percent(condition.objective_percent),
            "burn_rate": f"{long.bad_share * 100 / (100 - condition.objective_percent):.1f}",
            "bad": str(long.bad),
            "count": str(long.count),
            "window": in_words(condition.long_window_s),
            "short_window": in_words(condition.short_window_s),
        }
        return Evaluation(holds, short.example or long.example, facts, condition.threshold_ms)


def _reaches(value: float, threshold: float) -> bool:
    """Not held back by the last digit of a product of decimals."""
    return value >= threshold - 1e-9 * abs(threshold)


def _ms(value: float) -> str:
    return f"{value:.0f} ms"


def _percent(value: float) -> str:
    return f"{value:.3g} %"
