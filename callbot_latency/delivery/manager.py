"""`report_manager`: any number of reporters, each on a lane of its own."""

import inspect
import math
import re
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..base.internal_errors import call_safely
from ..model.metric import LatencyMetric
from .accounting import ReporterStatus
from .attempt import Retry
from .lane import CAPACITY, Lane

if TYPE_CHECKING:
    from ..model.alert import Alert
    from ..model.turn_metric import TurnMetric
    from .probe import Probe
    from .protocols import LatencyReporter, Notifier

__all__ = ["ReportManager", "ReporterStatus", "report_manager"]

RESERVED: Final = frozenset({"callbacks", "log"})
"""Names of lanes that are not reporters."""
REMOVE_TIMEOUT_S: Final = 2.0
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class _Entry:
    """A reporter, how it wants its batches, and the lane of the running session or of the last one."""

    __slots__ = ("after", "by_hand", "lane", "make_lane", "name", "reporter")

    def __init__(
        self,
        name: str,
        reporter: Any,
        make_lane: Callable[[Lane | None], Lane],
        *,
        by_hand: bool,
        after: Lane | None = None,
    ) -> None:
        self.name = name
        self.reporter = reporter
        self.make_lane = make_lane
        self.by_hand = by_hand
        self.lane: Lane | None = None
        self.after = after
        """The lane of a removal that may still be in the reporter."""

    def start(self) -> Lane:
        self.lane, self.after = self.make_lane(self.lane or self.after), None
        self.lane.start()
        return self.lane

    def status(self) -> ReporterStatus:
        return self.lane.status() if self.lane else ReporterStatus(self.name)


class ReportManager:
    """One reporter of the pipeline that hands on to others, each isolated from all the others by a `Lane`.

    Safe from any thread, before `init()` and after it. What was added by hand stays through `shutdown()` and serves
    the next session; what `init()` added from the environment goes with `shutdown()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: tuple[_Entry, ...] = ()
        # Read without the lock, on the worker: replaced, never changed.
        self._lanes: tuple[Lane, ...] = ()
        self._leaving: tuple[Lane, ...] = ()
        self._resuming: tuple[Lane, ...] = ()
        self._removed: tuple[_Entry, ...] = ()
        self._past: tuple[_Entry, ...] = ()
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
            self._forget(entry)
            self._removed = (*self._in_hand(), entry)
        return entry.lane is None or entry.lane.close(timeout_s)

    @property
    def reporters(self) -> "tuple[LatencyReporter | Notifier, ...]":
        """The reporters, in the order in which they were added."""
        return tuple(entry.reporter for entry in self._entries)

    def status(self) -> dict[str, ReporterStatus]:
        """How each reporter fares, by its name; after `shutdown()`, and until the next `init()`, how it fared."""
        return {entry.name: entry.status() for entry in (*self._past, *self._entries)}

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names by which alerts may ask for its reporters."""
        return tuple(name for lane in self._lanes for name in lane.channel_names)

    # -- for init() and the pipeline -----------------------------------------------------------------------------------

    def add_from_environment(self, reporter: Any, *, name: str | None = None) -> None:
        """Add a reporter until `shutdown()`; one that stands there by hand already comes first."""
        self._add(reporter, name, None, None, CAPACITY, by_hand=False)

    def start(self) -> None:
        """Start a lane for every reporter."""
        with self._lock:
            self._past = ()
            self._lanes = tuple(entry.start() for entry in self._entries)
            self._running = True

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Hand a batch to every lane; never waits."""
        for lane in self._lanes:
            call_safely(lane.report, batch)

    def report_turns(self, turns: "Sequence[TurnMetric]") -> None:
        """Hand turns to every lane whose reporter takes them; never waits."""
        for lane in self._lanes:
            call_safely(lane.report_turns, turns)

    def notify(self, alert: "Alert") -> None:
        """Hand an alert to every lane whose reporter takes alerts; never waits."""
        for lane in self._lanes:
            call_safely(lane.notify, alert)

    def probe(self, alert: "Alert") -> "dict[str, Probe]":
        """Hand a test alert to every lane whose reporter takes alerts, by its name."""
        return {name: probe for lane in self._lanes for name, probe in lane.probe(alert).items()}

    def flush(self, timeout_s: float) -> bool:
        """Wait until every lane has reported what it had; False when the time was too short."""
        deadline_s, lanes = monotonic() + timeout_s, self._lanes
        for lane in lanes:
            lane.flush(0.0)  # all of them begin at once
        return all(lane.flush(max(0.0, deadline_s - monotonic())) for lane in lanes)

    def begin_close(self, timeout_s: float) -> None:
        """Let every lane begin to end."""
        with self._lock:
            self._running = False
            # Until the next start they count what comes too late.
            for lane in self._lanes:
                lane.begin_close(timeout_s)

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for the end of every lane, then forget what came from the environment; False when time was too short."""
        deadline_s = monotonic() + timeout_s
        closed = [lane.wait_closed(max(0.0, deadline_s - monotonic())) for lane in (*self._leaving, *self._lanes)]
        with self._lock:
            self._leaving = ()
            self._past += tuple(entry for entry in self._entries if not entry.by_hand)
            self._entries = tuple(entry for entry in self._entries if entry.by_hand)
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
        self._leaving = ()
        self._removed = self._past = ()
        self._running &= running
        if not self._running:
            self._lanes, self._entries = (), tuple(entry for entry in self._entries if entry.by_hand)
        for entry in self._entries:
            if self._running and entry.lane is not None:
                call_safely(entry.lane.restart_after_fork)
            else:
                entry.lane = entry.after = None
        # What is added from now on starts by itself.
        self._resuming = self._lanes

    def resume(self) -> None:
        """In a forked child: start the threads."""
        for lane in self._resuming:
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
        _check(reporter)
        size = getattr(reporter, "batch_size", None) if batch_size is None else batch_size
        interval = getattr(reporter, "interval_s", 0.0) if interval_s is None else interval_s
        _check_numbers(capacity, size, interval)
        with self._lock:
            there = self._find(reporter)
            if there is not None and (there.by_hand or not by_hand or there.reporter is reporter):
                there.by_hand |= by_hand
                return
            chosen = self._name(reporter, name, there)

            retry = getattr(reporter, "retry", None)
            # What somebody else's reporter calls so may be anything.
            own = retry if isinstance(retry, Retry) else None

            def make_lane(before: Lane | None) -> Lane:
                return Lane(chosen, reporter, capacity, batch_size=size, interval_s=interval, retry=own, after=before)

            entry = _Entry(chosen, reporter, make_lane, by_hand=by_hand, after=self._lane_in(reporter))
            if there is not None:
                self._replace(there)
            self._entries += (entry,)
            if self._running:
                self._lanes += (entry.start(),)

    def _replace(self, entry: _Entry) -> None:
        """Let go of it without waiting: `shutdown()` does."""
        self._forget(entry)
        if entry.lane is not None:
            entry.lane.begin_close(REMOVE_TIMEOUT_S)
            self._leaving += (entry.lane,)

    def _forget(self, entry: _Entry) -> None:
        self._entries = tuple(each for each in self._entries if each is not entry)
        self._lanes = tuple(lane for lane in self._lanes if lane is not entry.lane)

    def _in_hand(self) -> tuple[_Entry, ...]:
        """What was removed, and its lane has not returned from."""
        return tuple(entry for entry in self._removed if entry.lane is not None and not entry.lane.is_over)

    def _lane_in(self, reporter: Any) -> Lane | None:
        self._removed = self._in_hand()
        return next((entry.lane for entry in reversed(self._removed) if entry.reporter is reporter), None)

    def _find(self, reporter: Any) -> _Entry | None:
        return next((entry for entry in self._entries if _is_same(entry.reporter, reporter)), None)

    def _name(self, reporter: Any, name: str | None, replaced: _Entry | None) -> str:
        taken = RESERVED | {entry.name for entry in self._entries if entry is not replaced}
        if name is not None:
            if not _NAME.fullmatch(name) or name in taken:
                raise ValueError(f"name: expected lower-case letters, digits and _, not yet taken, got {name!r}")
            return name
        own = getattr(reporter, "name", None)
        base = own if isinstance(own, str) and _NAME.fullmatch(own) else _snake_case(type(reporter).__name__)
        number = 2
        chosen = base
        while chosen in taken:
            chosen, number = f"{base}_{number}", number + 1
        return chosen


