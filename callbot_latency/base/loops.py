"""Event loops, for a package that does not import asyncio."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["running_loop"]


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
