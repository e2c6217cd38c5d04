"""Alerts on the screen, as they fire: the first of them while the caller still waits."""

import threading
import time

from rich.console import Console
from rich.text import Text

from callbot_latency import Alert, Severity, add_alert_callback
from callbot_latency.alerting import AlertEvent

_PATIENCE_S = 2.0
_STYLES = {Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}


class AlertsOnScreen:
    """Prints each breach with the seconds since `began`; callbacks get every one, whatever log and Slack hold back."""

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began
        self._ended = threading.Condition()
        self._running = 0
        add_alert_callback(self._show)

    def _show(self, alert: Alert) -> None:
        if alert.event is not AlertEvent.BREACH or alert.rule is not None:
            return
        at = f"{time.time() - self._began:6.1f}s"
        self._console.print(Text(f"{at}   alert: ") + Text(_words(alert), style=_STYLES[alert.severity]))
        with self._ended:
            if alert.in_flight:
                self._running += 1
            elif alert.metric.told_in_flight:
                self._running -= 1
            self._ended.notify_all()

    def wait_until_ended(self) -> None:
        """Wait until what was told while it ran is told as ended too: a thread of callbot_latency does both."""
        with self._ended:
            self._ended.wait_for(lambda: self._running <= 0, _PATIENCE_S)


def _words(alert: Alert) -> str:
    metric = alert.metric
    what = f"{metric.provider or metric.operation_type.value}/{metric.operation_name}"
    took = "still runs after" if alert.in_flight else "took"
    return f"{alert.severity.value}: {what} {took} {metric.latency_ms:.0f} ms"
