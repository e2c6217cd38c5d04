"""How many messages a minute may hold, of each severity; what exceeds that is summed up."""

from dataclasses import dataclass, replace
from typing import Final

from ..model.alert import Alert, AlertEvent
from ..model.metric import Severity

__all__ = ["BURST_WINDOW_S", "Burst", "is_new", "stands_for"]

BURST_WINDOW_S: Final = 60.0


def is_new(alert: Alert) -> bool:
    """Whether it is a breach that was not told before."""
    return alert.event is AlertEvent.BREACH and not alert.lasts


def stands_for(alert: Alert) -> int:
    """How many breaches it tells of: itself, if it is one, and those held back."""
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
        """What was summed up and is not told, at the end."""
        return [alert for minute in self._minutes.values() for alert in minute.take()]


def _summary(before: Alert | None, alert: Alert) -> Alert:
    """A summary of what was summed up before and one more; for the channels of any of them."""
    held_back = stands_for(alert) + (before.held_back if before else 0)
    return replace(alert, event=AlertEvent.SUMMARY, held_back=held_back, channels=_channels(before, alert))


def _recovered(before: Alert | None, alert: Alert) -> Alert:
    """One recovery is told as it is; of several, how many there are."""
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
