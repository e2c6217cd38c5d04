"""From a breach to whoever must know."""

from .alert import Alert, AlertEvent
from .callbacks import AlertCallbacks, add_alert_callback
from .policy import AlertPolicy
from .probe import send_test

__all__ = ["Alert", "AlertCallbacks", "AlertEvent", "AlertPolicy", "add_alert_callback", "send_test"]
