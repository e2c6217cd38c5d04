"""Limits on messages: the state of each kind of alert, its cooldown, and how many messages a minute may hold."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from .. import semconv
from ..model.alert import Alert, AlertEvent
from ..model.metric import LatencyMetric
from ..model.operation import Severity

__all__ = ["BURST_WINDOW_S", "MAX_KEYS", "AlertState", "AlertStates", "Burst", "Cooldown", "is_new", "stands_for"]

MAX_KEYS: Final = 1_000
"""The most kinds of operations that have a row of their own; all others share one row."""
BURST_WINDOW_S: Final = 60.0


def is_new(alert: Alert) -> bool:
    """Whether it is a breach that no alert has reported before."""
    return alert.event is AlertEvent.BREACH and not alert.lasts


def stands_for(alert: Alert) -> int:
    """How many breaches the alert reports: itself, if it is new, and those held back."""
    return alert.held_back + is_new(alert)


@dataclass(slots=True)
class _Minute:
    """What one severity has had of its minute."""

    ends_s: float = float("-inf")
    breaches: int = 0
    recoveries: int = 0
    summary: Alert | None = None
    recovered: Alert | None = None

    def renew(self, now_s: float) -> None:
        self.ends_s, self.breaches, self.recoveries = now_s + BURST_WINDOW_S, 0, 0

    def take(self) -> list[Alert]:
        """What was summed up, taken out: breaches first."""
        summed = [alert for alert in (self.summary, self.recovered) if alert is not None]
        self.summary = self.recovered = None
        return summed


class Burst:
    """At most `limit` messages of breaches a minute for each severity: warnings, which a channel may not even post,
    take no place of a critical alert. Recoveries have what breaches leave, and take no place of a breach.

    Args:
        limit: messages a minute.

    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minutes = {severity: _Minute() for severity in Severity}

    def admits(self, alert: Alert, now_s: float) -> bool:
        """Whether it may be sent now; if not, it is summed up, for `due`."""
        minute = self._minutes[alert.severity]
        if now_s >= minute.ends_s and minute.summary is None and minute.recovered is None:
            minute.renew(now_s)
        if alert.event is AlertEvent.RECOVERY:
            if minute.breaches + minute.recoveries < self._limit:
                minute.recoveries += 1
                return True
            minute.recovered = _recovered(minute.recovered, alert)
        else:
            if minute.breaches < self._limit:
                minute.breaches += 1
                return True
            minute.summary = _summary(minute.summary, alert)
        return False

    def due(self, now_s: float) -> list[Alert]:
        """The summaries of minutes that are over; each counts in the minute that begins."""
        due: list[Alert] = []
        for minute in self._minutes.values():
            if now_s >= minute.ends_s and (summed := minute.take()):
                minute.renew(now_s)
                minute.recoveries = sum(alert.event is AlertEvent.RECOVERY for alert in summed)
                minute.breaches = len(summed) - minute.recoveries
                due += summed
        return due

    def left(self) -> list[Alert]:
        """Take out the summaries that were not sent, at the end."""
        return [alert for minute in self._minutes.values() for alert in minute.take()]


def _summary(before: Alert | None, alert: Alert) -> Alert:
    """A summary of what was summed up before and one more; for the channels of any of them."""
    held_back = stands_for(alert) + (before.held_back if before else 0)
    return replace(alert, event=AlertEvent.SUMMARY, held_back=held_back, channels=_channels(before, alert))


def _recovered(before: Alert | None, alert: Alert) -> Alert:
    """Sum up recoveries: a single one stays as it is, several become one alert with their number."""
    if before is None:
        return alert
    return replace(
        alert,
        recovered=max(1, before.recovered) + 1,
        held_back=before.held_back + alert.held_back,
        slow=before.slow + alert.slow,
        worst_ms=max((ms for ms in (before.worst_ms, alert.worst_ms) if ms is not None), default=None),
        since=min((at for at in (before.since, alert.since) if at is not None), default=None),
        channels=_channels(before, alert),
    )


def _channels(before: Alert | None, alert: Alert) -> tuple[str, ...] | None:
    if before is None:
        return alert.channels
    if before.channels is None or alert.channels is None:
        return None
    return tuple(dict.fromkeys((*before.channels, *alert.channels)))


_Key = tuple[str, str, str | None]
_OVERFLOW: Final[_Key] = (semconv.OTHER, semconv.OTHER, None)


@dataclass(slots=True)
class Cooldown:
    """The time after a message in which alike ones are held back."""

    until_s: float
    held_back: int = 0
    newest: Alert | None = None

    def left(self) -> Alert | None:
        """The alert that reports all that was held back; None where nothing was."""
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
    was_reported: bool = False
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
        if self.was_reported:
            for cooldown in self.cooling.values():
                cooldown.held_back, cooldown.newest = 0, None
        self.was_reported = False

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
        """Remove the kinds that have recovered, were reported so and are out of cooldown: others get the room."""
        # A breach that was reported in flight is kept until its end, unless others need the room: it may be cancelled.
        is_full = len(self.kinds) >= MAX_KEYS
        done = [
            key
            for key, state in self.kinds.items()
            if not state.slow and not state.cooling and (is_full or not state.was_reported)
        ]
        for key in done:
            del self.kinds[key]

    def clear(self) -> None:
        """Forget all of them."""
        self.kinds.clear()
        self.rules.clear()


def _key_of(metric: LatencyMetric) -> _Key:
    return metric.operation_type.value, metric.operation_name, metric.provider
