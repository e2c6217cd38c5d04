"""What a reporter answers: what is tried again, how often and when, and what is dropped."""

from datetime import UTC, datetime

import pytest

from callbot_latency import PermanentError, TransientError
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.lane import Lane
from tests.support.lanes import (
    QUICK,
    SLOW,
    Alerted,
    Answering,
    LaneOf,
    OfTurns,
    an_alert,
    law_holds,
    metrics,
    new_drops,
    turns,
)


def test_of_turns_too_only_the_rest_is_tried_again() -> None:
    """As with measurements: what arrived is not handed over again, what was refused is counted."""
    reporter = OfTurns(TransientError("busy", delivered=1, refused=1), PermanentError("never", refused=1))
    lane = Lane("turns_again", reporter, retry=QUICK)
    lane.start()
    lane.report_turns(turns(1, 2, 3, 4))
    assert lane.flush(60)
    assert lane.close(60)
    assert reporter.came == [("turns", [1, 2, 3, 4]), ("turns", [3, 4])]
    status = lane.status()
    assert (status.delivered, status.retried, status.dropped) == (2, 1, {"turns_again_refused": 2})


def test_what_a_busy_server_did_not_take_is_tried_again_in_order(lane_of: LaneOf) -> None:
    """The rest of the batch, from where it stopped, before anything that came later; nothing is lost."""
    before = dropped.by_reason()
    reporter = Answering(TransientError("busy", delivered=2), TransientError("busy", delivered=0))
    lane = lane_of(reporter, "busy")
    lane.report(metrics(4))
    lane.report(metrics(1))
    assert lane.flush(60)
    assert reporter.attempts == [[0, 1, 2, 3], [2, 3], [2, 3], [0]]
    assert new_drops(before) == {}
    status = lane.status()
    assert (status.accepted, status.delivered, status.pending, status.retried) == (5, 5, 0, 2)
    assert status.last_error == "busy"
    assert status.last_error_at is not None
    assert (datetime.now(UTC) - status.last_error_at).total_seconds() < 60


def test_what_was_refused_is_counted_and_the_others_are_delivered(lane_of: LaneOf) -> None:
    """All of a batch, or as many as the reporter says; never tried again."""
    before = dropped.by_reason()
    reporter = Answering(PermanentError("no_service"), PermanentError("one bad line", refused=1))
    lane = lane_of(reporter, "strict")
    for _ in range(3):
        lane.report(metrics(3))
    assert lane.close(60)
    assert len(reporter.attempts) == 3
    assert new_drops(before) == {"strict_refused": 4}
    assert lane.status().delivered == 5
    assert lane.status().dropped == {"strict_refused": 4}


def test_partly_arrived_partly_refused_and_the_rest_again(lane_of: LaneOf) -> None:
    """One answer may say all three."""
    reporter = Answering(TransientError("busy", delivered=2, refused=1))
    lane = lane_of(reporter, "mixed")
    lane.report(metrics(5))
    assert lane.flush(60)
    assert reporter.attempts == [[0, 1, 2, 3, 4], [3, 4]]
    assert lane.status().delivered == 4
    assert lane.status().dropped == {"mixed_refused": 1}


@pytest.mark.promise("http-errors")
def test_attempts_that_bring_nothing_forward_are_bounded(lane_of: LaneOf) -> None:
    """After 16 in a row the work is given up and the next has its turn; progress begins to count anew."""
    before = dropped.by_reason()
    steps: list[TransientError] = [TransientError("busy") for _ in range(15)]
    reporter = Answering(*steps, TransientError("busy", delivered=1), *[TransientError("away") for _ in range(15)])
    lane = lane_of(reporter, "away")
    lane.report(metrics(3))
    lane.report(metrics(1))
    assert lane.flush(60)
    assert len(reporter.attempts) == 15 + 1 + 15 + 1
    assert new_drops(before) == {"away_gave_up": 2}
    assert lane.status().delivered == 2


def test_an_alert_is_tried_again_as_often(lane_of: LaneOf) -> None:
    """An alert that a channel did not take is not lost, and alerts go before measurements."""
    before = dropped.by_reason()
    reporter = Alerted(*[TransientError("busy") for _ in range(17)])
    lane = lane_of(reporter, "alerts")
    lane.notify(an_alert())
    lane.notify(an_alert())
    assert lane.flush(60)
    assert len(reporter.attempts) == 16 + 2
    assert new_drops(before) == {"alerts_gave_up": 1}


@pytest.mark.promise("http-errors")
def test_the_waits_grow_with_full_jitter_up_to_their_cap() -> None:
    """Each wait is anything from 0 to a bound that doubles from 0.5 s to 30 s."""
    retry = Retry()
    for failed, bound_s in ((1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (15, 30.0), (10_000, 30.0)):
        waits = [retry.wait_s(failed) for _ in range(200)]
        assert all(0 <= wait_s <= bound_s for wait_s in waits)
        assert max(waits) > bound_s / 2 > min(waits)


@pytest.mark.promise("http-errors")
@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(7.0, 7.0), (0.0, 0.0), (-1.0, 0.0), (1e9, 600.0), (float("nan"), None), (None, None)]
)
def test_what_a_server_may_ask_for_is_bounded(asked_s: float | None, waited_s: float | None) -> None:
    """Ten minutes at most; what is no number of seconds is as if it had not asked."""
    assert Retry().asked_s(TransientError("busy", retry_after_s=asked_s)) == waited_s


