"""Where the time of a response went: intervals that may overlap, cut into parts that sum to it exactly."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ..semconv import PART_LOOP_LAG, PART_UNATTRIBUTED

__all__ = ["Interval", "Parts", "parts_of"]

Piece = tuple[int, int]
"""From when until when."""


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Some work, in nanoseconds of one monotonic clock; what it waited for while it ran are its children."""

    part: str
    start_ns: int
    end_ns: int
    parent: "Interval | None" = None
    held_up: Sequence[Piece] = ()
    """When it waited for the event loop instead: oldest first, and none twice."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Nanoseconds by part: those on the critical path, which sum to the whole, and those that ran beside it."""

    on_path: dict[str, int] = field(default_factory=dict)
    overlapped: dict[str, int] = field(default_factory=dict)


def parts_of(start_ns: int, end_ns: int, intervals: Iterable[Interval], held_up: Sequence[Piece] = ()) -> Parts:
    """Cut ``[start_ns, end_ns)`` into parts.

    From the end backwards: what ran last is what was waited for, back to where it began; before that, what ran last
    until then. So of two things at once the one on the critical path gets the time, and the other is overlapped.
    Within its own time a parent gives way to its children, and keeps what none of them covers. Nested intervals are
    clipped to their parents, all of them to the whole. What nothing covers is ``unattributed``. Of each one's own time
    that in which it was held up is ``loop_lag``, and of what nothing covers that of `held_up`.
    """
    every = [i for i in intervals if i.start_ns < min(i.end_ns, end_ns) and i.end_ns > start_ns]
    children: defaultdict[int | None, list[Interval]] = defaultdict(list)
    for interval in every:
        children[None if interval.parent is None else id(interval.parent)].append(interval)
    path = _Path(children, held_up)
    path.walk(start_ns, end_ns, None)
    told = {part: ns for part, ns in path.by_part.items() if ns}
    return Parts(told, _overlapped(start_ns, end_ns, every, children, told))


class _Path:
    """What was waited for, by part, as it is walked from the end backwards."""

    def __init__(self, children: Mapping[int | None, list[Interval]], held_up: Sequence[Piece]) -> None:
        self.by_part: defaultdict[str, int] = defaultdict(int)
        self._children = children
        self._held_up = held_up

    def walk(self, start_ns: int, end_ns: int, around: Interval | None) -> None:
        last_before = _LastBefore(self._children.get(None if around is None else id(around), ()))
        while end_ns > start_ns:
            last = last_before(end_ns)
            if last is None or last.end_ns <= start_ns:
                self._own(start_ns, end_ns, around)
                return
            if last.end_ns < end_ns:
                self._own(last.end_ns, end_ns, around)
                end_ns = last.end_ns
            begins_ns = max(start_ns, last.start_ns)
            self.walk(begins_ns, end_ns, last)
            end_ns = begins_ns

    def _own(self, start_ns: int, end_ns: int, around: Interval | None) -> None:
        lag_ns = _shared((start_ns, end_ns), self._held_up if around is None else around.held_up)
        self.by_part[PART_UNATTRIBUTED if around is None else around.part] += end_ns - start_ns - lag_ns
        self.by_part[PART_LOOP_LAG] += lag_ns


def _shared(piece: Piece, pieces: Sequence[Piece]) -> int:
    """How much of a piece of time lies in others, of which none lies in another."""
    begins_ns, ends_ns = piece
    shared_ns = 0
    for place in range(bisect_left(pieces, (ends_ns,)) - 1, -1, -1):
        if pieces[place][1] <= begins_ns:
            break
        shared_ns += min(ends_ns, pieces[place][1]) - max(begins_ns, pieces[place][0])
    return shared_ns


class _LastBefore:
    """Of some intervals, the one that ran last until an instant; of several that ran then, the one that began last."""

    def __init__(self, among: Iterable[Interval]) -> None:
        self._by_start = sorted(among, key=lambda interval: interval.start_ns)
        self._starts = [interval.start_ns for interval in self._by_start]
        self._reach = list(accumulate((interval.end_ns for interval in self._by_start), max))

    def __call__(self, end_ns: int) -> Interval | None:
        last: Interval | None = None
        until_ns = -1
        place = bisect_left(self._starts, end_ns)
        # None of those before reaches further than this.
        while place and min(self._reach[place - 1], end_ns) > until_ns:
            place -= 1
            interval = self._by_start[place]
            if min(interval.end_ns, end_ns) > until_ns:
                last, until_ns = interval, min(interval.end_ns, end_ns)
        return last


def _overlapped(
    start_ns: int,
    end_ns: int,
    every: Iterable[Interval],
    children: Mapping[int | None, list[Interval]],
    on_path: Mapping[str, int],
) -> dict[str, int]:
    """By part: what was worked on, other than by waiting for a child, and is not on the path."""
    own: defaultdict[str, list[Piece]] = defaultdict(list)
    for interval in every:
        piece = max(start_ns, interval.start_ns), min(end_ns, interval.end_ns)
        waited = [(child.start_ns, child.end_ns) for child in children.get(id(interval), ())]
        own[interval.part] += _without(piece, [*waited, *interval.held_up])
    beside = {part: _covered(pieces) - on_path.get(part, 0) for part, pieces in own.items()}
    return {part: ns for part, ns in beside.items() if ns > 0}


def _without(piece: Piece, holes: Iterable[Piece]) -> Iterator[Piece]:
    """What is left of a piece of time."""
    begins_ns, ends_ns = piece
    for hole_begins_ns, hole_ends_ns in sorted(holes):
        if begins_ns < min(hole_begins_ns, ends_ns):
            yield begins_ns, min(hole_begins_ns, ends_ns)
        begins_ns = max(begins_ns, hole_ends_ns)
    if begins_ns < ends_ns:
        yield begins_ns, ends_ns


def _covered(pieces: list[Piece]) -> int:
    total_ns, until_ns = 0, -1
    for begins_ns, ends_ns in sorted(pieces):
        if ends_ns > until_ns:
            total_ns += ends_ns - max(begins_ns, until_ns)
            until_ns = ends_ns
    return total_ns
