"""What stands in a metric's labels, the same for every exporter: a bounded number of names, and what runs now."""

from collections import Counter

from .. import semconv
from ..base.drop_counters import dropped
from ..measuring.active_session import active
from ..model.operation import OperationType

__all__ = ["NameLabels", "running_by_type"]


class NameLabels:
    """The label of a name, an operation's or a provider's: itself for the first `MAX_NAMES`, ``other`` for later ones.

    Args:
        counted_as: the reason that each ``other`` is counted as; None for all but one consumer of the measurements, or
            it would be counted several times.

    """

    def __init__(self, *, counted_as: str | None = None) -> None:
        self._names: set[str] = set()
        self._counted_as = counted_as

    def of(self, name: str) -> str:
        """The label."""
        if name in self._names:
            return name
        if len(self._names) < semconv.MAX_NAMES:
            self._names.add(name)
            return name
        if self._counted_as is not None:
            dropped.add(self._counted_as)
        return semconv.OTHER


def running_by_type() -> dict[str, int]:
    """What runs now, by type; a type of which nothing runs is 0, since an absent one would keep its last value."""
    session = active.session
    open_now = list(session.open_measurements.values()) if session else []
    running = Counter(m.operation.type_value for m in open_now if not m.operation.is_attempt)
    return {kind.value: running[kind.value] for kind in OperationType.known()}
