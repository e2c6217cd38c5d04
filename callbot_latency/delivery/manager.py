"""`report_manager`: any number of reporters, each on a lane of its own."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..base.internal_errors import call_safely
from ..model.metric import LatencyMetric
from .accounting import ReporterStatus
from .attempt import Retry
from .lane import CAPACITY, Lane
from .reporter_checks import check_methods, check_numbers, is_same, name_of

if TYPE_CHECKING:
    from ..model.alert import Alert
    from ..model.turn_metric import TurnMetric
    from .probe import Probe
    from .protocols import LatencyReporter, Notifier

__all__ = ["ReportManager", "ReporterStatus", "report_manager"]

RESERVED: Final = frozenset({"callbacks", "log"})
"""Names of lanes that are not reporters."""
REMOVE_TIMEOUT_S: Final = 2.0


class _State(Enum):
    """What becomes of a reporter."""

    ADDED = "added"
    LEAVING = "leaving"
    """Replaced by another; `shutdown()` waits for its lane."""
    REMOVED = "removed"
    """By hand; its lane may still be in the reporter."""
    PAST = "past"
    """It came from the environment, and its session is over."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A reporter, how it wants its batches, and the lane of the running session or of the last one."""

    name: str
    reporter: Any
    make_lane: Callable[..., Lane]
    by_hand: bool
    state: _State = _State.ADDED
    lane: Lane | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was removed, and its lane calls the reporter no more."""
        return self.state is _State.REMOVED and (self.lane is None or self.lane.is_over)

    def status(self) -> ReporterStatus:
        return self.lane.status() if self.lane else ReporterStatus(self.name)


class ReportManager:
    """One reporter of the pipeline that hands on to others, each isolated from all the others by a `Lane`.

    Safe from any thread, before `init()` and after it. What was added by hand stays through `shutdown()` and serves
    the next session; what `init()` added from the environment goes with `shutdown()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Read without the lock, on the worker: replaced, never changed.
        self._entries: tuple[_Entry, ...] = ()
        self._running = False

    # -- for applications ----------------------------------------------------------------------------------------------

    def add_reporter(
        self,
        reporter: "LatencyReporter | Notifier",
        *,
        name: str | None = None,
        batch_size: int | None = None,
        interval_s: float | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """Give `reporter` every measurement from now on, and every alert if it has ``notify``, on a thread of its own.

        The same object twice counts once; so do two of one class with the same ``target`` (an address, kept secret).
        By hand comes before the environment: a reporter that `init()` added with the same target is replaced.

        Args:
            reporter: has ``report(batch)`` or ``notify(alert)`` or both; ``report_turns(turns)``, ``start()`` and
                ``close()`` if it wants them.
            name: lower-case letters, digits and ``_``: what it is called in `status()`, in the reasons of drops, in
                its logger ``callbot_latency.reporters.<name>`` and among the channels of alerts. Its attribute
                ``name`` unless given, else its class's name in snake case, with a number where that is taken.
            batch_size: the most measurements and turns of one batch; its attribute ``batch_size`` unless given, else
                as many as finished together.
            interval_s: how long, in seconds, an incomplete batch waits for more; its attribute ``interval_s`` unless
                given, else 0.
            capacity: how many measurements and turns may wait; as many alerts besides.

        Raises:
            TypeError: `reporter` lacks the methods, or they cannot be called as they should.
            ValueError: a name that is malformed or taken, or a number out of range.

        """
        self._add(reporter, name, batch_size, interval_s, capacity, by_hand=True)

    def remove_reporter(self, reporter: "LatencyReporter | Notifier", *, timeout_s: float = REMOVE_TIMEOUT_S) -> bool:
        """Report what waits for `reporter`, close it, and hand it nothing more; within `timeout_s` seconds.

        Returns:
            False when something was not delivered; it is counted.

        Raises:
            ValueError: it is not one of `reporters`.

        """
        with self._lock:
            entry = self._find(reporter)
            if entry is None:
                raise ValueError(f"{type(reporter).__name__} is not one of report_manager.reporters")
            entry.state = _State.REMOVED
        return entry.lane is None or entry.lane.close(timeout_s)

    @property
    def reporters(self) -> "tuple[LatencyReporter | Notifier, ...]":
        """The reporters, in the order in which they were added."""
        return tuple(entry.reporter for entry in self._in(_State.ADDED))

    def status(self) -> dict[str, ReporterStatus]:
        """How each reporter fares, by its name; after `shutdown()`, and until the next `init()`, how it fared."""
        return {entry.name: entry.status() for entry in self._in(_State.PAST, _State.ADDED)}

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names by which alerts may ask for its reporters."""
        return tuple(name for lane in self._lanes() for name in lane.channel_names)

    # -- for init() and the pipeline -----------------------------------------------------------------------------------

    def add_from_environment(self, reporter: Any, *, name: str | None = None) -> None:
        """Add a reporter until `shutdown()`; one that stands there by hand already comes first."""
        self._add(reporter, name, None, None, CAPACITY, by_hand=False)

    def start(self) -> None:
        """Start a lane for every reporter."""
        with self._lock:
            self._entries = self._in(_State.ADDED, _State.REMOVED)
            for entry in self._in(_State.ADDED):
                self._start(entry)
            self._running = True

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hand a batch to every lane; never waits."""
        for lane in self._lanes():
            call_safely(lane.report, batch)

    def report_turns(self, turns: "Sequence[TurnMetric]") -> None:
        """Hand turns to every lane whose reporter takes them; never waits."""
        for lane in self._lanes():
            call_safely(lane.report_turns, turns)

    def notify(self, alert: "Alert") -> None:
        """Hand an alert to every lane whose reporter takes alerts; never waits."""
        for lane in self._lanes():
            call_safely(lane.notify, alert)

    def probe(self, alert: "Alert") -> "dict[str, Probe]":
        """Hand a test alert to every lane whose reporter takes alerts, by its name."""
        return {name: probe for lane in self._lanes() for name, probe in lane.probe(alert).items()}

    def flush(self, timeout_s: float) -> bool:
        """Wait until every lane has reported what it had; False when the time was too short."""
        deadline_s, lanes = monotonic() + timeout_s, self._lanes()
        for lane in lanes:
            lane.flush(0.0)  # all of them begin at once
        return all(lane.flush(max(0.0, deadline_s - monotonic())) for lane in lanes)

    def begin_close(self, timeout_s: float) -> None:
        """Let every lane begin to end."""
        with self._lock:
            self._running = False
            # Until the next start they count what comes too late.
            for lane in self._lanes():
                lane.begin_close(timeout_s)

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for the end of every lane, then forget what came from the environment; False when time was too short."""
        deadline_s = monotonic() + timeout_s
        lanes = (*self._lanes(_State.LEAVING), *self._lanes())
        closed = [lane.wait_closed(max(0.0, deadline_s - monotonic())) for lane in lanes]
        with self._lock:
            for entry in self._in(_State.ADDED):
                if not entry.by_hand:
                    entry.state = _State.PAST
            self._entries = self._in(_State.ADDED, _State.REMOVED, _State.PAST)
        return all(closed)

    def close(self, timeout_s: float = REMOVE_TIMEOUT_S) -> bool:
        """`begin_close` and `wait_closed`."""
        self.begin_close(timeout_s)
        return self.wait_closed(timeout_s)

    def restart_after_fork(self, *, running: bool = True) -> None:
        """In a forked child: buffers and counts are the parent's, and no thread came along.

        Where no session runs in the child, what a start had added from the environment is of no use.
        """
        self._lock = threading.Lock()
        self._running &= running
        self._entries = tuple(entry for entry in self._in(_State.ADDED) if self._running or entry.by_hand)
        for entry in self._entries:
            if self._running and entry.lane is not None:
                call_safely(entry.lane.restart_after_fork)
            else:
                entry.lane = None

    def resume(self) -> None:
        """In a forked child: start the threads."""
        for lane in self._lanes():
            call_safely(lane.resume)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _add(
        self,
        reporter: Any,
        name: str | None,
        batch_size: int | None,
        interval_s: float | None,
        capacity: int,
        *,
        by_hand: bool,
    ) -> None:
        check_methods(reporter)
        size = getattr(reporter, "batch_size", None) if batch_size is None else batch_size
        interval = getattr(reporter, "interval_s", 0.0) if interval_s is None else interval_s
        check_numbers(capacity, size, interval)
        with self._lock:
            there = self._find(reporter)
            if there is not None and (there.by_hand or not by_hand or there.reporter is reporter):
                there.by_hand |= by_hand
                return
            taken = RESERVED | {entry.name for entry in self._in(_State.ADDED) if entry is not there}
            chosen = name_of(reporter, name, taken)
            retry = getattr(reporter, "retry", None)
            # What somebody else's reporter calls so may be anything.
            own = retry if isinstance(retry, Retry) else None
            make_lane = partial(Lane, chosen, reporter, capacity, batch_size=size, interval_s=interval, retry=own)
            if there is not None:
                there.state = _State.LEAVING
                if there.lane is not None:
                    there.lane.begin_close(REMOVE_TIMEOUT_S)
            entry = _Entry(chosen, reporter, make_lane, by_hand)
            self._entries = (*(each for each in self._entries if not each.is_gone), entry)
            if self._running:
                self._start(entry)

    def _in(self, *states: _State) -> tuple[_Entry, ...]:
        return tuple(entry for entry in self._entries if entry.state in states)

    def _lanes(self, *states: _State) -> list[Lane]:
        """The lanes in these states; without any, those that serve, and of a session that is over those that count."""
        return [entry.lane for entry in self._in(*(states or (_State.ADDED, _State.PAST))) if entry.lane is not None]

    def _start(self, entry: _Entry) -> None:
        """Start a lane that calls the reporter once no earlier lane does."""
        earlier = [each.lane for each in self._entries if each.reporter is entry.reporter and each.lane is not None]
        entry.lane = entry.make_lane(after=earlier[-1] if earlier else None)
        entry.lane.start()

    def _find(self, reporter: Any) -> _Entry | None:
        return next((entry for entry in self._in(_State.ADDED) if is_same(entry.reporter, reporter)), None)


report_manager: Final = ReportManager()
"""The one that `init()` starts and `shutdown()` ends."""