@pytest.mark.promise("http-errors")
def test_nothing_is_sent_before_the_time_that_the_server_named(lane_of: LaneOf) -> None:
    """Neither the work that was put off, nor an alert that comes meanwhile."""
    reporter = Alerted(TransientError("429", retry_after_s=0.3))
    lane = lane_of(reporter, "limited")
    lane.report(metrics(1))
    assert reporter.attempted.wait(60)
    lane.notify(an_alert())
    assert lane.flush(60)
    first_s, second_s, third_s = reporter.attempted_s
    assert second_s - first_s >= 0.3
    assert third_s >= second_s


def test_while_it_waits_new_work_is_taken_in_up_to_the_capacity(lane_of: LaneOf) -> None:
    """A lane that backs off buffers what there is room for, and drops the rest."""
    before = dropped.by_reason()
    reporter = Answering(TransientError("503"))
    lane = lane_of(reporter, "waiting", 5, retry=SLOW)
    lane.report(metrics(1))
    assert reporter.attempted.wait(60)
    for _ in range(3):
        lane.report(metrics(3))
    assert new_drops(before) == {"waiting_lane_full": 4}
    status = lane.status()
    assert (status.accepted, status.pending) == (10, 6)
    assert law_holds(status)
    assert lane.close(60)  # which tries once more
    assert lane.status().delivered == 6


class WithoutInitError(TransientError):
    def __init__(self) -> None:
        """Calls no other."""


class WithoutTextError(PermanentError):
    def __str__(self) -> str:
        raise ValueError("no text")


class WithoutNumbersError(TransientError):
    @property  # type: ignore[override]
    def delivered(self) -> int:
        raise ValueError("no number")

    @delivered.setter
    def delivered(self, _: int) -> None: ...


@pytest.mark.parametrize(
    "answer",
    [
        TransientError("busy", retry_after_s="0"),  # type: ignore[arg-type]
        TransientError("busy", retry_after_s="soon"),  # type: ignore[arg-type]
        TransientError("busy", delivered=None, refused="none"),  # type: ignore[arg-type]
        WithoutInitError(),
    ],
    ids=repr,
)
def test_numbers_that_are_none_are_as_if_not_given(answer: Exception, lane_of: LaneOf) -> None:
    """A header as it came, None, or a class of somebody's own: the work is tried again, and the lane lives on."""
    reporter = Answering(answer)
    lane = lane_of(reporter, "sloppy")
    lane.report(metrics(2))
    lane.report(metrics(1))
    assert lane.flush(60)
    assert reporter.attempts == [[0, 1], [0, 1], [0]]
    assert lane.status().delivered == 3


def test_attributes_set_by_hand_are_read_with_the_same_care(lane_of: LaneOf) -> None:
    """They may be anything by the time that the lane looks."""
    error, refused = TransientError("busy"), PermanentError("no")
    error.retry_after_s, error.delivered = "0", "1"  # type: ignore[assignment]
    refused.refused = "1"  # type: ignore[assignment]
    reporter = Answering(error, refused)
    lane = lane_of(reporter, "by_hand")
    lane.report(metrics(3))
    assert lane.flush(60)
    assert reporter.attempts == [[0, 1, 2], [1, 2]]
    assert (lane.status().delivered, lane.status().dropped) == (2, {"by_hand_refused": 1})


def test_an_answer_without_a_text_is_told_by_its_type(lane_of: LaneOf) -> None:
    """Its ``__str__`` raises."""
    lane = lane_of(Answering(WithoutTextError("x")), "mute")
    lane.report(metrics(1))
    lane.report(metrics(1))
    assert lane.flush(60)
    status = lane.status()
    assert (status.delivered, status.dropped, status.last_error) == (1, {"mute_refused": 1}, "WithoutTextError")


def test_an_answer_that_cannot_be_read_is_a_fault(lane_of: LaneOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in hand has failed, and the thread lives on."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    lane = lane_of(Answering(WithoutNumbersError("x")), "odd")
    lane.report(metrics(2))
    lane.report(metrics(1))
    assert lane.flush(60)
    status = lane.status()
    assert (status.delivered, status.dropped, status.last_error) == (1, {"odd_failed": 2}, "ValueError")


def test_a_start_that_ends_the_thread_does_not(lane_of: LaneOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """SystemExit is a fault like any other; what comes is reported all the same."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)

    class Leaving(Answering):
        def start(self) -> None:
            raise SystemExit(3)

    lane = lane_of(Leaving(), "leaving")
    lane.report(metrics(1))
    assert lane.flush(60)
    assert (lane.status().delivered, lane.status().last_error) == (1, "SystemExit")
