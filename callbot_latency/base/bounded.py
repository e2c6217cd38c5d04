"""A map of the newest entries, in bounded memory."""

from collections import OrderedDict
from typing import Final, TypeVar

__all__ = ["MAX_CALLS", "BoundedMap"]

MAX_CALLS: Final = 10_000
"""Most phone calls that one map knows: no call lasts until as many others have begun."""

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(OrderedDict[K, V]):
    """Keeps at most `capacity` entries, those that were put last.

    Safe from any thread, and in a forked child, without a lock: each method of OrderedDict is one step where the keys
    are strings, integers or tuples of them.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def put(self, key: K, value: V) -> None:
        """Make this the newest entry, in place of an older one of that key."""
        self.pop(key, None)
        self[key] = value
        self._drop_oldest()

    def get_or_put(self, key: K, value: V) -> V:
        """Return the value of `key`, which is `value` where there was none; of two threads one puts its own."""
        found = self.setdefault(key, value)
        self._drop_oldest()
        return found

    def _drop_oldest(self) -> None:
        if len(self) > self._capacity:
            self.popitem(last=False)
