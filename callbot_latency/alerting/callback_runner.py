"""Calls of the application's own functions, which may be asynchronous."""

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from .. import semconv
from ..base.concurrency import running_loop
from ..base.drop_counters import dropped
from ..base.internal_errors import RateLimiter
from ..base.scrubbing import MAX_MESSAGE_CHARS
from ..base.text import one_line
from ..model.alert import Alert
from ..tracing.span_status import error_message, type_name

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["LOOP_CAPACITY", "LoopCapacity", "run_callback"]

LOOP_CAPACITY: Final = 1_000
"""Coroutines of alert callbacks that may be under way on one event loop."""

_log: Final = logging.getLogger(semconv.LOGGER_ALERT_CALLBACKS)


class LoopCapacity:
    """How many coroutines may be under way on each of the application's event loops."""

    def __init__(self, capacity: int = LOOP_CAPACITY) -> None:
        self._capacity = capacity
        # Without a lock, which a fork could leave held: a deque gives and takes in one step.
        self._places: WeakKeyDictionary[AbstractEventLoop, deque[None]] = WeakKeyDictionary()
        self._speak = RateLimiter()

    def take(self, function: Callable[[Alert], Any], loop: "AbstractEventLoop") -> Callable[[object], None] | None:
        """What gives the place on `loop` back; where there is none, that is counted, and said once a minute."""
        places = self._places.get(loop)
        if places is None:
            places = self._places[loop] = deque([None] * self._capacity)
        try:
            places.pop()
        except IndexError:
            dropped.add(semconv.DROPPED_CALLBACKS_LOOP_FULL)
            if self._speak():
                _log.warning("%d calls of alert callbacks have not ended: dropped %r", self._capacity, _name(function))
            return None
        return lambda _: places.append(None)


def run_callback(
    function: Callable[[Alert], Any],
    alert: Alert,
    loop: "AbstractEventLoop | None" = None,
    capacity: LoopCapacity | None = None,
) -> None:
    """Call `function(alert)`; what it returns to be awaited, is: on `loop` while that runs, else here, to its end.

    What it raises is the application's own fault: it is logged with its traceback, its text scrubbed and without its
    causes, and goes no further. On an event loop of the application a KeyboardInterrupt or SystemExit goes on: it may
    be a signal's, and meant for that loop.
    """
    held = BaseException if running_loop() is None else Exception
    try:
        result = function(alert)
        if inspect.isawaitable(result):
            _await(function, result, loop, capacity)
    except held as fault:
        _log_error(function, fault)


def _await(
    function: Callable[[Alert], Any],
    result: Awaitable[Any],
    loop: "AbstractEventLoop | None",
    capacity: LoopCapacity | None,
) -> None:
    import asyncio

    async def awaited() -> None:
        try:
            await result
        except Exception as fault:  # noqa: BLE001 - as above; a cancellation is the loop's own
            _log_error(function, fault)

    if loop is None or not loop.is_running():
        asyncio.run(awaited())
    elif capacity is None:
        asyncio.run_coroutine_threadsafe(awaited(), loop)
    elif (leave := capacity.take(function, loop)) is not None:
        asyncio.run_coroutine_threadsafe(awaited(), loop).add_done_callback(leave)
    elif inspect.iscoroutine(result):
        result.close()  # it has not begun


class CallbackError(Exception):
    """Stands in the log for what was raised, whose own text may quote an address with its password."""


def _log_error(function: Callable[[Alert], Any], fault: BaseException) -> None:
    shown = CallbackError(f"{type_name(fault)}: {one_line(error_message(fault), MAX_MESSAGE_CHARS + 1)}")
    _log.error("the alert callback %r raised", _name(function), exc_info=(type(fault), shown, fault.__traceback__))


def _name(function: Callable[[Alert], Any]) -> Any:
    return getattr(function, "__qualname__", function)
