"""What is different where gevent has patched the standard library, so that threads are greenlets."""

import sys
from typing import Any

__all__ = ["is_in_hub", "is_patched"]


def is_patched() -> bool:
    """Whether threads are greenlets: their idents are none of the system's then."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_in_hub() -> bool:
    """Whether this runs in gevent's own loop, as a signal handler may, where nothing may wait."""
    hub: Any = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(hub.getcurrent(), hub.Hub)
