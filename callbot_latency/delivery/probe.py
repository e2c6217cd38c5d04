"""An alert whose sender waits for what becomes of it."""

import threading
from time import monotonic

from ..model.alert import Alert
from .errors import error_text

__all__ = ["Probe"]


class Probe:
    """An alert whose sender waits for what becomes of it. A lane hands it over once, and never again."""

    channels = None

    def __init__(self, alert: Alert) -> None:
        self.alert = alert
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._given_up = False
        self._error: BaseException | None = None

    def begin(self) -> bool:
        """Whether somebody still waits for it: else it is not to be handed over."""
        with self._lock:
            return not self._given_up

    def end(self, error: BaseException | None) -> None:
        """Say that it was handed over, and what the reporter raised."""
        self._error = error
        self._over.set()

    def wait(self, until_s: float) -> str | None:
        """What went wrong by `until_s` of the monotonic clock, in words; None where nothing did.

        Raises:
            TimeoutError: it is not over; unless it has begun, it never will be.

        """
        if not self._over.wait(max(0.0, until_s - monotonic())):
            with self._lock:
                self._given_up = True
            raise TimeoutError
        # Of any other exception, whose text may hold a secret, the type alone.
        return None if self._error is None else error_text(self._error)
