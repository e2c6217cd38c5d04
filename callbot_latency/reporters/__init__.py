"""The one extension point: whatever consumes finished measurements."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..metric import LatencyMetric
from .delivery import PermanentError, TransientError

if TYPE_CHECKING:
    from ..alerting import Alert

__all__ = ["LatencyReporter", "Notifier", "PermanentError", "Ticking", "TransientError"]


class LatencyReporter(Protocol):
    """Consumes batches of finished measurements, in order. Called on our threads, never on the call's."""

    def report(self, batch: Sequence[LatencyMetric], /) -> None:
        """Take in a batch; what raises here is counted, logged, and keeps no other reporter from its batch."""

    def start(self) -> None:
        """Called once before the first batch."""

    def close(self) -> object:
        """Called once after the last batch."""


class Notifier(LatencyReporter, Protocol):
    """A reporter that also wants alerts."""

    def notify(self, alert: "Alert", /) -> None:
        """Take in one alert."""


@runtime_checkable
class Ticking(Protocol):
    """A reporter of the worker that has something to do when time passes."""

    def tick(self) -> None:
        """Called about ten times a second, on the worker."""
