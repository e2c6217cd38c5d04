"""The newest measurements in memory, with statistics on demand."""

import csv
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, overload

from .. import semconv
from ..alerting.callbacks import add_alert_callback
from ..measuring.active_session import active
from ..model.alert import Alert
from ..model.metric import LatencyMetric
from ..model.operation import CANCELLED, OperationType, Severity
from ..model.turn_metric import TurnMetric
from .statistics import Table

__all__ = ["EXPORTS", "KEPT", "KeptMetrics", "LatencyTracker", "latency_tracker"]

_log = logging.getLogger(semconv.LOGGER_TRACKER)

KEPT: Final = 10_000
"""How many metrics are kept."""
KEPT_TURNS: Final = 2_000
"""How many turns are kept."""
_MOST_MINUTES: Final = 100 * 366 * 24 * 60


_CSV_COLUMNS: Final = tuple(LatencyMetric.__dataclass_fields__)


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, semconv.METADATA: json.dumps(row[semconv.METADATA])})


EXPORTS: Final = {"json": _write_json, "jsonl": _write_jsonl, "csv": _write_csv}


class KeptMetrics(Sequence[LatencyMetric]):
    """The kept metrics, oldest first: reads like a deque, safe while measurements arrive."""

    def __init__(self, tracker: "LatencyTracker") -> None:
        self._tracker = tracker

    @property
    def maxlen(self) -> int:
        """How many metrics are kept at most."""
        return KEPT

    def __len__(self) -> int:
        return len(self._tracker.snapshot())

    @overload
    def __getitem__(self, index: int) -> LatencyMetric: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LatencyMetric]: ...
    def __getitem__(self, index: int | slice) -> LatencyMetric | Sequence[LatencyMetric]:
        return self._tracker.snapshot()[index]

    def __iter__(self) -> Iterator[LatencyMetric]:
        return iter(self._tracker.snapshot())

    def __repr__(self) -> str:
        return f"<KeptMetrics: {len(self)} of at most {KEPT}>"

    def clear(self) -> None:
        """Forget the kept metrics; the counts stay."""
        self._tracker.clear_metrics()


