"""From a breach to whoever must know."""

from ..model.alert import Alert, AlertEvent
from .callbacks import AlertCallbacks, add_alert_callback
from .channel_test import send_test
from .policy import AlertPolicy

__all__ = ["Alert", "AlertCallbacks", "AlertEvent", "AlertPolicy", "add_alert_callback", "send_test"]
