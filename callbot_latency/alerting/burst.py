"""How many messages a minute."""

from dataclasses import dataclass, replace

from .alert import Alert, AlertEvent

__all__ = ["BURST_WINDOW_S", "Burst", "is_new", "stands_for"]

BURST_WINDOW_S = 60.0


@dataclass(slots=True)
class Burst:
    """At most `limit` messages in `BURST_WINDOW_S` seconds; those beyond become one summary at its end.

    Each severity has its own, so that no flood of warnings, which a channel may not even want, takes the place of what
    is critical.
    """

    limit: int
    ends_s: float = float("-inf")
    sent: int = 0
    overflow: Alert | None = None

    def is_full(self, now_s: float) -> bool:
        """Whether a message now would be one too many."""
        if now_s >= self.ends_s and self.overflow is None:
            self._begin(now_s)
        return self.sent >= self.limit

    def count(self, now_s: float) -> None:
        """Count a message that is sent."""
        if now_s >= self.ends_s:
            self._begin(now_s)
        self.sent += 1

    def hold(self, alert: Alert) -> None:
        """Sum it up instead of sending it; for the channels of any that is summed up."""
        before = self.overflow
        if before is None:
            self.overflow = replace(alert, held_back=stands_for(alert))
            return
        channels = None
        if before.channels is not None and alert.channels is not None:
            channels = tuple(dict.fromkeys((*before.channels, *alert.channels)))
        self.overflow = replace(alert, held_back=before.held_back + stands_for(alert), channels=channels)

    def due(self, now_s: float) -> Alert | None:
        """The summary, once its time has come."""
        return self.left() if now_s >= self.ends_s else None

    def left(self) -> Alert | None:
        """The summary, whenever; and nothing is held after this."""
        held, self.overflow = self.overflow, None
        return None if held is None else replace(held, event=AlertEvent.SUMMARY)

    def _begin(self, now_s: float) -> None:
        self.ends_s, self.sent = now_s + BURST_WINDOW_S, 0


def is_new(alert: Alert) -> bool:
    """Whether it tells of a breach of its own."""
    return alert.event is AlertEvent.BREACH and not alert.lasts


def stands_for(alert: Alert) -> int:
    """How many breaches it tells of: itself, if it is one, and those held back."""
    return alert.held_back + is_new(alert)