def _check(reporter: Any) -> None:
    """Say at once what would otherwise fail for every batch."""
    said = reporter.__name__ if isinstance(reporter, type) else type(reporter).__name__
    if isinstance(reporter, type):
        raise TypeError(f"reporter: expected an object with report(batch), got the class {said} itself")
    if not any(hasattr(reporter, method) for method in ("report", "notify")):
        raise TypeError(f"reporter: expected an object with report(batch) or notify(alert), {said} has neither")
    for method, arguments in (("report", [()]), ("report_turns", [()]), ("notify", [()]), ("start", []), ("close", [])):
        function = getattr(reporter, method, None)
        if function is None and not hasattr(reporter, method):
            continue
        if not callable(function) or inspect.iscoroutinefunction(function) or not _takes(function, arguments):
            argument = {"report": "batch", "report_turns": "turns", "notify": "alert"}.get(method, "")
            raise TypeError(f"reporter: expected a plain method {method}({argument}), {said}.{method} is not one")


def _takes(function: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # built in, and tells nothing
        return True
    return True


def _check_numbers(capacity: Any, batch_size: Any, interval_s: Any) -> None:
    for name, number in (("capacity", capacity), ("batch_size", batch_size)):
        if number is None and name == "batch_size":
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}: expected a whole number from 1, got {number!r}")
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float) or not 0 <= interval_s < math.inf:
        raise ValueError(f"interval_s: expected seconds from 0, got {interval_s!r}")


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    target = getattr(one, "target", None)
    return target is not None and type(one) is type(other) and bool(target == getattr(other, "target", None))


def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    cleaned = re.sub(r"[^a-z0-9_]", "", words).strip("_")
    return cleaned if _NAME.fullmatch(cleaned) else "reporter"


report_manager: Final = ReportManager()
"""The one that `init()` starts and `shutdown()` ends."""
