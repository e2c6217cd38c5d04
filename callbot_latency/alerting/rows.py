"""What is known of each kind of operation, and of each rule, while it is slow or was told."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from .. import semconv
from ..model.alert import Alert
from ..model.metric import LatencyMetric, Severity
from .burst import is_new

__all__ = ["MAX_KEYS", "AlertState", "AlertStates", "Cooldown"]

MAX_KEYS: Final = 1_000
"""Kinds of operations that are told apart at once; those beyond share one row."""

_Key = tuple[str, str, str | None]
_OVERFLOW: Final[_Key] = (semconv.OTHER, semconv.OTHER, None)


@dataclass(slots=True)
class Cooldown:
    """The time after a message in which alike ones are held back."""

    until_s: float
    held_back: int = 0
    newest: Alert | None = None

    def left(self) -> Alert | None:
        """What is still to be told, standing for all that was held back."""
        if self.newest is None:
            return None
        return replace(self.newest, held_back=self.held_back - is_new(self.newest))


@dataclass(slots=True)
class AlertState:
    """What is known of one kind of operation, or of a rule, since it became slow, or fired."""

    cooldown_s: float
    since: datetime | None = None
    slow: int = 0
    worst_ms: float = 0.0
    worst: Severity = Severity.WARNING
    healthy: int = 0
    was_told: bool = False
    cooling: dict[Severity, Cooldown] = field(default_factory=dict)

    @property
    def held_back(self) -> int:
        """Breaches that no message stands for yet."""
        return sum(cooldown.held_back for cooldown in self.cooling.values())

    def take(self, metric: LatencyMetric, severity: Severity) -> None:
        """Count a breach."""
        self.since = self.since or metric.timestamp
        self.slow += 1
        self.healthy = 0
        self.worst_ms = max(self.worst_ms, metric.latency_ms)
        if severity is Severity.CRITICAL:
            self.worst = Severity.CRITICAL

    def close(self) -> None:
        """Slow again within the cooldown is held back as before: what flaps does not flood."""
        self.since, self.slow, self.healthy, self.worst_ms, self.worst = None, 0, 0, 0.0, Severity.WARNING
        if self.was_told:
            for cooldown in self.cooling.values():
                cooldown.held_back, cooldown.newest = 0, None
        self.was_told = False

    def pop_expired(self, now_s: float) -> list[Alert]:
        """Take out the cooldowns that are over; what they held back."""
        over = [severity for severity, cooldown in self.cooling.items() if now_s >= cooldown.until_s]
        left = [self.cooling.pop(severity).left() for severity in over]
        return [alert for alert in left if alert is not None]


class AlertStates:
    """A row for each kind of operation and each rule."""

    def __init__(self, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self.kinds: dict[_Key, AlertState] = {}
        self.rules: dict[str, AlertState] = {}

    def __iter__(self) -> Iterator[AlertState]:
        yield from self.kinds.values()
        yield from self.rules.values()

    def known(self, metric: LatencyMetric) -> AlertState | None:
        """The row of its kind, if there is one."""
        return self.kinds.get(_key_of(metric))

    def of(self, metric: LatencyMetric) -> AlertState:
        """The row of its kind."""
        key = _key_of(metric)
        if key not in self.kinds and len(self.kinds) >= MAX_KEYS:
            key = _OVERFLOW
        return self.kinds.setdefault(key, AlertState(self._cooldown_s))

    def of_rule(self, name: str, cooldown_s: float | None) -> AlertState:
        """The row of a rule, with the cooldown that it is given first."""
        state = self.rules.get(name)
        if state is None:
            state = self.rules[name] = AlertState(self._cooldown_s if cooldown_s is None else cooldown_s)
        return state

    def prune(self) -> None:
        """Forget the kinds that are well, told over and out of cooldown: a new one has a row of its own."""
        # What was told while it ran is kept for its end, unless others need the room: it may have been cancelled.
        is_full = len(self.kinds) >= MAX_KEYS
        done = [
            key
            for key, state in self.kinds.items()
            if not state.slow and not state.cooling and (is_full or not state.was_told)
        ]
        for key in done:
            del self.kinds[key]

    def clear(self) -> None:
        """Forget all of them."""
        self.kinds.clear()
        self.rules.clear()


def _key_of(metric: LatencyMetric) -> _Key:
    return metric.operation_type.value, metric.operation_name, metric.provider
