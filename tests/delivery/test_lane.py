"""A lane delivers in order on a thread of its own, and a slow reporter delays nobody."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from callbot_latency import Alert, LatencyMetric, PermanentError, TransientError
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.delivery.lane import Lane
from tests.support.lanes import (
    QUICK,
    Answering,
    LaneOf,
    Reporter,
    an_alert,
    metrics,
    new_drops,
    turns,
)


def test_reports_in_order_and_closes(reporter: Reporter) -> None:
    """Batches arrive in order between one start and one close."""
    lane = Lane("a", reporter)
    lane.start()
    batches = [metrics(1), metrics(2), metrics(3)]
    for batch in batches:
        lane.report(batch)
    assert lane.flush(60)
    assert reporter.batches == batches
    assert lane.close(60)
    assert reporter.events == ["start", "close"]


def test_hanging_reporter_delays_nobody(reporter: Reporter) -> None:
    """Handing over returns at once while the reporter hangs; what has no room is counted exactly."""
    before = dropped.by_reason()
    reporter.may_go.clear()
    lane = Lane("hanging", reporter, capacity=10)
    lane.start()
    lane.report(metrics(1))
    assert reporter.entered.wait(60)
    for _ in range(15):
        lane.report(metrics(1))
    assert reporter.batches == []  # it hangs still
    assert new_drops(before) == {"hanging_lane_full": 5}
    reporter.may_go.set()
    assert lane.close(60)
    assert len(reporter.batches) == 11


def test_alerts_pass_only_to_a_reporter_that_takes_them(reporter: Reporter) -> None:
    """A reporter without `notify` is not troubled with alerts."""

    class Silent:
        def start(self) -> None: ...
        def report(self, batch: Sequence[LatencyMetric]) -> None: ...
        def close(self) -> None: ...

    alert = an_alert()
    for taker in (reporter, Silent()):
        lane = Lane("d", taker)
        lane.start()
        lane.notify(alert)
        assert lane.close(60)
    assert reporter.alerts == [alert]


def test_an_alert_that_names_its_channels_passes_to_those_alone(reporter: Reporter) -> None:
    """The lane's name is the channel's."""
    lane, ours, others = Lane("slack", reporter), an_alert(channels=("log", "slack")), an_alert(channels=("log",))
    lane.start()
    lane.notify(others)
    lane.notify(ours)
    assert lane.close(60)
    assert reporter.alerts == [ours]


def test_turns_pass_only_to_a_reporter_that_takes_them(reporter: Reporter) -> None:
    """The others have nothing to count."""
    lane = Lane("lane", reporter)
    lane.start()
    lane.report_turns(turns(1))
    assert lane.close(60)
    assert lane.status().accepted == 0


def test_start_close_report_and_notify_are_each_optional(lane_of: LaneOf) -> None:
    """A reporter of measurements or of alerts alone is not troubled with the others, nor do they count."""

    class Notified:
        def __init__(self) -> None:
            self.alerts: list[Alert] = []

        def notify(self, alert: Alert) -> None:
            self.alerts.append(alert)

    for reporter in (Answering(), Notified()):
        lane = lane_of(reporter)
        lane.report(metrics(2))
        lane.notify(an_alert())
        assert lane.close(60)
        assert lane.status().accepted == lane.status().delivered == (2 if isinstance(reporter, Answering) else 1)


@pytest.mark.promise("self-observation")
@pytest.mark.parametrize("suppressed", [True, False])
def test_instrumentation_is_off_on_the_thread_unless_the_applications_code_runs_there(
    suppressed: bool, lane_of: LaneOf
) -> None:
    """What a reporter sends makes no spans; what a callback sends does."""
    seen: list[bool] = []

    class Looking:
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            seen.append(is_instrumentation_enabled())

    lane = lane_of(Looking(), suppressed=suppressed)
    lane.report(metrics(1))
    assert lane.close(60)
    assert seen == [not suppressed]


def test_two_lanes_of_one_reporter_never_call_it_at_once(lane_of: LaneOf) -> None:
    """The next session's lane waits until the hanging one of the last has returned."""
    entered, may_go, inside, most = threading.Event(), threading.Event(), [0], [0]

    class Hanging:
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            entered.set()
            may_go.wait(100)
            inside[0] -= 1

    reporter = Hanging()
    first = lane_of(reporter, "session")
    first.report(metrics(1))
    assert entered.wait(60)
    assert not first.close(0.05)
    second = lane_of(reporter, "session", after=first)
    second.report(metrics(1))
    assert not second.flush(0.05)
    may_go.set()
    assert second.close(60)
    assert most == [1]
    assert second.status().delivered == 1


class Slow:
    """Keeps the thread of before the fork until it `may_go`, then answers; notes which thread brought what."""

    def __init__(self, answer: Exception | None) -> None:
        self.lane = Lane("forked", self, retry=QUICK)
        self.inherited = self.lane._thread
        self.entered, self.may_go, self.seen = threading.Event(), threading.Event(), list[tuple[bool, int]]()
        self._answer = answer

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        is_old = threading.current_thread() is self.inherited
        self.seen.append((is_old, len(batch)))
        if is_old:
            self.entered.set()
            self.may_go.wait(100)
            if self._answer is not None:
                raise self._answer


@pytest.mark.promise("fork")
@pytest.mark.parametrize(
    "answer",
    [None, TransientError("busy"), TransientError("busy", delivered=2), PermanentError("never"), OSError()],
    ids=["arrived", "busy", "in_part", "refused", "failed"],
)
def test_what_is_in_hand_at_a_fork_is_the_parents(answer: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that comes along, as a greenlet does, settles nothing in the child, takes nothing, and ends."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    slow, before = Slow(answer), dropped.by_reason()
    lane = slow.lane
    lane.start()
    lane.report(metrics(7))
    assert slow.entered.wait(60)
    lane.report(metrics(4))
    lane.restart_after_fork()
    lane.report(metrics(2))
    slow.may_go.set()
    slow.inherited.join(60)
    assert not slow.inherited.is_alive()
    assert (lane.status().accepted, lane.status().delivered, lane.status().pending) == (2, 0, 2)
    lane.resume()
    assert lane.flush(60)
    assert (lane.status().accepted, lane.status().delivered, lane.status().pending) == (2, 2, 0)
    assert slow.seen == [(True, 7), (False, 2)]
    assert (lane.status().dropped, lane.status().last_error, new_drops(before)) == ({}, None, {})
    assert lane.close(60)


class Wait(threading.Condition):
    """A wait to try again ends when the test says that its time is over."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.is_over = threading.Event(), threading.Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        self.began.set()
        while not self.is_over.is_set():
            self.wait(0.01)
        return predicate()


def test_what_waits_to_be_tried_again_at_a_fork_is_the_parents() -> None:
    """The wait goes on where it came along, and nothing comes of it."""
    slow, wait = Slow(TransientError("busy", retry_after_s=60)), Wait()
    lane = slow.lane
    lane._changed = wait
    slow.may_go.set()
    lane.start()
    lane.report(metrics(7))
    assert wait.began.wait(60)
    lane.restart_after_fork()
    wait.is_over.set()
    slow.inherited.join(60)
    assert not slow.inherited.is_alive()
    assert slow.seen == [(True, 7)]
    assert (lane.status().pending, lane.status().retried, lane.status().dropped) == (0, 0, {})
    lane.resume()
    assert lane.close(60)
