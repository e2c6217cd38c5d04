"""Tells of an operation that has passed its critical threshold while it still runs."""

import threading
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from ..base.internal_errors import call_safely
from ..measuring.measurement import NS_PER_MS, Measurement
from ..measuring.session import OpenMeasurements
from ..model.alert import Alert
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from .converter import claim_deadline_report, running_metric

__all__ = ["Deadlines"]

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
