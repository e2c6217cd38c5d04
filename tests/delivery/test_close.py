"""The end of a lane: what is still delivered, and what is counted as unconfirmed."""

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest

from callbot_latency import LatencyMetric, PermanentError, TransientError
from callbot_latency.base.drop_counters import dropped
from callbot_latency.delivery.lane import Lane
from tests.support.lanes import (
    SLOW,
    Answering,
    LaneOf,
    Reporter,
    an_alert,
    law_holds,
    metrics,
    new_drops,
)


def test_what_waits_at_close_is_reported(reporter: Reporter) -> None:
    """Closing reports everything that was handed over before."""
    lane = Lane("b", reporter)
    lane.start()
    for _ in range(100):
        lane.report(metrics(1))
    assert lane.close(60)
    assert len(reporter.batches) == 100


def test_close_is_bounded_and_counts_what_was_not_confirmed(reporter: Reporter) -> None:
    """A reporter that hangs costs the time-out; what waits and what it has in hand is counted as unconfirmed."""
    before = dropped.by_reason()
    reporter.may_go.clear()
    lane = Lane("stuck", reporter)
    lane.start()
    lane.report(metrics(3))
    assert reporter.entered.wait(60)
    lane.report(metrics(4))
    assert not lane.close(0.2)
    assert reporter.batches == []  # it hangs still
    assert new_drops(before) == {"stuck_unconfirmed": 7}


def test_after_close_everything_is_dropped_and_counted(reporter: Reporter) -> None:
    """What is handed over after the end is counted, never kept."""
    lane = Lane("ended", reporter)
    lane.start()
    assert lane.close(60)
    before = dropped.by_reason()
    lane.report(metrics(2))
    assert new_drops(before) == {"ended_lane_full": 2}


def test_closed_from_its_own_thread_it_does_the_rest_afterwards() -> None:
    """A callback that shuts everything down waits for nobody, least of all itself."""

    class Closing(Reporter):
        def notify(self, alert: Any) -> None:
            super().notify(alert)
            if len(self.alerts) == 1:
                told.append(lane.close(60))

    reporter, told = Closing(), list[bool]()
    lane = Lane("a", reporter)
    first, second = an_alert(), an_alert()
    lane.notify(first)
    lane.notify(second)
    lane.start()
    lane._thread.join(60)
    assert told == [False]
    assert reporter.alerts == [first, second]
    assert reporter.events == ["start", "close"]


@pytest.mark.parametrize("better_by_then", [True, False])
def test_closing_makes_one_last_attempt(better_by_then: bool, lane_of: LaneOf) -> None:
    """A lane that backs off tries once more, at once; where that fails, all that is left is unconfirmed, at once."""
    before = dropped.by_reason()
    answers = [TransientError("away")] if better_by_then else [TransientError("away"), TransientError("away")]
    reporter = Answering(*answers)
    lane = lane_of(reporter, "last", retry=SLOW)
    lane.report(metrics(2))
    lane.report(metrics(3))
    assert reporter.attempted.wait(60)
    assert not lane.flush(0.05)
    started_s = monotonic()
    assert lane.close(60) is better_by_then
    assert monotonic() - started_s < 10
    assert new_drops(before) == ({} if better_by_then else {"last_unconfirmed": 5})
    assert law_holds(lane.status())
    assert lane.status().pending == 0


def test_closing_does_not_send_before_the_servers_time(lane_of: LaneOf) -> None:
    """Within the time-out it waits for it; beyond, nothing is sent and what is left is unconfirmed, at once."""
    near, far = (Answering(TransientError("429", retry_after_s=after_s)) for after_s in (0.2, 1e9))
    for reporter, ended_well in ((near, True), (far, False)):
        lane = lane_of(reporter, "polite", retry=SLOW)
        lane.report(metrics(1))
        assert reporter.attempted.wait(60)
        started_s = monotonic()
        assert lane.close(60) is ended_well
        assert monotonic() - started_s < 10
    assert near.attempted_s[1] - near.attempted_s[0] >= 0.2
    assert len(far.attempts) == 1


def test_what_a_hanging_attempt_ends_with_changes_no_count_afterwards(lane_of: LaneOf) -> None:
    """Given up as unconfirmed it stays, whether it arrived in the end or not."""
    entered, may_go = threading.Event(), threading.Event()

    class Hanging:
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            entered.set()
            may_go.wait(100)

    lane = lane_of(Hanging(), "hung")
    lane.report(metrics(3))
    assert entered.wait(60)
    assert not lane.close(0.05)
    told = lane.status()
    assert told.dropped == {"hung_unconfirmed": 3}
    may_go.set()
    lane._thread.join(60)
    assert lane.status() == told


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        (2, {"ending_unconfirmed": 2}),
        (99, {"ending_unconfirmed": 3}),
        (TransientError("away", unconfirmed=2), {"ending_unconfirmed": 2}),
        (PermanentError("no", refused=1), {"ending_refused": 1}),
        (TransientError("away"), {}),
    ],
    ids=repr,
)
def test_a_close_that_failed_is_told(said: Any, lost: dict[str, int], lane_of: LaneOf) -> None:
    """What counted as delivered and did not arrive is dropped after all, in status and total; never more than that."""

    class Ending(Answering):
        def close(self) -> Any:
            if isinstance(said, Exception):
                raise said
            return said

    before = dropped.by_reason()
    lane = lane_of(Ending(), "ending")
    lane.report(metrics(3))
    assert not lane.close(60)
    assert new_drops(before) == lost
    status = lane.status()
    assert law_holds(status)
    assert status.dropped == lost
    assert status.last_error == (str(said) if isinstance(said, Exception) else None)


def test_a_close_that_hangs_has_not_ended(lane_of: LaneOf) -> None:
    """The time was too short, though nothing waits."""
    may_go = threading.Event()

    class Hanging(Answering):
        def close(self) -> None:
            may_go.wait(100)

    lane = lane_of(Hanging(), "hanging_end")
    lane.report(metrics(1))
    assert lane.flush(60)
    assert not lane.close(0.05)
    may_go.set()
