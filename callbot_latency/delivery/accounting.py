"""What a lane accepted, delivered, dropped and still has, and the status that shows it."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from .. import semconv
from ..base.drop_counters import dropped
from ..base.internal_errors import RateLimiter
from .errors import error_text

__all__ = ["DeliveryCounts", "DeliveryLog", "ReporterStatus"]


@dataclass(frozen=True, slots=True)
class ReporterStatus:
    """The numbers of one reporter since `init()`, measurements, turns and alerts together, all read at one moment.

    At every moment ``accepted == delivered + sum(dropped.values()) + pending``.

    Attributes:
        name: of the reporter's lane: the beginning of its reasons in ``callbot.telemetry.dropped``.
        accepted: all that was handed over for this reporter, what found no room included.
        delivered: what the reporter took without complaint.
        pending: what waits, and what the reporter has in hand.
        retried: how many times something was handed over again.
        dropped: counts by reason; a reason that never occurred is absent.
        last_error: text of the last TransientError or PermanentError, scrubbed; of any other exception its type's name.
        last_error_at: when that was, UTC.

    """

    name: str
    accepted: int = 0
    delivered: int = 0
    pending: int = 0
    retried: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    last_error: str | None = None
    last_error_at: datetime | None = None


class DeliveryCounts:
    """The counts of one lane, which holds its lock around every call.

    Args:
        name: of the lane: the beginning of its reasons.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.accepted: int = 0
        self.delivered: int = 0
        self.retried: int = 0
        self._dropped: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._last_error: tuple[str, datetime] | None = None

    def drop(self, suffix: str, amount: int) -> None:
        """Count; the lane's thread logs it later, since a log handler may be what hangs."""
        if amount:
            reason = self._name + suffix
            dropped.add(reason, amount)
            self._dropped[reason] += amount
            self._unlogged[reason] += amount

    def undo_delivered(self, suffix: str, amount: int) -> int:
        """So many that counted as delivered were dropped after all; how many could be."""
        amount = max(0, min(amount, self.delivered))
        self.delivered -= amount
        self.drop(suffix, amount)
        return amount

    def fail(self, error: BaseException) -> None:
        """Keep what went wrong last."""
        self._last_error = error_text(error), datetime.now(UTC)

    def has_dropped(self, suffix: str) -> bool:
        """Whether anything was, for that reason."""
        return self._name + suffix in self._dropped

    def unlogged(self) -> str:
        """What was dropped since `mark_logged`, with the last error; empty where nothing was."""
        if not self._unlogged:
            return ""
        lost = ", ".join(f"{reason}: {n}" for reason, n in sorted(self._unlogged.items()))
        return f"{lost} ({self._last_error[0]})" if self._last_error else lost

    def mark_logged(self) -> None:
        """Note that `unlogged()` was logged."""
        self._unlogged.clear()

    def status(self, pending: int) -> ReporterStatus:
        """The numbers of this moment."""
        error, at = self._last_error or (None, None)
        return ReporterStatus(
            name=self._name,
            accepted=self.accepted,
            delivered=self.delivered,
            pending=pending,
            retried=self.retried,
            dropped=MappingProxyType(dict(self._dropped)),
            last_error=error,
            last_error_at=at,
        )


class DeliveryLog:
    """The log of one lane. Nothing that a handler raises gets out of here."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(semconv.LOGGER_REPORTER_PREFIX + name)
        self._is_due = RateLimiter()

    def write(self, level: int, text: str, *values: object) -> None:
        """Write one line."""
        with suppress(Exception):  # a handler of the application's log may raise
            self._logger.log(level, text, *values)

    def write_drops(self, counts: DeliveryCounts, lock: AbstractContextManager[object], *, last: bool = False) -> None:
        """Write what was dropped since the last such line: once a minute as a warning, and the `last` time always."""
        with lock:
            lost = counts.unlogged()
            if not lost:
                return
            is_due = self._is_due() or last
            if is_due or self._logger.isEnabledFor(logging.DEBUG):
                counts.mark_logged()
        self.write(logging.WARNING if is_due else logging.DEBUG, "dropped since the last such line: %s", lost)
