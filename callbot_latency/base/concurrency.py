"""The running event loop, without importing asyncio, and what is different under gevent."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["is_in_hub", "is_patched", "running_loop"]


def running_loop() -> "AbstractEventLoop | None":
    """The event loop of this thread, where one runs."""
    # Importing asyncio would double what importing us costs; where a loop runs, it has been imported.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        loop: AbstractEventLoop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop


def is_patched() -> bool:
    """Whether threads are greenlets: their idents are none of the system's then."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_in_hub() -> bool:
    """Whether this runs in gevent's own loop, as a signal handler may, where nothing may wait."""
    hub: Any = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(hub.getcurrent(), hub.Hub)
