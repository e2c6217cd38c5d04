"""The one extension point: whatever consumes finished measurements."""

from ..delivery.accounting import ReporterStatus
from ..delivery.errors import PermanentError, TransientError
from ..delivery.protocols import Buffered, Channel, Consumer, LatencyReporter, Notifier, Ticking, TurnReporter

__all__ = [
    "Buffered",
    "Channel",
    "Consumer",
    "LatencyReporter",
    "Notifier",
    "PermanentError",
    "ReporterStatus",
    "Ticking",
    "TransientError",
    "TurnReporter",
]
