"""A bounded buffer and a thread for one reporter that may be slow, busy or away."""

import logging
import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from .. import semconv
from ..base.internal_errors import raise_internal_errors, try_call
from ..base.pacing import set_hurry_check
from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric
from .accounting import DeliveryCounts, DeliveryLog, ReporterStatus
from .attempt import ReporterCalls, Retry, Work
from .buffer import Batch, Buffer, are_turns
from .errors import PermanentError, TransientError, error_text
from .probe import Probe

if TYPE_CHECKING:
    from ..model.alert import Alert

__all__ = ["CAPACITY", "Lane"]

CAPACITY: Final = 16_384
FAULT_PAUSE_S: Final = 0.1


class Lane:
    """Reports to `reporter` on a thread of its own, so that a slow one delays nobody else.

    What the reporter answers decides (`TransientError`, `PermanentError`): tried again in order, while new work
    waits, or dropped. What has no room is counted as ``<name>_lane_full``, what a server refused as
    ``<name>_refused``, what was tried too often as ``<name>_gave_up``, what the reporter failed on as
    ``<name>_failed``, and what nobody confirmed before the end as ``<name>_unconfirmed``.

    Args:
        name: of the lane, its thread, its logger and its counts.
        reporter: has ``report(batch)`` or ``notify(alert)`` or both, and may have ``report_turns``, ``start`` and
            ``close``. With ``reports_when_idle = True`` and an `interval_s` above 0, ``report`` is called at least
            every `interval_s` and right after each batch of turns, with an empty batch if no measurement is queued.
        capacity, batch_size, interval_s: as of `ReportManager.add_reporter`; a batch_size of None is for as they come.
        suppressed: whether OpenTelemetry's instrumentations are off on the thread, so that what the reporter sends
            makes no spans; not where the application's own code runs.
        retry: how often the same work is handed over again.
        after: the lane that served this reporter before; nothing is called until that one's thread has ended.

    """

    def __init__(
        self,
        name: str,
        reporter: Any,
        capacity: int = CAPACITY,
        *,
        batch_size: int | None = None,
        interval_s: float = 0.0,
        suppressed: bool = True,
        retry: Retry | None = None,
        after: "Lane | None" = None,
    ) -> None:
        self.name = name
        self._reporter = reporter
        self._calls = ReporterCalls(reporter)
        self._limits = capacity, batch_size, interval_s
        self._suppressed = suppressed
        self._retry = retry or Retry()
        self.reporter_lock: threading.Lock = after.reporter_lock if after else threading.Lock()
        self._log = DeliveryLog(name)
        self._inherited: Buffer | None = None
        self._reset()

    def _reset(self) -> None:
        idle = hasattr(self._reporter, "report") and getattr(self._reporter, "reports_when_idle", False) is True
        self._buffer = Buffer(*self._limits, when_idle=idle)
        self._work: Work | None = None
        self._counts = DeliveryCounts(self.name)
        self._closing = self._abandoned = self._ended_badly = False
        self._deadline_s = math.inf
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"callbot_latency.{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The name by which alerts may ask for it, if it takes alerts."""
        return (self.name,) if hasattr(self._reporter, "notify") else ()

    def restart_after_fork(self) -> None:
        """In a forked child: buffer and counts are the parent's; the thread did not come along, `resume` starts one."""
        self.reporter_lock, self._inherited = threading.Lock(), self._buffer
        self._reset()

    def resume(self) -> None:
        """In a forked child: start the thread, and free what waited in the parent, which may take time."""
        if self._inherited is None:
            # Added in the child, where another thread may be starting it now.
            return
        with suppress(RuntimeError):  # no room for a thread: what waits here is counted at the end
            self._thread.start()
        self._inherited = None

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hand over a batch; never waits."""
        self._take_in("report", batch)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        """Hand over finished turns, where the reporter takes them; never waits."""
        self._take_in("report_turns", turns)

    def _take_in(self, method: str, batch: Batch) -> None:
        if hasattr(self._reporter, method):
            with self._changed:
                self._accept(len(batch), 0 if self._closing else self._buffer.put_batch(batch))

    def notify(self, alert: "Alert | Probe") -> None:
        """Hand over an alert that is for this lane; never waits."""
        if hasattr(self._reporter, "notify") and (alert.channels is None or self.name in alert.channels):
            with self._changed:
                self._accept(1, int(not self._closing and self._buffer.put_alert(alert)))

    def probe(self, alert: "Alert") -> "dict[str, Probe]":
        """Hand over a test alert, to be tried once; by the lane's name, if its reporter takes alerts."""
        probes = {name: Probe(alert) for name in self.channel_names}
        for probe in probes.values():
            self.notify(probe)
        return probes

    def _accept(self, amount: int, room: int) -> None:
        self._counts.accepted += amount
        self._counts.drop(semconv.DROPPED_FULL_SUFFIX, amount - room)
        self._changed.notify_all()

    def status(self) -> ReporterStatus:
        """Its numbers at this moment."""
        with self._changed:
            return self._counts.status(len(self._buffer) + self._in_flight())

    def _in_flight(self) -> int:
        """How much the reporter has in hand; under the lock."""
        return 0 if self._work is None else self._work.remaining

    @property
    def is_over(self) -> bool:
        """Whether its thread calls the reporter no more."""
        return not self._thread.is_alive()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was handed over is reported; False when the time was too short.

        Incomplete batches go at once, whatever the time-out; a lane that waits to try again goes on waiting.
        """
        with self._changed:
            self._buffer.hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._buffer and self._work is None, timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """`begin_close` and `wait_closed`."""
        self.begin_close(timeout_s)
        return self.wait_closed(timeout_s)

    def begin_close(self, timeout_s: float) -> None:
        """Take in nothing more, report what waits, close the reporter and end the thread; does not wait for it.

        A lane that waits to try again tries once more at once, unless the server asked for the wait: then when that
        is over, if it is within `timeout_s`. Where this fails too, what is left counts as unconfirmed.
        """
        with self._changed:
            self._closing = self._buffer.hurry = True
            self._deadline_s = monotonic() + timeout_s
            self._changed.notify_all()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for the end; False when the time was too short or something is left, which is counted.

        What a hanging reporter has in hand counts too: it may still arrive, but nobody will know.
        """
        if threading.current_thread() is self._thread:
            # A callback that shuts us down: the lane does the rest when that returns, and ends.
            return not self._buffer
        deadline_s = monotonic() + timeout_s
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline_s - monotonic()))
        with self._changed:
            self._abandon()
            lost = self._ended_badly or self._counts.has_dropped(semconv.DROPPED_UNCONFIRMED_SUFFIX)
            return self.is_over and not lost

    def _abandon(self) -> None:
        """Count what is left as unconfirmed, and nothing after it; under the lock."""
        self._abandoned = True
        self._counts.drop(semconv.DROPPED_UNCONFIRMED_SUFFIX, self._buffer.clear() + self._in_flight())
        self._work = None
        self._changed.notify_all()

    def _run(self) -> None:
        if self._suppressed:
            context.attach(context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        set_hurry_check(lambda: self._closing or self._buffer.hurry)
        with self.reporter_lock:
            if self._abandoned:
                return
            self._account(self._calls.start(), 0)
            while self._run_once():
                pass
            if self._is_current():
                self._close_reporter()

    def _is_current(self) -> bool:
        """Not so for what went along with a fork, a greenlet of gevent's or a reporter that forks.

        Another thread does its work here. What it has in hand is the parent's: it takes and settles nothing any more.
        """
        return threading.current_thread() is self._thread

    def _run_once(self) -> bool:
        """One piece of work; False when there will be none. Nothing that a reporter does wrong ends the thread."""
        try:
            work = self._next()
            if work is None:
                return False
            self._deliver(work)
            self._log.write_drops(self._counts, self._changed)
        except BaseException as fault:  # even SystemExit: what waits would wait for ever
            if raise_internal_errors.enabled:
                raise
            self._drop_in_flight(fault)
        return True

    def _drop_in_flight(self, fault: BaseException) -> None:
        with self._changed:
            lost = self._in_flight()
        self._account(fault, 0, semconv.DROPPED_FAILED_SUFFIX, lost)
        if not lost:
            sleep(FAULT_PAUSE_S)  # whatever it is may come again at once

    def _close_reporter(self) -> None:
        """What counted as delivered, and did not arrive after all, is known now."""
        error, suffix, lost = self._calls.close()
        self._account(error, 0)
        with self._changed:
            if not self._abandoned and self._is_current():
                lost = self._counts.undo_delivered(suffix, lost)
                self._ended_badly = error is not None or lost > 0
        self._log.write_drops(self._counts, self._changed, last=True)

    def _next(self) -> Work | None:
        with self._changed:
            while self._is_current():
                self._work = self._take_work()
                if self._work is not None:
                    return self._work
                self._changed.notify_all()
                if self._closing and not self._buffer:
                    break
                self._changed.wait(min(self._buffer.wait_s(), threading.TIMEOUT_MAX))
            return None

    def _take_work(self) -> Work | None:
        if (alert := self._buffer.take_alert()) is not None:
            return Work(self._calls.notify, alert, 1)
        batch = self._buffer.take_batch()
        if batch is None or (self._closing and not batch):
            return None
        return Work(self._reporter.report_turns if are_turns(batch) else self._reporter.report, batch, len(batch))

    def _deliver(self, work: Work) -> None:
        """Hand it over until it has arrived or is dropped."""
        while (busy := self._attempt(work)) is not None:
            if not self._wait_after(busy, work):
                return
            with self._changed:
                self._counts.retried += 1

    def _attempt(self, work: Work) -> TransientError | None:
        """Once; what is to be tried again stays in `work`, with the reason."""
        failed = semconv.DROPPED_FAILED_SUFFIX
        _, error = try_call(work.method, (work.payload,), self.name + failed, 0, (TransientError, PermanentError))
        if isinstance(error, TransientError):
            arrived, refused = work.parts_of(error)
            self._account(error, arrived, semconv.DROPPED_REFUSED_SUFFIX, refused)
            return error if work.remaining and self._is_current() else None
        if isinstance(error, PermanentError):
            refused = work.refused_count(error)
            self._account(error, work.remaining - refused, semconv.DROPPED_REFUSED_SUFFIX, refused)
        elif error is not None:
            self._account(error, 0, failed, work.remaining)
        else:
            self._account(None, work.remaining)
        return None

    def _account(self, error: BaseException | None, arrived: int, suffix: str = "", lost: int = 0) -> None:
        """Take `arrived` and `lost` out of the work, in one step; nothing once it was given up as unconfirmed."""
        with self._changed:
            if not self._is_current():
                return
            if error is not None:
                self._counts.fail(error)
            if self._work is not None:
                self._work.shrink(arrived + lost)
                self._counts.delivered += arrived
                self._counts.drop(suffix, lost)
        if arrived:
            self._log.write(logging.DEBUG, "delivered %d", arrived)

    def _wait_after(self, busy: TransientError, work: Work) -> bool:
        """Wait to try again; False when it is over with this work."""
        work.failed += 1
        if work.failed >= self._retry.attempts:
            self._account(None, 0, semconv.DROPPED_GAVE_UP_SUFFIX, work.remaining)
            return False
        asked_s = self._retry.asked_s(busy)
        wait_s = self._retry.wait_s(work.failed) if asked_s is None else asked_s
        self._log.write(logging.DEBUG, "%d again in %.1f s: %s", work.remaining, wait_s, error_text(busy))
        with self._changed:
            is_worth = self._wait_before_retry(wait_s, asked=asked_s is not None)
            if not self._is_current():
                return False
            if not is_worth:
                self._abandon()
            return is_worth

    def _wait_before_retry(self, wait_s: float, *, asked: bool) -> bool:
        """Wait, and say whether to try again: while closing only where the server named a time that is near."""
        until_s, tried_last = monotonic() + wait_s, self._closing

        def is_over() -> bool:
            return self._abandoned or (self._closing and (not asked or until_s > self._deadline_s))

        if self._changed.wait_for(is_over, wait_s):
            return not (self._abandoned or tried_last or asked)
        return True
