"""Where the time of a response went: intervals that may overlap, cut into parts that sum to it exactly."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .semconv import PART_UNATTRIBUTED

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


@dataclass(frozen=True, slots=True)
class Parts:
    """Nanoseconds by part: those on the critical path, which sum to the whole, and those that ran beside it."""

    on_path: dict[str, int] = field(default_factory=dict)
    overlapped: dict[str, int] = field(default_factory=dict)


def parts_of(start_ns: int, end_ns: int, intervals: Iterable[Interval], beneath: Sequence[Interval] = ()) -> Parts:
    """Cut ``[start_ns, end_ns)`` into parts.

    From the end backwards: what ran last is what was waited for, back to where it began; before that, what ran last
    until then. So of two things at once the one on the critical path gets the time, and the other is overlapped.
    Within its own time a parent gives way to its children, and keeps what none of them covers. Nested intervals are
    clipped to their parents, all of them to the whole. What nothing covers goes to the intervals `beneath`, and what
    they do not cover either is ``unattributed``.
    """
    every = list(intervals)
    children: defaultdict[int | None, list[Interval]] = defaultdict(list)
    for interval in every:
        children[None if interval.parent is None else id(interval.parent)].append(interval)
    on_path: defaultdict[str, int] = defaultdict(int)

    def own(start_ns: int, end_ns: int, around: Interval | None) -> None:
        if around is not None:
            on_path[around.part] += end_ns - start_ns
        elif beneath:
            for part, ns in parts_of(start_ns, end_ns, beneath).on_path.items():
                on_path[part] += ns
        else:
            on_path[PART_UNATTRIBUTED] += end_ns - start_ns

    def walk(start_ns: int, end_ns: int, around: Interval | None) -> None:
        among = children[None if around is None else id(around)]
        while end_ns > start_ns:
            last = _last_before(end_ns, among)
            if last is None or last.end_ns <= start_ns:
                own(start_ns, end_ns, around)
                return
            if last.end_ns < end_ns:
                own(last.end_ns, end_ns, around)
                end_ns = last.end_ns
            begins_ns = max(start_ns, last.start_ns)
            walk(begins_ns, end_ns, last)
            end_ns = begins_ns

    walk(start_ns, end_ns, None)
    return Parts(dict(on_path), _overlapped(start_ns, end_ns, every, children, on_path))


def _last_before(end_ns: int, among: Sequence[Interval]) -> Interval | None:
    """What ran last until `end_ns`; of several that ran then, the one that began last is the one waited for."""
    begun = [interval for interval in among if interval.start_ns < end_ns and interval.end_ns > interval.start_ns]
    return max(begun, key=lambda interval: (min(interval.end_ns, end_ns), interval.start_ns), default=None)


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
        own[interval.part] += _without(piece, [(c.start_ns, c.end_ns) for c in children.get(id(interval), ())])
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
