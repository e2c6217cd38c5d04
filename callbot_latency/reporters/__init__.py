"""The one extension point: whatever consumes finished measurements."""

from ..delivery.errors import PermanentError, TransientError
from ..delivery.protocols import Buffered, Channel, Consumer, LatencyReporter, Notifier, Ticking, TurnReporter
from ..delivery.status import ReporterStatus

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
