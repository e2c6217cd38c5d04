"""How measurements and turns are batched, flushed and, for a reporter that asks, reported when idle."""

import threading
from collections.abc import Sequence
from time import monotonic

import pytest

from callbot_latency import LatencyMetric, PermanentError, TransientError
from callbot_latency.base.pacing import yielding
from callbot_latency.delivery.lane import Lane
from tests.support.lanes import (
    Alerted,
    Answering,
    Intervals,
    LaneOf,
    OfTurns,
    Reporter,
    an_alert,
    law_holds,
    metrics,
    turns,
)


@pytest.mark.promise("busy-threads")
@pytest.mark.parametrize("end", ["close", "flush"])
def test_a_reporter_hurries_while_somebody_waits(end: str, sleeps: list[float]) -> None:
    """Also one that is in the middle of its batch: it gives way to no event loop any more."""
    entered, may_go = threading.Event(), threading.Event()

    class Slow:
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            entered.set()
            may_go.wait(60)
            for _ in yielding(batch):
                pass

    lane = Lane("slow", Slow())
    lane.start()
    lane.report(metrics(100))
    lane.report(metrics(100))
    assert entered.wait(60)
    if end == "close":
        lane.begin_close(60)
    else:
        assert not lane.flush(0)
    may_go.set()
    assert lane.close(60)
    assert sleeps == [0.0, 0.0]


def test_flush_is_bounded(reporter: Reporter) -> None:
    """Flushing past a reporter that hangs gives up after its time-out."""
    reporter.may_go.clear()
    lane = Lane("c", reporter)
    lane.start()
    lane.report(metrics(1))
    assert not lane.flush(0.1)
    assert reporter.batches == []  # it hangs still
    reporter.may_go.set()
    assert lane.close(60)


def test_turns_are_batched_as_measurements_are() -> None:
    """What is due at one moment is a batch of each kind, the turns first, each in its order."""
    reporter = OfTurns()
    lane = Lane("lane", reporter, batch_size=10, interval_s=60)
    lane.start()
    lane.report(metrics(2))
    lane.report_turns(turns(1, 2))
    lane.report(metrics(1))
    lane.report_turns(turns(3))
    assert lane.status().pending == 6
    assert reporter.came == []
    assert lane.close(60)
    assert reporter.came == [("turns", [1, 2, 3]), ("measurements", [0, 1, 0])]
    assert lane.status().delivered == 6


def test_turns_fill_a_batch_too() -> None:
    """Four of both are due at once where a batch has four; the rest waits."""
    reporter = OfTurns()
    lane = Lane("lane", reporter, batch_size=4, interval_s=60)
    lane.report(metrics(3))
    lane.report_turns(turns(1, 2))
    lane.start()
    assert reporter.measurements_came.wait(60)
    assert reporter.came == [("turns", [1]), ("measurements", [0, 1, 2])]
    assert lane.close(60)
    assert reporter.came[2:] == [("turns", [2])]


def test_without_an_interval_turns_come_after_what_was_measured_before_them() -> None:
    """A turn overtakes none of its operations, however long the lane was busy."""
    reporter = OfTurns()
    reporter.may_go.clear()
    lane = Lane("lane", reporter)
    lane.start()
    for n in (1, 2):
        lane.report(metrics(1))
        lane.report_turns(turns(n))
    reporter.may_go.set()
    assert lane.close(60)
    assert reporter.came == [("measurements", [0]), ("turns", [1]), ("measurements", [0]), ("turns", [2])]


class KeepingTurns(OfTurns):
    """Keeps turns for the next batch, and asks for one where nothing was measured."""

    reports_when_idle = True


def test_turns_alone_are_followed_by_an_empty_batch(intervals: Intervals) -> None:
    """At the same moment, when the interval is over: a reporter that wants one may have kept the turns for it."""
    reporter = KeepingTurns()
    reporter.clock = intervals
    lane = Lane("idle", reporter, batch_size=10, interval_s=600)
    lane.start()
    lane.report_turns(turns(1))
    intervals.reach(599, lane)
    intervals.reach(600, lane)
    assert reporter.measurements_came.wait(60)
    assert lane.close(60)
    assert reporter.came == [("turns", [1]), ("measurements", [])]
    assert reporter.at_s == [600, 600]


@pytest.mark.parametrize("batch_size", [10, 1], ids=["still waiting", "handed out before"])
def test_a_flush_waits_for_the_empty_batch_that_carries_turns(batch_size: int) -> None:
    """It is handed over at once, however long the interval; a flush of nothing more causes no other."""
    reporter = KeepingTurns()
    reporter.may_go.clear()
    lane = Lane("idle", reporter, batch_size=batch_size, interval_s=60)
    lane.start()
    lane.report_turns(turns(1))
    assert not lane.flush(0.0)
    assert reporter.entered.wait(60)
    assert not lane.flush(0.01)
    reporter.may_go.set()
    assert lane.flush(60)
    assert lane.flush(60)
    assert reporter.came == [("turns", [1]), ("measurements", [])]
    assert lane.close(60)


