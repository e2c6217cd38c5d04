"""Counts by operation since the last reset, and statistics of the latencies that are kept."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from .. import semconv
from ..model.metric import LatencyMetric
from ..model.operation import CANCELLED, OperationStatus

__all__ = ["MAX_KEYS", "Table", "percentile"]

MAX_KEYS: Final = 1_000
"""How many operations have counts of their own; later ones share ``<type>/other``."""


class _Counts:
    __slots__ = ("by_status", "last_seen")

    def __init__(self) -> None:
        self.by_status = dict.fromkeys(OperationStatus, 0)
        self.last_seen: datetime | None = None

    def add(self, metric: LatencyMetric) -> None:
        self.by_status[metric.status] += 1
        if self.last_seen is None or metric.timestamp > self.last_seen:
            self.last_seen = metric.timestamp


class Table:
    """The counts by operation, or by operation and provider; an unknown provider is no part of the key."""

    def __init__(self, by_provider: bool) -> None:
        self._by_provider = by_provider
        self.counts: dict[str, _Counts] = {}
        self.stats: dict[str, dict[str, Any]] | None = None

    def _key(self, metric: LatencyMetric) -> str:
        # _value_ is what .value reads, without the cost of Enum's descriptor.
        key = f"{metric.operation_type._value_}/{metric.operation_name}"
        return f"{key}/{metric.provider}" if self._by_provider and metric.provider else key

    def add(self, metric: LatencyMetric) -> None:
        key = self._key(metric)
        counts = self.counts.get(key)
        if counts is None:
            if len(self.counts) >= MAX_KEYS:
                key = _other(metric)
            counts = self.counts.setdefault(key, _Counts())
        counts.add(metric)

    def computed(self, kept: Iterable[LatencyMetric]) -> dict[str, dict[str, Any]]:
        if self.stats is None:
            latencies: dict[str, list[float]] = {key: [] for key in self.counts}
            key_of, list_of = self._key, latencies.get
            for metric in kept:
                if metric.status is not CANCELLED:
                    of_key = list_of(key_of(metric))
                    if of_key is None:
                        of_key = latencies.setdefault(_other(metric), [])
                    of_key.append(metric.latency_ms)
            self.stats = {key: _statistics(self.counts[key], sorted(latencies[key])) for key in self.counts}
        return self.stats


def _other(metric: LatencyMetric) -> str:
    return f"{metric.operation_type.value}/{semconv.OTHER}"


def _statistics(counts: _Counts, latencies: list[float]) -> dict[str, Any]:
    by_status = counts.by_status
    return {
        "count": sum(by_status.values()),
        "errors": by_status[OperationStatus.ERROR],
        "timeouts": by_status[OperationStatus.TIMEOUT],
        "cancelled": by_status[OperationStatus.CANCELLED],
        "mean_ms": sum(latencies) / len(latencies) if latencies else None,
        "min_ms": latencies[0] if latencies else None,
        "max_ms": latencies[-1] if latencies else None,
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
        "p99_ms": percentile(latencies, 0.99),
        "last_seen": counts.last_seen.isoformat().replace("+00:00", "Z") if counts.last_seen else None,
    }


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The `share` (0 to 1) of ascending values, interpolated linearly (type 7 of Hyndman and Fan, 1996)."""
    if not ordered:
        return None
    position = (len(ordered) - 1) * share
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
