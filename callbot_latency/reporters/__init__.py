"""The one extension point: whatever consumes finished measurements."""

from ..delivery_protocols import Buffered, Channel, Consumer, LatencyReporter, Notifier, Ticking, TurnReporter
from .delivery import PermanentError, TransientError
from .status import ReporterStatus

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
