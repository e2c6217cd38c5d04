"""Calls of the application's own functions, which may be asynchronous."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from .alert import Alert

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["act"]

_log: Final = logging.getLogger("callbot_latency.alerting.callbacks")


def act(function: Callable[[Alert], Any], alert: Alert, loop: "AbstractEventLoop | None" = None) -> None:
    """Call `function(alert)`; what it returns to be awaited, is: on `loop` while that runs, else here, to its end.

    What it raises is the application's own fault on our thread: it is logged with its traceback, and goes no further.
    """
    try:
        result = function(alert)
        if inspect.isawaitable(result):
            _await(function, result, loop)
    except BaseException:  # noqa: BLE001 - see above
        _tell(function)


def _await(function: Callable[[Alert], Any], result: Awaitable[Any], loop: "AbstractEventLoop | None") -> None:
    import asyncio

    async def awaited() -> None:
        try:
            await result
        except Exception:  # noqa: BLE001 - as above; a cancellation is the loop's own
            _tell(function)

    if loop is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(awaited(), loop)
    else:
        asyncio.run(awaited())


def _tell(function: Callable[[Alert], Any]) -> None:
    _log.exception("the alert callback %r raised", getattr(function, "__qualname__", function))
