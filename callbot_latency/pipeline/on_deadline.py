"""Runs what `on_deadline=` of a decorator asks for, while the operation still runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.context import Context

from ..alerting.callback_runner import run_callback
from ..delivery.lane import Lane
from ..measuring.measurement import Measurement
from ..model.alert import Alert
from ..tracing.context import attach, detach

__all__ = ["OnDeadline"]

NAME: Final = "on_deadline"


@dataclass(frozen=True, slots=True)
class _Due:
    """A function to call, in the context of the operation that it is about."""

    function: Callable[[Alert], Any]
    alert: Alert
    measurement: Measurement
    context: Context
    channels: None = None

    def run(self) -> None:
        """Call it, unless the operation has ended meanwhile."""
        if self.measurement.is_open:
            token = attach(self.context)
            try:
                run_callback(self.function, self.alert, self.measurement.loop)
            finally:
                detach(token)


class OnDeadline:
    """Runs each function on the event loop that awaits its operation; without one, on a thread, one after the other.

    What the function measures stands beneath the operation in the trace, and has its call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lane: Lane | None = None

    def run(self, measurement: Measurement, alert: Alert) -> None:
        """Have the function of `measurement`'s operation called."""
        function, context = measurement.operation.on_deadline, vars(measurement).get("context")
        if function is None or context is None:
            return
        due = _Due(function, alert, measurement, context)
        loop = measurement.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(due.run)
        else:
            self._thread().notify(due)  # type: ignore[arg-type]

    def _thread(self) -> Lane:
        with self._lock:
            if self._lane is None:
                self._lane = Lane(NAME, _Runner(), suppressed=False)
                self._lane.start()
            return self._lane

    def restart_after_fork(self) -> None:
        """In a forked child: the thread did not come along, and is made when it is needed."""
        self._lock, self._lane = threading.Lock(), None

    def begin_close(self, timeout_s: float) -> None:
        """Take in nothing more; a function that runs may end. Nobody waits: the operation that it is for has ended."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.begin_close(timeout_s)


class _Runner:
    """What the thread does."""

    def notify(self, due: _Due) -> None:
        """Run it."""
        due.run()
