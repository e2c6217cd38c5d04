"""What is told when a threshold is breached."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

from .metric import LatencyMetric
from .operation import Severity

__all__ = ["Alert", "AlertEvent", "Language"]

Language = Literal["en", "fr"]
"""What alerts are written in."""


class AlertEvent(Enum):
    """What an alert tells."""

    BREACH = "breach"
    RECOVERY = "recovery"
    """Operations of this kind are back under their warning threshold."""
    SUMMARY = "summary"
    """More kinds of operations were slow at once than are told one by one."""
    TEST = "test"
    """Nothing was slow: `send_test()` asks whether the channel works."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One breach, or the end of many: the measurement, how bad it is, and the threshold that it reached.

    Durations are in milliseconds. What a breach does not have is None or 0.
    """

    metric: LatencyMetric
    """What was measured. Of a rule about many: the one that shows it best, such as the slowest. Of a rule that hears
    nothing: the operation that it waits for, with the status `OperationStatus.RUNNING`, how long it has waited as
    `latency_ms`, and the rule's own pattern as its name."""
    severity: Severity
    threshold_ms: float
    """What was reached. Of a rule about a share or a count: the threshold of the operation's type."""
    event: AlertEvent = AlertEvent.BREACH
    in_flight: bool = False
    """The operation still runs; `metric.latency_ms` is how long it has run so far."""
    held_back: int = 0
    """How many alike were held back since the last message of this kind; of a summary: how many it sums up."""
    since: datetime | None = None
    """When the first breach of a row was, in UTC."""
    slow: int = 0
    """How many were slow in that row, this one included, though it may still run; how often a rule fired."""
    worst_ms: float | None = None
    """The longest of them; the largest value of a rule that is about a time."""
    trace_url: str | None = None
    """Where the trace can be looked at, when LATENCY_TRACE_URL is set."""
    channels: tuple[str, ...] | None = None
    """Names of the channels that it is for; None for all."""
    rule: str | None = None
    """Name of the rule of LATENCY_ALERT_RULES_FILE that fired, or that is over."""
    text: str | None = None
    """What the rule says, with its fields filled in."""
    lasts: bool = False
    """The rule fires since it was told before, and no other time: a reminder, once a cooldown."""
    recovered: int = 0
    """Of a recovery that sums up several: how many kinds of operations, or rules, recovered; 0 of a single one."""

    def is_wanted(self, severity: Severity) -> bool:
        """Whether a channel that asks for `severity` takes this; an alert that names its channels always passes."""
        return self.channels is not None or severity is not Severity.CRITICAL or self.severity is Severity.CRITICAL
