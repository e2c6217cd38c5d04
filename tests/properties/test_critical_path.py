"""What holds for every timeline."""

from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.calls.critical_path import Interval, parts_of

instants = st.integers(0, 1_000)


@st.composite
def timelines(draw: st.DrawFn) -> list[Interval]:
    """Intervals in any order, some within others, some with ends before their beginnings."""
    made: list[Interval] = []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.none() | st.sampled_from(made)) if made else None
        made.append(Interval(draw(st.sampled_from("abcd")), draw(instants), draw(instants), parent))
    return made


@given(instants, instants, timelines())
def test_the_parts_sum_to_the_whole(start_ns: int, length_ns: int, timeline: list[Interval]) -> None:
    """To the nanosecond; none is negative, and none longer than it ran."""
    parts = parts_of(start_ns, start_ns + length_ns, timeline)
    assert sum(parts.on_path.values()) == length_ns
    assert all(ns > 0 for ns in (*parts.on_path.values(), *parts.overlapped.values()))
    for part, ns in parts.on_path.items():
        if part != "unattributed":
            assert ns <= sum(max(0, i.end_ns - i.start_ns) for i in timeline if i.part == part)


@given(timelines())
def test_only_what_nothing_covers_is_unattributed(timeline: list[Interval]) -> None:
    """By counting each nanosecond."""
    covered = set()
    for interval in timeline:
        if interval.parent is None:
            covered |= set(range(interval.start_ns, interval.end_ns))
    assert parts_of(0, 1_000, timeline).on_path.get("unattributed", 0) == 1_000 - len(covered & set(range(1_000)))
