"""Turns breaches into alerts, in order."""

from collections.abc import Sequence

from ..guard import contained
from ..metric import LatencyMetric
from ..reporters import Notifier
from ..thresholds import Thresholds
from .alert import Alert

__all__ = ["AlertPolicy"]


class AlertPolicy:
    """The reporter that tells every breach of a batch to its notifiers."""

    def __init__(self, thresholds: Thresholds, notifiers: Sequence[Notifier]) -> None:
        self._thresholds = thresholds
        self._notifiers = tuple(notifiers)

    def start(self) -> None:
        """Nothing to start."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Alert on each measurement that has a severity."""
        for metric in batch:
            severity = metric.severity
            if severity is not None:
                alert = Alert(metric, severity, self._thresholds.breached_ms(metric.operation_type, severity))
                for notifier in self._notifiers:
                    contained(notifier.notify, alert)

    def close(self) -> None:
        """Nothing to close."""