class LatencyTracker:
    """The last 10,000 metrics and their statistics. Every read sees what finished before it."""

    def __init__(self) -> None:
        # A signal handler may read in the middle of a read.
        self._lock = threading.RLock()
        self._kept: deque[LatencyMetric] = deque(maxlen=KEPT)
        self._turns: deque[TurnMetric] = deque(maxlen=KEPT_TURNS)
        self._counts = {by_provider: Table(by_provider) for by_provider in (False, True)}
        self._snapshot: list[LatencyMetric] | None = None
        self._drain: Callable[[], None] = _nothing
        self._discard: Callable[[], None] = _nothing
        self._enabled = True
        self.refused = False
        """Whether the settings of the last `init()` switched tracking off."""
        self._session: Any = None

    # -- wiring ---------------------------------------------------------------------------------------------------

    def connect(self, session: Any, drain: Callable[[], None], discard: Callable[[], None]) -> None:
        """Called by `init()`: what switches measuring on, what makes a read complete, what a reset throws away."""
        self._session, self._drain, self._discard = session, drain, discard
        active.session = session if self._enabled else None

    def disconnect(self) -> None:
        """Called by `shutdown()`: what is kept stays readable."""
        self.connect(None, _nothing, _nothing)

    def restart_after_fork(self) -> None:
        """In a forked child: a lock that another thread held in the parent is nobody's here."""
        self._lock = threading.RLock()

    @property
    def enabled(self) -> bool:
        """Whether operations are measured; set it to False at run time and what is wrapped runs as if bare.

        False with LATENCY_TRACKING_ENABLED=false too: nothing was started then, and setting it to True only says so.
        """
        return self._enabled and not self.refused

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(f"enabled: expected True or False, got {enabled!r}")
        self._enabled = enabled
        if enabled and self.refused:
            _log.warning(
                "tracking stays off: %s is false; set it to true and start again", semconv.ENV_TRACKING_ENABLED
            )
        if self._session is not None:
            active.session = self._session if self._enabled else None

    def take(self, metric: LatencyMetric | TurnMetric) -> None:
        """Take in one finished measurement or turn."""
        with self._lock:
            if isinstance(metric, TurnMetric):
                self._turns.append(metric)
                return
            self._kept.append(metric)
            for table in self._counts.values():
                table.add(metric)
            # Last: a signal handler may have read, and cached, in the middle of this.
            self._forget_stats()

    def _forget_stats(self) -> None:
        self._snapshot = None
        for table in self._counts.values():
            table.stats = None

    # -- reading --------------------------------------------------------------------------------------------------

    def _before_reading(self, drain: Callable[[], None]) -> None:
        """Have the read see all that finished before; a signal handler in the middle of a read sees what is there.

        It would wait for the worker, which has the pipeline's lock, and may wait for this one.
        """
        if not self._lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - as threading.Condition asks it
            drain()

    @property
    def metrics(self) -> KeptMetrics:
        """The kept metrics, oldest first; ``metrics.clear()`` forgets them."""
        return KeptMetrics(self)

    def snapshot(self) -> list[LatencyMetric]:
        """The kept metrics as a list, oldest first; do not change it."""
        self._before_reading(self._drain)
        with self._lock:
            if self._snapshot is None:
                self._snapshot = list(self._kept)
            return self._snapshot

    def clear_metrics(self) -> None:
        """Forget the kept metrics; the counts stay."""
        self._before_reading(self._drain)
        with self._lock:
            self._kept.clear()
            self._forget_stats()

    def reset_stats(self) -> None:
        """Forget counts, kept metrics and turns, also those still queued; callbacks stay."""
        self._before_reading(self._discard)
        with self._lock:
            self._kept.clear()
            self._turns.clear()
            for table in self._counts.values():
                table.counts.clear()
            self._forget_stats()

    def get_stats(
        self, operation_type: OperationType | str | None = None, *, by_provider: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Statistics by ``"<operation_type>/<operation_name>"``, cached until something new arrives.

        `count`, `errors`, `timeouts`, `cancelled` and `last_seen` (ISO 8601, UTC) are over everything since the last
        reset. `mean_ms`, `min_ms`, `max_ms`, `p50_ms`, `p95_ms` and `p99_ms` are over the kept metrics that were not
        cancelled, and None over nothing; percentiles interpolate linearly between the closest ranks.

        With `by_provider` the keys are ``"<operation_type>/<operation_name>/<provider>"``, so that no percentile mixes
        providers; what has none keeps the shorter key. Attempts stand under ``<operation_name>.attempt``.

        Raises:
            TypeError, ValueError: an unknown operation type.

        """
        self._before_reading(self._drain)
        with self._lock:
            stats = self._counts[bool(by_provider)].computed(self._kept)
        prefix = "" if operation_type is None else f"{OperationType.of(operation_type).value}/"
        return {key: dict(values) for key, values in stats.items() if key.startswith(prefix)}

    def get_recent_metrics(
        self, limit: int = 50, operation_type: OperationType | str | None = None
    ) -> list[LatencyMetric]:
        """The newest `limit` metrics (of one type, where given), oldest first.

        Raises:
            TypeError, ValueError: an unknown operation type, or a limit that is negative.

        """
        if limit < 0:
            raise ValueError(f"limit: expected a number >= 0, got {limit}")
        metrics = self.snapshot()
        if operation_type is not None:
            wanted = OperationType.of(operation_type)
            metrics = [metric for metric in metrics if metric.operation_type is wanted]
        return metrics[-limit:] if limit else []

    def get_turns(self, call_sid: str | None = None, limit: int | None = None) -> list[TurnMetric]:
        """The newest turns (of one call, where given), oldest first; of the last 2,000 of this process.

        Raises:
            ValueError: a limit that is negative.

        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit: expected a number >= 0, got {limit}")
        self._before_reading(self._drain)
        with self._lock:
            turns = [turn for turn in self._turns if call_sid is None or turn.call_sid == call_sid]
        return turns if limit is None else turns[len(turns) - limit :] if limit < len(turns) else turns

    def get_call(self, call_sid: str) -> dict[str, Any]:
        """What is kept of one call: ``turns`` and ``operations``, oldest first, as plain JSON types."""
        turns = self.get_turns(call_sid)
        operations = [metric for metric in self.snapshot() if metric.call_sid == call_sid]
        return {
            semconv.CALL_SID: call_sid,
            "turns": [turn.to_dict() for turn in turns],
            "operations": [metric.to_dict() for metric in operations],
        }

    def get_average_latency(self, operation_type: OperationType | str, minutes: float = 5) -> float | None:
        """Mean latency in ms of the operations that ended in the last `minutes`, without cancelled; None over nothing.

        Raises:
            TypeError, ValueError: an unknown operation type, or `minutes` outside of 0 to those of a century.

        """
        wanted = OperationType.of(operation_type)
        if not 0 <= minutes <= _MOST_MINUTES:
            raise ValueError(f"minutes: expected a number from 0 to {_MOST_MINUTES}, got {minutes}")
        since = datetime.now(UTC) - timedelta(minutes=minutes)
        latencies = [
            metric.latency_ms
            for metric in self.snapshot()
            if metric.operation_type is wanted
            and metric.timestamp >= since
            and metric.status is not CANCELLED
            and metric.attempt is None
        ]
        return sum(latencies) / len(latencies) if latencies else None

    def export_metrics(self, path: str | Path, format: str = "json") -> None:
        """Write the kept metrics, oldest first: ``json`` (an array), ``jsonl`` (a line each) or ``csv``.

        Missing folders are made.

        Raises:
            ValueError: another format.
            OSError: the file cannot be written.

        """
        if format not in EXPORTS:
            raise ValueError(f"format: expected one of {', '.join(EXPORTS)}, got {format!r}")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        EXPORTS[format](target, [metric.to_dict() for metric in self.snapshot()])

    def add_alert_callback(self, function: Callable[[Alert], Any], severity: Severity | str | None = None) -> None:
        """The same as `callbot_latency.add_alert_callback`."""
        add_alert_callback(function, severity)


def _nothing() -> None:
    """What a tracker drains while nothing is started."""


latency_tracker: Final = LatencyTracker()
