"""When an event loop was held up, so that an answer that had come was seen only later.

A tick that is due every five milliseconds runs on the loop while somebody waits for a response. One that runs late
tells that the loop ran something else, at the longest since the tick before. What came meanwhile waited until then.
"""

import weakref
from collections import deque
from collections.abc import Awaitable, Generator, Iterable, Sequence
from time import perf_counter_ns
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["HeldUp", "LoopLag", "Wait", "held_up_since", "lag_here", "stepped", "waits_held_up"]

R = TypeVar("R")

HeldUp = tuple[int, int]
"""From when the loop was last seen free until it was again, in nanoseconds of `time.perf_counter_ns()`."""
Wait = tuple[int, int]
"""From when a coroutine gave the loop its thread until it went on."""

TICK_NS: Final = 5_000_000
_TICK_S: Final = TICK_NS / 1e9
LATE_NS: Final = 2_000_000
"""A tick that is less late than this tells nothing: timers of an idle loop are no more exact."""
GAP_NS: Final = 1_500_000
"""How long after a late tick what waited like it may run: in the same pass of the loop, or in the next."""
KEPT: Final = 8_192
"""How many late ticks are remembered: of a loop that is never free, the last half minute at the least."""
PASSES: Final = 3
"""An answer is read in one pass of the loop and its reader runs in the next, so that it may have come one pass earlier
than both. What lies further back held nothing up: there the loop had looked, and found no answer."""
MAX_WAITS: Final = 256


class LoopLag:
    """The late ticks of one event loop; it ticks while something watches it."""

    def __init__(self) -> None:
        self.late: deque[HeldUp] = deque(maxlen=KEPT)
        # Weak, so that a call which is given up, and never told that it is over, does not let it tick for ever.
        self._watchers: weakref.WeakSet[object] = weakref.WeakSet()
        self._ticks = False

    def watch(self, watcher: object) -> None:
        """Tick until `watcher` leaves; to be called on the loop's thread."""
        self._watchers.add(watcher)
        loop = running_loop()
        if loop is not None and not self._ticks:
            self._ticks = True
            self._schedule(loop)

    def leave(self, watcher: object) -> None:
        """It watches no longer; from any thread."""
        self._watchers.discard(watcher)

    @property
    def is_watched(self) -> bool:
        """Whether it ticks for somebody."""
        return len(self._watchers) > 0

    def between(self, from_ns: int, until_ns: int) -> list[HeldUp]:
        """The late ticks of that time, oldest first."""
        return [late for late in self.late if late[0] < until_ns and late[1] > from_ns]

    def _schedule(self, loop: "AbstractEventLoop") -> None:
        loop.call_later(_TICK_S, self._tick, loop, perf_counter_ns())

    def _tick(self, loop: "AbstractEventLoop", free_ns: int) -> None:
        now_ns = perf_counter_ns()
        if now_ns - free_ns >= TICK_NS + LATE_NS:
            self.late.append((free_ns, now_ns))
        if self._watchers:
            self._schedule(loop)
        else:
            self._ticks = False


_lags: "weakref.WeakKeyDictionary[Any, LoopLag]" = weakref.WeakKeyDictionary()


def lag_here() -> LoopLag | None:
    """What is known of the loop that runs in this thread; None where none does."""
    loop = running_loop()
    if loop is None:
        return None
    lag = _lags.get(loop)
    if lag is None:
        lag = _lags[loop] = LoopLag()
    return lag


def held_up_since(late: Sequence[HeldUp], from_ns: int, at_ns: int, *, in_hand: bool) -> int:
    """Since when the loop was held up, where what happened at `at_ns` had to wait for it; `at_ns` where it had not.

    An upper bound of the wait: an answer may have come at any moment of it.

    Args:
        late: late ticks, oldest first.
        from_ns: nothing had to wait before.
        at_ns: when it happened on the loop.
        in_hand: whether it also waited for a tick that ran after it: so it is where what ran at `at_ns` had only just
            begun to run. Else it may have held up that tick itself.

    """
    since_ns, gap_ns, passes = at_ns, GAP_NS, 0
    for free_ns, ran_ns in reversed(late):
        if free_ns >= since_ns or (ran_ns > at_ns and not in_hand):
            continue
        if ran_ns <= max(from_ns, since_ns - gap_ns) or passes == PASSES:
            break
        # Had the loop been free between two late ticks, there would be one in time between them.
        since_ns, gap_ns, passes = free_ns, TICK_NS, passes + 1
    return max(from_ns, since_ns)


def waits_held_up(late: Sequence[HeldUp], waits: Iterable[Wait]) -> list[HeldUp]:
    """The ends of those waits that the loop was held up in."""
    ends = [(held_up_since(late, from_ns, at_ns, in_hand=True), at_ns) for from_ns, at_ns in waits]
    return [(since_ns, at_ns) for since_ns, at_ns in ends if since_ns < at_ns]


@coroutine
def stepped(awaitable: Awaitable[R], waits: list[Wait]) -> Generator[Any, Any, R]:
    """Await it, and note when it waited: what it does itself, on the loop's thread, is then known to be its own."""
    steps: Any = awaitable.__await__()
    send = getattr(steps, "send", lambda _: next(steps))
    step, argument = send, None
    try:
        while True:
            yielded = step(argument)
            from_ns = perf_counter_ns()
            try:
                step, argument = send, (yield yielded)
            except BaseException as exc:
                if not hasattr(steps, "throw"):
                    raise
                step, argument = steps.throw, exc
            if len(waits) < MAX_WAITS:
                waits.append((from_ns, perf_counter_ns()))
    except StopIteration as end:
        result: R = end.value
        return result
    finally:
        # What was thrown in would keep itself, and all that the coroutine holds, alive through this frame.
        del step, argument
