"""What is told when a threshold is breached."""

from dataclasses import dataclass

from ..metric import LatencyMetric, Severity

__all__ = ["Alert"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One breach: the measurement, how bad it is, and the threshold in milliseconds that it reached."""

    metric: LatencyMetric
    severity: Severity
    threshold_ms: float
