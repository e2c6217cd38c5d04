"""How much a thread of ours does before it gives way."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.base import pacing as pace
from callbot_latency.base.pacing import Pace, set_hurry_check, yielding


@given(st.lists(st.integers(), max_size=200))
def test_paced_yields_each_in_order(items: list[int]) -> None:
    assert list(yielding(items)) == items


@pytest.mark.parametrize(("amount", "times"), [(0, 0), (1, 0), (5, 0), (6, 1), (10, 1), (52, 10)])
def test_paced_gives_way_between_every_five(sleeps: list[float], amount: int, times: int) -> None:
    """Not after the last: nothing of ours holds the lock then."""
    for _ in yielding(range(amount)):
        pass
    assert sleeps == [0.0002] * times


def test_who_waited_long_does_twice_as_much_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """And as little as before once nobody keeps the lock."""
    waits = [0.02, 0.02, 0.0]
    times = iter([0.0, waits[0], 1.0, 1.0 + waits[1], 2.0, 2.0 + waits[2]])
    monkeypatch.setattr("callbot_latency.base.pacing.sleep", lambda _: None)
    monkeypatch.setattr("callbot_latency.base.pacing.monotonic", lambda: next(times))
    of_the_worker, sizes = Pace(10), []
    for _ in waits:
        of_the_worker.yield_gil()
        sizes.append(of_the_worker.chunk_size)
    assert sizes == [20, 40, 10]


def test_paced_does_twice_as_much_where_others_keep_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as they do: 5, 10, 20, and so on."""
    now_s, given = 0.0, []

    def wait_long(_: float) -> None:
        nonlocal now_s
        now_s += 0.01

    monkeypatch.setattr("callbot_latency.base.pacing.sleep", wait_long)
    monkeypatch.setattr("callbot_latency.base.pacing.monotonic", lambda: now_s)
    for _ in yielding(range(100)):
        given.append(now_s)
    assert [given.count(at_s) for at_s in dict.fromkeys(given)] == [5, 10, 20, 40, 25]


@pytest.mark.promise("busy-threads")
def test_paced_hurries_where_somebody_waits_for_its_thread(sleeps: list[float]) -> None:
    """As a lane says while it is flushed or closed; asked again and again, since that may begin in the middle."""
    hurry = iter([False, True])

    def run() -> None:
        set_hurry_check(lambda: next(hurry))
        for _ in yielding(range(1_000)):
            pass

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert sleeps == [0.0002, 0.0]


def test_in_a_hurry_it_does_a_thousand_at_once(sleeps: list[float]) -> None:
    hurried = Pace(10)
    hurried.hurry()
    hurried.yield_gil()
    assert (hurried.chunk_size, sleeps) == (pace.MAX_CHUNK_SIZE, [0.0])
