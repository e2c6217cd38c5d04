"""What a process that measures tells of itself: what it measured, and what its own counters say became of it."""

import logging
import re
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.export import SpanExportResult

from callbot_latency import Alert, LatencyMetric, TurnMetric, latency_tracker, report_manager
from callbot_latency.base.drop_counters import dropped

DROPS = "dropped since the last such line: "


class Witness:
    """A reporter that does nothing but count: what every other one was handed too."""

    name = "witness"

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Also in a forked child."""
        self.measurements: Counter[str] = Counter()
        self.turns = self.alerts = 0

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.measurements.update("attempt" if m.attempt is not None else m.operation_name for m in batch)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.turns += len(turns)

    def notify(self, _: Alert) -> None:
        self.alerts += 1


class Ears(logging.Handler):
    """Hears what the log says of drops, and every exception that somebody's log tells of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.forget()

    def forget(self) -> None:
        """In a forked child: what was said before was the parent's."""
        self.drop_lines: list[tuple[float, str, str]] = []
        self.exceptions: list[str] = []
        self.others: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        name, said = record.name, record.getMessage()
        if DROPS in said:
            self.drop_lines.append((time.monotonic(), name, said))
        elif name == "callbot_latency.guard" or (
            not name.startswith(("opentelemetry", "callbot_latency."))
            and (record.exc_info or record.levelno >= logging.ERROR or name.startswith("examples."))
        ):
            self.exceptions.append(f"{name}: {said} {record.exc_info}")
        else:
            self.others[f"{name}: {re.sub(r'[0-9]+', 'N', said)[:90]}"] += 1

    def listen(self) -> None:
        """To everything that goes wrong without being caught, too."""
        logging.getLogger().addHandler(self)
        threading.excepthook = lambda args: self.exceptions.append(f"thread {args.thread}: {args.exc_value!r}")


class _Queue(deque[Any]):
    """Counts what goes in, and what falls out at the other end because it is full."""

    def __init__(self, most: int) -> None:
        super().__init__(maxlen=most)
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.entered = self.fallen = 0

    def appendleft(self, span: Any) -> None:
        with self.lock:
            self.entered += 1
            self.fallen += len(self) == self.maxlen
            super().appendleft(span)

    def pop(self) -> Any:
        with self.lock:
            return super().pop()


class Spans:
    """Counts what OpenTelemetry's own processor is handed, hands on, and drops; it keeps no count of its own."""

    def __init__(self, processor: Any) -> None:
        batch = processor._batch_processor
        batch._queue = self._queue = _Queue(batch._max_queue_size)
        export = batch._exporter.export
        self.forget()

        def exported(spans: Sequence[Any]) -> Any:
            result = export(spans)
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
            return result

        batch._exporter.export = exported

    def forget(self) -> None:
        """In a forked child."""
        self._queue.forget()
        self.exported = self.failed = 0

    def told(self) -> dict[str, int]:
        return {
            "accepted": self._queue.entered,
            "delivered": self.exported,
            "failed": self.failed,
            "queue_full": self._queue.fallen,
            "pending": len(self._queue),
        }


ROOM_BYTES = 1 << 16
"""What a child tells of itself is shorter, and has room where the metrics file has none."""


def limit_files(path: Path, *, full: bool) -> None:
    """No file of this process may grow beyond what the metrics file has now; or any may."""
    has = path.stat().st_size if path.exists() else 0
    most = max(has, ROOM_BYTES) if full else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def account(tag: str, witness: Witness, ears: Ears) -> dict[str, Any]:
    """Everything that the judge looks at, as JSON."""
    stats = latency_tracker.get_stats()
    return {
        "tag": tag,
        "tracker": {key: each["count"] for key, each in stats.items()},
        "told": _told(witness),
        "status": {name: _plain(status) for name, status in report_manager.status().items()},
        "dropped": dropped.by_reason(),
        "drop_lines": ears.drop_lines,
        "exceptions": ears.exceptions,
        "others": dict(ears.others.most_common(12)),
    }


def _told(witness: Witness) -> dict[str, Any]:
    return {"measurements": dict(witness.measurements), "turns": witness.turns, "alerts": witness.alerts}


def _plain(status: Any) -> dict[str, Any]:
    return {
        name: dict(getattr(status, name)) if name == "dropped" else getattr(status, name)
        for name in ("accepted", "delivered", "pending", "retried", "dropped", "last_error")
    }
