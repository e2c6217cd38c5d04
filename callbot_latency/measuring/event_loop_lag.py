"""When an event loop was held up, so that an answer that had come was seen only later.

While somebody waits for a response, each pass of the loop is timed: from where it stops waiting for events until it
waits again. What comes meanwhile waits until then. Of asyncio's own loops that is known exactly, at their selector. Of
others, such as uvloop, a tick tells, which is due every five milliseconds: one that runs late says that the loop was
held up, at the longest since the tick before.
"""

import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from time import perf_counter_ns
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..base.concurrency import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["AwaitTimes", "BlockedInterval", "LoopLag", "blocked_since", "current_loop_lag", "waits_held_up"]

R = TypeVar("R")

BlockedInterval = tuple[int, int]
"""From when until when the loop could not look for what had come, in nanoseconds of `time.perf_counter_ns()`."""
Wait = tuple[int, int]
"""From when a coroutine gave the loop its thread until it went on."""

LONG_NS: Final = 1_000_000
"""A pass that is shorter than this holds nothing up."""
TICK_NS: Final = 5_000_000
_TICK_S: Final = TICK_NS / 1e9
LATE_NS: Final = 2_000_000
"""A tick that is less late than this tells nothing: timers of an idle loop are no more exact."""
GAP_NS: Final = 1_500_000
"""How long after a long pass what waited for it may run: in the next pass, or in that after it."""
KEPT: Final = 8_192
"""How many times are remembered: of a loop that is never free, the last seconds at the least."""
PASSES: Final = 3
"""An answer is read in one pass of the loop and its reader runs in the next, so that it may have come one pass earlier
than both. What lies further back held nothing up: there the loop had looked, and found no answer."""
MAX_WAITS: Final = 256
"""Of an operation that waits more often, the last ones are looked at: its end is what is waited for."""


class LoopLag:
    """The times in which one event loop was held up, as far as something watches it."""

    def __init__(self) -> None:
        self._late: deque[BlockedInterval] = deque(maxlen=KEPT)
        # Weak, so that a call which is given up, and never told that it is over, does not have it watched for ever.
        self._watchers: weakref.WeakSet[object] = weakref.WeakSet()
        self._is_on = False
        self._since_ns: int | None = None
        self._passes = 0

    def watch(self, watcher: object) -> None:
        """Watch until `watcher` leaves; to be called on the loop's thread."""
        self._watchers.add(watcher)
        loop = running_loop()
        if loop is None:
            return
        selector: Any = getattr(loop, "_selector", None)
        if not (hasattr(selector, "select") and hasattr(selector, "__dict__")):
            if not self._is_on:
                self._is_on = True
                self._schedule(loop)
        elif not self._is_on:
            self._time_passes(selector)
        else:
            loop.call_soon(self._check, selector, self._passes)

    def leave(self, watcher: object) -> None:
        """It watches no longer; from any thread."""
        self._watchers.discard(watcher)

    @property
    def is_watched(self) -> bool:
        """Whether it is watched for somebody."""
        return len(self._watchers) > 0

    def between(self, from_ns: int, until_ns: int) -> list[BlockedInterval]:
        """When it was held up in that time, oldest first and none twice, with the pass that runs now."""
        # In this order, and read once: it may be asked from another thread than the loop's.
        since_ns, times = self._since_ns, list(self._late)
        if since_ns is not None and (not times or times[-1][1] <= since_ns):
            times.append((since_ns, perf_counter_ns()))
        return [time for time in times if time[0] < until_ns and time[1] > from_ns]

    def note(self, from_ns: int, until_ns: int) -> None:
        """It was held up then; later than what was noted before."""
        self._late.append((from_ns, until_ns))

    def _time_passes(self, selector: Any) -> None:
        select, own = selector.select, vars(selector).get("select")

        def timed(timeout: float | None = None) -> Any:
            now_ns, since_ns = perf_counter_ns(), self._since_ns
            self._passes += 1
            if since_ns is not None and now_ns - since_ns >= LONG_NS:
                self.note(since_ns, now_ns)
            self._since_ns = None
            # Not where somebody else has wrapped it since.
            if not self.is_watched and vars(selector).get("select") is itself():
                self._is_on = False
                if own is None:
                    del selector.select
                else:
                    selector.select = own
                return select(timeout)
            events = select(timeout)
            self._since_ns = perf_counter_ns()
            return events

        itself = weakref.ref(timed)  # it would be left to the garbage collector, did it hold itself
        self._is_on = True
        self._since_ns = perf_counter_ns()
        selector.select = timed

    def _check(self, selector: Any, passes: int) -> None:
        """In the next pass: where ours was not called for it, somebody put another one back over it."""
        if passes == self._passes and self._is_on:
            self._time_passes(selector)

    def _schedule(self, loop: "AbstractEventLoop") -> None:
        loop.call_later(_TICK_S, self._tick, loop, perf_counter_ns())

    def _tick(self, loop: "AbstractEventLoop", free_ns: int) -> None:
        now_ns = perf_counter_ns()
        if now_ns - free_ns >= TICK_NS + LATE_NS:
            self.note(free_ns, now_ns)
        if self.is_watched:
            self._schedule(loop)
        else:
            self._is_on = False


