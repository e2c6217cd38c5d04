"""One bounded queue and one worker between the call and everything that consumes measurements."""

import logging
import threading
from collections import deque
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from itertools import repeat
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from .. import semconv
from ..base.drop_counters import dropped
from ..base.internal_errors import call_safely
from ..base.pacing import Pace
from ..base.phone_numbers import REDACT, PhoneNumbers
from ..delivery.protocols import Buffered, Consumer, Ticking, TurnReporter
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from .converter import to_metric
from .drop_log import DropLog
from .tracker import LatencyTracker

__all__ = ["CAPACITY", "Pipeline"]

R = TypeVar("R")

CAPACITY: Final = 16_384
"""How many measurements may wait for the worker."""
PARTS: Final = 64
LARGEST_PART: Final = 10
"""The worker reports one of so many parts of what waits, at most ten items of 50 microseconds, then yields the GIL."""
INTERVAL_S: Final = 0.1
"""How often the worker looks without being woken."""
LAST_WORD_S: Final = 0.1
"""How long the end waits at least for the last line of the log, whose handler may hang."""

_log = logging.getLogger(semconv.LOGGER_PIPELINE)


class Pipeline:
    """Takes what finished from the call, and hands it as LatencyMetrics to the tracker and every reporter.

    `submit` takes no lock and does no I/O: it may run in a finaliser or a signal handler. The tracker is fed inside
    `drain`, which a reader shares with the worker, so that a read sees every measurement that finished before it;
    the reporters run on the worker, outside of its lock.
    """

    def __init__(
        self,
        tracker: LatencyTracker,
        reporters: Sequence[Consumer],
        thresholds: Thresholds,
        *,
        phones: PhoneNumbers = REDACT,
        capacity: int = CAPACITY,
    ) -> None:
        self._tracker = tracker
        self._reporters = tuple(reporters)
        self._lanes: list[Buffered] = [each for each in self._reporters if isinstance(each, Buffered)]
        self._ticks = [each.tick for each in self._reporters if isinstance(each, Ticking)]
        self._turn_reports = [each.report_turns for each in self._reporters if isinstance(each, TurnReporter)]
        self._thresholds = thresholds
        self._phones = phones
        self._capacity = capacity
        self._inherited: Sequence[Any] = ()
        self._reset()

    def _reset(self) -> None:
        self._queue: deque[Any] = deque()
        self._unreported: list[tuple[Any, LatencyMetric | TurnMetric]] = []
        self._converting: deque[Any] = deque()
        self._converted_not_removed = False
        self._tracked = 0
        # Entered again only by a signal handler or a finaliser, which then finds `_draining` set, or that nothing has
        # begun yet.
        self._lock = threading.RLock()
        self._draining = False
        # SimpleQueue.put is documented as reentrant: it may wake the worker from a finaliser or a signal handler.
        self._wake: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._closing = self._closed = self._given_up = False
        self._drop_log = DropLog()
        self._thread = threading.Thread(target=self._run, name="callbot_latency.worker", daemon=True)
        self.has_threads: bool | None = True
        """In a forked child None until its threads were started, then whether they could be."""

    def start(self) -> None:
        """Start the worker and every reporter."""
        for reporter in self._reporters:
            call_safely(reporter.start)
        self._thread.start()

    def restart_after_fork(self) -> None:
        """In a forked child: what waits is the parent's to report; locks and threads are new. Waits for nothing."""
        self._inherited = self._queue, self._unreported, self._converting
        self._reset()
        self.has_threads = None
        for reporter in self._reporters:
            if hasattr(reporter, "restart_after_fork"):
                call_safely(reporter.restart_after_fork)

    def resume(self, *starts: Callable[[], object]) -> bool:
        """In a forked child: start the threads, call `starts`, and free what waited in the parent; this takes time.

        Returns:
            False where the worker's thread cannot be started.

        """
        reporters = [reporter.resume for reporter in self._reporters if hasattr(reporter, "resume")]
        for start in (self._thread.start, *reporters, *starts):
            call_safely(_if_there_is_room, start)
        self.has_threads = self._thread.ident is not None
        inherited, self._inherited = self._inherited, ()
        for waiting in inherited:
            while waiting:  # one by one: to free them all at once would hold up every other thread
                waiting.pop()
        return self.has_threads

    def _has_resumed(self, timeout_s: float) -> bool:
        """Wait until a forked child's threads run. A signal handler may do so in the middle of this: without a lock."""
        deadline_s = monotonic() + timeout_s
        while self.has_threads is None and monotonic() < deadline_s:
            sleep(0.001)
        return bool(self.has_threads)

    def submit(self, item: Any) -> None:
        """Take in a Measurement, a LatencyMetric or a finished span; when full or closed, drop it and count."""
        waiting = len(self._queue)
        if waiting + len(self._converting) + len(self._unreported) >= self._capacity:
            dropped.add(semconv.DROPPED_QUEUE_FULL)
            return
        self._queue.append(item)
        if self._closed:
            self._drop(self._queue, semconv.DROPPED_AFTER_SHUTDOWN)
        elif waiting == self._capacity // 4 or getattr(item, "severity", None) is not None:
            self._wake.put(None)

    def drain(self) -> None:
        """Convert what waits and give it to the tracker: after this, a read sees all that finished before."""
        self._exclusively(self._convert_and_track)

    def discard(self) -> None:
        """Keep what waits for the reporters alone: the tracker does not get it."""
        self._exclusively(self._convert_past_tracker)

    def _exclusively(self, work: Callable[[], R]) -> R | None:
        """Do what changes what waits; nothing where this interrupts that, as a signal handler or finaliser may."""
        with self._lock:
            if self._draining:
                return None
            self._draining = True
            try:
                return work()
            finally:
                self._draining = False

    def _convert_past_tracker(self) -> None:
        self._convert()
        self._tracked = len(self._unreported)

    def _convert_and_track(self, at_most: int | None = None) -> int:
        converted = self._convert(at_most)
        self._track()
        return converted

    def _track(self) -> None:
        """Give the tracker what it has not had, one by one: an interrupted reader leaves the rest to the next."""
        unreported = self._unreported
        while self._tracked < len(unreported):
            self._tracker.take(unreported[self._tracked][1])
            self._tracked += 1

    def _convert(self, at_most: int | None = None) -> int:
        """Move what waits, or `at_most` of it, to what is not yet reported; under the lock. How many that was.

        A reader may be interrupted between any two steps, by Ctrl-C or by a signal handler that raises. So all that
        waits is taken in one step of C, where no handler runs, and leaves `_converting` one by one after it was kept.
        """
        converting, unreported = self._converting, self._unreported
        with suppress(IndexError):
            converting.extend(map(deque.popleft, repeat(self._queue)))
        self._remove_converted()
        amount = len(converting) if at_most is None else min(at_most, len(converting))
        for done in range(amount):
            if self._given_up:
                return done
            item = converting[0]
            self._converted_not_removed = True
            try:
                metric = item if isinstance(item, TurnMetric) else to_metric(item, self._thresholds, self._phones)
            except Exception as invalid:  # noqa: BLE001 - one bad item does not take its batch along
                dropped.add(semconv.DROPPED_INVALID)
                _log.debug("not a measurement: %s", type(invalid).__name__)
            else:
                unreported.append((item, metric))
            converting.popleft()
            self._converted_not_removed = False
        return amount

    def _remove_converted(self) -> None:
        """Drop from `_converting` what an interrupted reader has converted already."""
        newest = self._unreported[-1][0] if self._converted_not_removed and self._unreported else None
        if self._converting and newest is self._converting[0]:
            self._converting.popleft()
        self._converted_not_removed = False

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that finished before is with its reporters; False when the time was too short."""
        done = threading.Event()
        deadline_s = monotonic() + timeout_s
        if not (self._has_resumed(timeout_s) and self._thread.is_alive()):
            return False
        self._wake.put(done)
        while not done.wait(min(INTERVAL_S, max(0.0, deadline_s - monotonic()))):
            if monotonic() >= deadline_s or not self._thread.is_alive():
                break
        if not done.is_set():  # a worker that ends answers first
            return False
        for lane in self._lanes:
            lane.flush(0.0)  # all of them begin at once
        return all(lane.flush(max(0.0, deadline_s - monotonic())) for lane in self._lanes)

    def end_worker(self, timeout_s: float) -> bool:
        """Hand what waits to the reporters and take in nothing more; False when `timeout_s` was too short."""
        deadline_s = monotonic() + timeout_s
        self._closing = True
        self._wake.put(None)
        if self._has_resumed(timeout_s):
            self._thread.join(max(0.0, deadline_s - monotonic()))
            if not self._thread.is_alive():
                return True
        else:
            self._closed = self.has_threads is False  # no worker does so
        # The worker ends after the item that it converts. It counts what comes until then, or all if the lock is taken.
        self._given_up = True
        if self._lock.acquire(timeout=LAST_WORD_S):
            try:
                self._drop_queue()
            finally:
                self._lock.release()
        return False

    def _drop_queue(self) -> None:
        """Drop all that waits; under the lock."""
        if self._draining:  # by the thread that this one interrupts
            return
        self._remove_converted()
        self._drop(self._converting, semconv.DROPPED_NO_TIME)
        self._drop(self._queue, semconv.DROPPED_NO_TIME)

    @staticmethod
    def _drop(waiting: MutableSequence[Any], reason: str) -> None:
        with suppress(IndexError):
            while True:
                waiting.pop()
                dropped.add(reason)

    def close_reporters(self, timeout_s: float) -> bool:
        """End every reporter and its thread, after the worker; False when `timeout_s` was too short."""
        deadline_s = monotonic() + max(0.05, timeout_s)
        for reporter in self._reporters:
            if not isinstance(reporter, Buffered):
                call_safely(reporter.close)  # may have a last word for a lane
        # All of them at the same time: one that hangs does not take the others' share.
        for lane in self._lanes:
            call_safely(lane.begin_close, max(0.05, timeout_s))
        closed = [call_safely(lane.wait_closed, max(0.0, deadline_s - monotonic())) for lane in self._lanes]
        call_safely(self._drop_log.write_last, max(LAST_WORD_S, deadline_s - monotonic()))
        return all(closed)

    def _run(self) -> None:
        while self._is_worker_thread() and not self._closing:
            calls = self._wait_for_wakeups()
            asked = [done for done in calls if done is not None]
            call_safely(self._process, soon=bool(calls), hurry=bool(asked))
            for done in asked:
                done.set()
        if not self._is_worker_thread():
            return
        call_safely(self._process)
        self._closed = True
        call_safely(self._process)
        if self._given_up:
            with self._lock:
                self._drop_queue()
        for call in self._wait_for_wakeups(0.0):
            if call is not None:
                call.set()

    def _wait_for_wakeups(self, timeout_s: float = INTERVAL_S) -> list[threading.Event | None]:
        """Wait to be woken, and take along every other call there is: an event by whoever waits for the work."""
        calls = []
        with suppress(Empty):
            calls.append(self._wake.get(timeout=timeout_s))
            while True:
                calls.append(self._wake.get_nowait())
        return calls

    def _is_worker_thread(self) -> bool:
        """Not so for a greenlet of gevent's that went along with a fork: another one is the worker there."""
        return threading.current_thread() is self._thread

    def _process(self, *, soon: bool = False, hurry: bool = False) -> None:
        """Report all that finished before, part by part: what a part holds is safe, whatever goes on measuring.

        Between two parts it gives way; its parts are larger where it is to be done `soon`, and most in a `hurry`.
        """
        left = len(self._queue) + len(self._converting)
        pace = Pace(LARGEST_PART if soon else max(1, min(left // PARTS, LARGEST_PART)))
        while not self._given_up:
            if hurry or self._closing:
                pace.hurry()
            elif not self._wake.empty():
                pace.at_least(LARGEST_PART)
            left -= self._report_a_part(pace.chunk_size)
            if left <= 0 or not (self._queue or self._converting):
                break
            pace.yield_gil()
        for tick in self._ticks:
            call_safely(tick)
        self._drop_log.write()

    def _report_a_part(self, at_most: int) -> int:
        """Convert and report at most so many, and what a reader has converted; how many were converted."""
        converted, kept = self._exclusively(lambda: self._take_a_part(at_most)) or (0, [])
        batch = [metric for metric in kept if isinstance(metric, LatencyMetric)]
        turns = [metric for metric in kept if isinstance(metric, TurnMetric)]
        if batch:
            for reporter in self._reporters:
                call_safely(reporter.report, batch)
        if turns:
            for report_turns in self._turn_reports:
                call_safely(report_turns, turns)
        return converted

    def _take_a_part(self, at_most: int) -> tuple[int, list[LatencyMetric | TurnMetric]]:
        converted = self._convert_and_track(at_most)
        kept, self._unreported, self._tracked = self._unreported, [], 0
        return converted, [metric for _, metric in kept]


def _if_there_is_room(start: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # no room for another thread
        start()