def test_batches_by_size(lane_of: LaneOf) -> None:
    """What comes in any portions leaves in batches of the size, in order; the rest at the end."""
    reporter = Answering()
    lane = lane_of(reporter, batch_size=4, interval_s=60)
    lane.report(metrics(3))
    lane.report(metrics(7))
    assert reporter.attempted.wait(60)
    assert lane.close(60)
    assert reporter.attempts == [[0, 1, 2, 0], [1, 2, 3, 4], [5, 6]]


def test_batches_by_interval(intervals: Intervals, lane_of: LaneOf) -> None:
    """An incomplete batch goes when its oldest measurement has waited the interval."""
    reporter = Answering()
    reporter.clock = intervals
    lane = lane_of(reporter, batch_size=100, interval_s=600)
    lane.report(metrics(2))
    intervals.reach(300, lane)
    lane.report(metrics(3))
    intervals.reach(599, lane)
    intervals.reach(600, lane)
    assert reporter.attempted.wait(60)
    assert reporter.attempts == [[0, 1, 0, 1, 2]]
    assert reporter.attempted_s == [600]


def test_a_flush_does_not_wait_for_the_interval(lane_of: LaneOf) -> None:
    """Nor does an alert."""
    reporter = Alerted()
    lane = lane_of(reporter, batch_size=100, interval_s=60)
    lane.report(metrics(2))
    lane.notify(an_alert())
    assert reporter.attempted.wait(60)
    assert lane.flush(60)
    assert reporter.attempts == [[0], [0, 1]]


class Idle(Answering):
    """Wants an empty batch where nothing was measured; tells when it has had `enough`."""

    reports_when_idle = True

    def __init__(self, *answers: BaseException | None, enough: int) -> None:
        super().__init__(*answers)
        self.sizes: list[int] = []
        self.had_enough = threading.Event()
        self._enough = enough

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.sizes.append(len(batch))
        if len(self.sizes) >= self._enough:
            self.had_enough.set()
        super().report(batch)


def test_an_idle_reporter_that_asks_for_it_is_handed_empty_batches(lane_of: LaneOf) -> None:
    """One after each interval; they count as nothing."""
    idle = Idle(enough=3)
    began_s = monotonic()
    lane = lane_of(idle, interval_s=0.05)
    assert idle.had_enough.wait(60)
    assert monotonic() - began_s >= 0.15
    assert lane.close(60)
    assert set(idle.sizes) == {0}
    status = lane.status()
    assert law_holds(status)
    assert (status.accepted, status.delivered, status.pending, dict(status.dropped)) == (0, 0, 0, {})


def test_measurements_keep_the_beat(lane_of: LaneOf) -> None:
    """What comes late in an interval does not put off the next batch; the end hands over no empty one."""
    idle = Idle(enough=1)
    lane = lane_of(idle, interval_s=60)
    lane.report(metrics(2))
    assert lane.close(60)
    assert idle.sizes == [2]


@pytest.mark.usefixtures("faults_contained")
@pytest.mark.parametrize("error", [TransientError("503", delivered=0), PermanentError("404"), OSError("broken")])
def test_after_a_failure_the_next_batch_follows_without_a_measurement(error: Exception, lane_of: LaneOf) -> None:
    """Within its interval, and once: no attempt besides; the failure is told."""
    idle = Idle(error, error, None, enough=3)
    lane = lane_of(idle, interval_s=0.05)
    assert idle.had_enough.wait(60)
    assert lane.close(60)
    status = lane.status()
    assert law_holds(status)
    assert (status.accepted, status.retried, dict(status.dropped)) == (0, 0, {})
    assert status.last_error is not None


@pytest.mark.parametrize(("asks", "interval_s"), [(False, 0.01), (True, 0.0)])
def test_nobody_else_is_handed_an_empty_batch(asks: bool, interval_s: float, lane_of: LaneOf) -> None:
    """Neither a reporter that does not ask for it, nor one without an interval."""
    idle, beat = Idle(enough=1), Idle(enough=20)
    idle.reports_when_idle = asks
    lane = lane_of(idle, "idle", interval_s=interval_s)
    lane_of(beat, "beat", interval_s=0.01)
    assert beat.had_enough.wait(60)
    assert lane.close(60)
    assert idle.sizes == []
