"""Callbacks of the application, called for every breach."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..base.concurrency import running_loop
from ..model.alert import Alert
from ..model.operation import Severity
from .callback_runner import LoopCapacity, run_callback

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["AlertCallbacks", "add_alert_callback", "callbacks"]

_Registered = tuple[Callable[[Alert], Any], Severity | None, "AbstractEventLoop | None"]


class AlertCallbacks:
    """Calls each registered function with each alert, in order. Registration outlives `shutdown()`.

    Coroutines on the application's event loop begin in order and are not waited for: up to 1,000 are under way at once
    on a loop, further calls are dropped and counted as ``callbacks_loop_full``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._functions: tuple[_Registered, ...] = ()
        self._capacity = LoopCapacity()

    def add(self, function: Callable[[Alert], Any], severity: Severity | str | None = None) -> None:
        """Call `function(alert)` for each breach, or for those of one severity.

        Raises:
            TypeError, ValueError: not callable, or an unknown severity.

        """
        if not callable(function):
            raise TypeError(f"alert callback: expected a function of one alert, got {type(function).__name__}")
        wanted = None if severity is None else Severity(severity)
        with self._lock:
            self._functions += ((function, wanted, running_loop()),)

    def restart_after_fork(self) -> None:
        """In a forked child: a lock that another thread held in the parent is nobody's here."""
        self._lock = threading.Lock()

    def notify(self, alert: Alert) -> None:
        """Call every function; one that raises is logged, and the next is called all the same."""
        for function, severity, loop in self._functions:
            if severity is None or severity is alert.severity:
                run_callback(function, alert, loop, self._capacity)


callbacks: Final = AlertCallbacks()


def add_alert_callback(function: Callable[[Alert], Any], severity: Severity | str | None = None) -> None:
    """Call `function(alert)` for every warning and critical breach, in order, on a thread of ours.

    Alert rules reach it where their channels name ``callbacks``.

    Args:
        function: given an `Alert` with `.metric`, `.severity` and `.threshold_ms`. Of a coroutine function the calls
            begin in order on the event loop that runs where it was added; they run side by side, at most 1,000 (the
            rest is counted as ``callbacks_loop_full``), and `shutdown()` waits for none. Where no loop runs, each is
            awaited to its end on one of ours.
        severity: only those of this severity.

    Raises:
        TypeError, ValueError: not callable, or an unknown severity.

    """
    callbacks.add(function, severity)