_lags: "weakref.WeakKeyDictionary[Any, LoopLag]" = weakref.WeakKeyDictionary()


def current_loop_lag() -> LoopLag | None:
    """What is known of the loop that runs in this thread; None where none does."""
    loop = running_loop()
    if loop is None:
        return None
    lag = _lags.get(loop)
    if lag is None:
        lag = _lags[loop] = LoopLag()
    return lag


def blocked_since(late: Sequence[BlockedInterval], from_ns: int, at_ns: int, *, in_hand: bool) -> int:
    """Since when the loop was held up, where what happened at `at_ns` had to wait for it; `at_ns` where it had not.

    An upper bound of the wait: an answer may have come at any moment of it.

    Args:
        late: when the loop was held up, oldest first and none twice.
        from_ns: nothing had to wait before.
        at_ns: when it happened on the loop.
        in_hand: whether it also waited for what ran before it in its own pass: so it is where what happened at `at_ns`
            had only just begun to run. Else it may be what held up that pass.

    """
    since_ns = at_ns
    place = bisect_left(late, (at_ns,))
    if place and late[place - 1][1] > at_ns and not in_hand:
        place -= 1
    for began_ns, ended_ns in reversed(late[max(0, place - PASSES) : place]):
        if ended_ns <= max(from_ns, since_ns - GAP_NS):
            break
        since_ns = began_ns
    return max(from_ns, since_ns)


def waits_held_up(late: Sequence[BlockedInterval], await_times: Iterable[Wait]) -> list[BlockedInterval]:
    """The ends of those waits that the loop was held up in."""
    ends = [(blocked_since(late, from_ns, at_ns, in_hand=True), at_ns) for from_ns, at_ns in await_times]
    return [(since_ns, at_ns) for since_ns, at_ns in ends if since_ns < at_ns]


class AwaitTimes(deque[Wait]):
    """When the coroutine of an operation waited, oldest first; the last `MAX_WAITS`."""

    def __init__(self) -> None:
        super().__init__(maxlen=MAX_WAITS)

    @coroutine
    def trace(self, awaitable: Awaitable[R]) -> Generator[Any, Any, R]:
        """Await it, and note when it waits: what it does itself, on the loop's thread, is then known to be its own."""
        steps = _awaiting(awaitable)
        step: Callable[[Any], Any] = steps.send
        argument: Any = None
        try:
            while True:
                yielded = step(argument)
                from_ns = perf_counter_ns()
                try:
                    step, argument = steps.send, (yield yielded)
                except BaseException as exc:  # noqa: BLE001 - all that is thrown in is the awaited one's
                    step, argument = steps.throw, exc
                self.append((from_ns, perf_counter_ns()))
        except StopIteration as end:
            result: R = end.value
            return result
        finally:
            # What was thrown in would keep itself, and all that the coroutine holds, alive through this frame.
            del step, argument


async def _awaiting(awaitable: Awaitable[R]) -> R:
    """Whatever can be awaited, as a coroutine, which alone can be stepped."""
    return await awaitable
