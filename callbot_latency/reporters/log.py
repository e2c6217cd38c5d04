"""`LogReporter`: measurements and alerts as lines of the log."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from .. import semconv
from ..alerting.message import describe, one_line_message
from ..model.alert import Alert, AlertEvent, Language
from ..model.metric import LatencyMetric
from ..model.operation import Severity

__all__ = ["LogReporter"]

_measurements: Final = logging.getLogger(semconv.LOGGER_TRACKER)
_alerts: Final = logging.getLogger(semconv.LOGGER_ALERTING)

_LEVELS: Final = {Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class LogReporter:
    """One line a measurement (logger ``callbot_latency.tracker``, DEBUG), one an alert (``callbot_latency.alerting``).

    Each line carries its ids as `extra`, since the worker that writes it is not bound to the call.

    Args:
        language: of the lines about alerts, ``en`` or ``fr``.

    """

    def __init__(self, language: Language = "en") -> None:
        self._language = language

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Log measurements, where the logger's level asks for them."""
        if _measurements.isEnabledFor(logging.DEBUG):
            for metric in batch:
                _measurements.debug("%s %s", describe(metric), metric.status.value, extra=_ids(metric))

    def notify(self, alert: Alert) -> None:
        """Log an alert: warning or error; that it is over, as information."""
        level = logging.INFO if alert.event is AlertEvent.RECOVERY else _LEVELS[alert.severity]
        _alerts.log(level, "%s", one_line_message(alert, self._language), extra=_ids(alert.metric))


def _ids(metric: LatencyMetric) -> dict[str, Any]:
    ids = (semconv.CALL_SID, semconv.STREAM_SID, semconv.TRACE_ID, semconv.SPAN_ID)
    return {name: value for name in ids if (value := getattr(metric, name)) is not None}
