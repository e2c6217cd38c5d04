"""Alerts about an operation that has passed its critical threshold while it still runs, and `on_deadline=`."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

from opentelemetry.context import Context

from ..alerting.callback_runner import run_callback
from ..base.internal_errors import call_safely
from ..delivery.lane import Lane
from ..measuring.measurement import Measurement
from ..measuring.session import OpenMeasurements
from ..model.alert import Alert
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.units import NS_PER_MS
from ..tracing.context import attach, detach
from .converter import claim_deadline_report, running_metric

__all__ = ["Deadlines", "OnDeadline"]

NAME: Final = "on_deadline"
LONGEST_WAIT_S: Final = 1.0
SHORTEST_WAIT_S: Final = 0.005
"""However small the thresholds, the thread does not spin."""


class Deadlines:
    """One thread for all deadlines, none a call: it reads the table of what is open, and the call pays nothing.

    Between two looks it sleeps until the earliest deadline in the table, and never longer than the smallest critical
    threshold, before which nothing that began meanwhile can be due; but 5 ms at least.

    Args:
        open_measurements: the session's table.
        thresholds: whose critical ones are the deadlines, in milliseconds.
        tell: is given the operation as it stands, once, and makes the alert.
        act: is given the operation and its alert.

    """

    def __init__(
        self,
        open_measurements: OpenMeasurements,
        thresholds: Thresholds,
        tell: Callable[[LatencyMetric], Alert],
        act: Callable[[Measurement, Alert], None] | None = None,
    ) -> None:
        self._open = open_measurements
        self._thresholds = thresholds
        self._tell = tell
        self._act = act
        self._reset()

    def _reset(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callbot_latency.deadlines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def restart_after_fork(self) -> None:
        """In a forked child the thread did not come along; `start` it."""
        self._reset()

    def stop(self) -> None:
        """End the thread; what is due later is told by its end alone."""
        self._stop.set()
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(LONGEST_WAIT_S)

    def _run(self) -> None:
        wait_s: float | None = 0.0
        while not self._stop.wait(LONGEST_WAIT_S if wait_s is None else wait_s):
            if threading.current_thread() is not self._thread:
                return  # a greenlet of gevent's, which went along with a fork
            wait_s = call_safely(self._look)

    def _look(self) -> float:
        """Tell what is due; returns for how many seconds nothing can be."""
        wait_ms = min(LONGEST_WAIT_S * 1000, self._thresholds.smallest_critical_ms())
        now_ns = perf_counter_ns()
        for measurement in list(self._open.values()):
            if measurement.told_in_flight or measurement.operation.is_attempt:
                continue
            critical_ms = self._thresholds.of(measurement.operation.type).critical_ms
            left_ms = critical_ms - (now_ns - measurement.start_ns) / NS_PER_MS
            if left_ms > 0:
                wait_ms = min(wait_ms, left_ms)
            elif claim_deadline_report(measurement):
                call_safely(self._due, measurement, now_ns)
        return max(SHORTEST_WAIT_S, wait_ms / 1000)

    def _due(self, measurement: Measurement, now_ns: int) -> None:
        alert = self._tell(running_metric(measurement, now_ns))
        if self._act is not None and measurement.operation.on_deadline is not None:
            self._act(measurement, alert)


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
                self._lane = Lane(NAME, self, suppressed=False)
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

    def notify(self, due: _Due) -> None:
        """Run a function; called by the lane, on its thread."""
        due.run()
