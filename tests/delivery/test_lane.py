"""A bounded buffer and a thread for a reporter that may be slow."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from callbot_latency import Alert, LatencyMetric, PermanentError, ReporterStatus, Severity, TransientError, TurnMetric
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.base.pacing import yielding
from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.lane import CAPACITY, Lane
from tests.support import measured


def metrics(amount: int) -> list[LatencyMetric]:
    return [LatencyMetric("speech_to_text", "f", float(n), "success") for n in range(amount)]  # type: ignore[arg-type]


def turns(*numbers: int) -> list[TurnMetric]:
    return [measured.turn(n) for n in numbers]


def an_alert(**fields: Any) -> Alert:
    return Alert(metrics(1)[0], Severity.CRITICAL, 5000, **fields)


class Reporter:
    def __init__(self) -> None:
        self.batches: list[Sequence[LatencyMetric]] = []
        self.alerts: list[Any] = []
        self.events: list[str] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def start(self) -> None:
        self.events.append("start")

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.entered.set()
        self.may_go.wait(100)
        self.batches.append(batch)

    def notify(self, alert: Any) -> None:
        self.alerts.append(alert)

    def close(self) -> None:
        self.events.append("close")


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    reporter = Reporter()
    yield reporter
    reporter.may_go.set()


class Intervals:
    """The clock by which batches are due, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr("callbot_latency.delivery.buffer.monotonic", self)

    def __call__(self) -> float:
        return self.now_s

    def reach(self, now_s: float, lane: Lane) -> None:
        """It is so late now, and the thread of `lane` looks what is due."""
        self.now_s = now_s
        lane.report([])


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> Intervals:
    return Intervals(monkeypatch)


def _new_drops(before: dict[str, int]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in dropped.by_reason().items() if n != before.get(name, 0)}


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


def test_what_waits_at_close_is_reported(reporter: Reporter) -> None:
    """Closing reports everything that was handed over before."""
    lane = Lane("b", reporter)
    lane.start()
    for _ in range(100):
        lane.report(metrics(1))
    assert lane.close(60)
    assert len(reporter.batches) == 100


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
    assert _new_drops(before) == {"hanging_lane_full": 5}
    reporter.may_go.set()
    assert lane.close(60)
    assert len(reporter.batches) == 11


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
    assert _new_drops(before) == {"stuck_unconfirmed": 7}


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


def test_failing_batch_is_counted_once_and_the_next_arrives(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that its reporter fails on is counted under one reason; the lane lives on, even after SystemExit."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    before = dropped.by_reason()
    faults: list[BaseException | None] = [RuntimeError(), SystemExit(), None]
    taken: list[int] = []

    def report(batch: Sequence[LatencyMetric]) -> None:
        if fault := faults.pop(0):
            raise fault
        taken.append(len(batch))

    reporter.report = report  # type: ignore[method-assign]
    lane = Lane("failing", reporter)
    lane.start()
    for amount in (2, 3, 4):
        lane.report(metrics(amount))
    assert lane.close(60)
    assert taken == [4]
    assert _new_drops(before) == {"failing_failed": 5}


def test_after_close_everything_is_dropped_and_counted(reporter: Reporter) -> None:
    """What is handed over after the end is counted, never kept."""
    lane = Lane("ended", reporter)
    lane.start()
    assert lane.close(60)
    before = dropped.by_reason()
    lane.report(metrics(2))
    assert _new_drops(before) == {"ended_lane_full": 2}


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


# -- turns ------------------------------------------------------------------------------------------------------------


class OfTurns(Reporter):
    """Notes what comes in the order in which it comes: turns by their number, measurements by their latency."""

    def __init__(self, *answers: BaseException | None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.came: list[tuple[str, list[float]]] = []
        self.clock: Callable[[], float] = monotonic
        self.at_s: list[float] = []
        self.measurements_came = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        super().report(batch)
        self.at_s.append(self.clock())
        self.came.append(("measurements", [metric.latency_ms for metric in batch]))
        self.measurements_came.set()

    def report_turns(self, batch: Sequence[TurnMetric]) -> None:
        self.at_s.append(self.clock())
        self.came.append(("turns", [turn.turn for turn in batch]))
        if self.answers and (answer := self.answers.pop(0)):
            raise answer


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


def test_turns_that_have_no_room_are_counted() -> None:
    """They share the room of measurements."""
    reporter = OfTurns()
    reporter.may_go.clear()
    lane = Lane("turns_full", reporter, capacity=5)
    lane.start()
    lane.report(metrics(1))
    assert reporter.entered.wait(60)
    lane.report(metrics(3))
    lane.report_turns(turns(1, 2, 3, 4))
    status = lane.status()
    assert (status.accepted, status.pending, status.dropped) == (8, 6, {"turns_full_lane_full": 2})
    reporter.may_go.set()
    assert lane.close(60)
    assert reporter.came[-1] == ("turns", [1, 2])


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


def test_turns_pass_only_to_a_reporter_that_takes_them(reporter: Reporter) -> None:
    """The others have nothing to count."""
    lane = Lane("lane", reporter)
    lane.start()
    lane.report_turns(turns(1))
    assert lane.close(60)
    assert lane.status().accepted == 0


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


# -- what the reporter answers --------------------------------------------------------------------------------------


QUICK = Retry(base_s=0.0, cap_s=0.0, asked_cap_s=60.0)
SLOW = Retry(base_s=1e9, cap_s=1e9, asked_cap_s=1e9)


class Answering:
    """Answers one attempt after the other as told, then takes everything."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)
        self.attempts: list[list[float]] = []
        self.clock: Callable[[], float] = monotonic
        self.attempted_s: list[float] = []
        self.attempted = threading.Event()
        self.enough = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.attempted_s.append(self.clock())
        self.attempts.append([metric.latency_ms for metric in batch])
        self.attempted.set()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Alerted(Answering):
    def notify(self, alert: Alert) -> None:
        self.report([alert.metric])


@pytest.fixture
def lane_of() -> Iterator[Callable[..., Lane]]:
    """``lane_of(reporter, ...)`` gives a lane that is started, and closed after the test."""
    made: list[Lane] = []

    def build(reporter: Any, name: str = "lane", capacity: int = CAPACITY, **kwargs: Any) -> Lane:
        lane = Lane(name, reporter, capacity, **{"retry": QUICK, **kwargs})
        made.append(lane)
        lane.start()
        return lane

    yield build
    for lane in made:
        lane.close(60)


LaneOf = Callable[..., Lane]


def law_holds(status: ReporterStatus) -> bool:
    return status.accepted == status.delivered + sum(status.dropped.values()) + status.pending


def test_what_a_busy_server_did_not_take_is_tried_again_in_order(lane_of: LaneOf) -> None:
    """The rest of the batch, from where it stopped, before anything that came later; nothing is lost."""
    before = dropped.by_reason()
    reporter = Answering(TransientError("busy", delivered=2), TransientError("busy", delivered=0))
    lane = lane_of(reporter, "busy")
    lane.report(metrics(4))
    lane.report(metrics(1))
    assert lane.flush(60)
    assert reporter.attempts == [[0, 1, 2, 3], [2, 3], [2, 3], [0]]
    assert _new_drops(before) == {}
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
    assert _new_drops(before) == {"strict_refused": 4}
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
    assert _new_drops(before) == {"away_gave_up": 2}
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
    assert _new_drops(before) == {"alerts_gave_up": 1}


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
    assert _new_drops(before) == {"waiting_lane_full": 4}
    status = lane.status()
    assert (status.accepted, status.pending) == (10, 6)
    assert law_holds(status)
    assert lane.close(60)  # which tries once more
    assert lane.status().delivered == 6


# -- the end of a lane that waits -----------------------------------------------------------------------------------


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
    assert _new_drops(before) == ({} if better_by_then else {"last_unconfirmed": 5})
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


# -- batches --------------------------------------------------------------------------------------------------------


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


# -- what it needs, and what it says --------------------------------------------------------------------------------


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


def test_each_delivery_retry_and_drop_stands_in_the_log(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG shows all; one WARNING a minute says what was lost, why, and what to do; a secret never."""
    caplog.set_level(logging.DEBUG, "callbot_latency.reporters.told")
    secret = "https://hooks.slack.com/services/T000/B000/XXXX"
    refused = [PermanentError(f"no_service at {secret} - make a new webhook") for _ in range(3)]
    lane = lane_of(Answering(TransientError(f"503 of {secret}"), None, *refused), "told")
    for _ in range(4):
        lane.report(metrics(1))
    assert lane.flush(60)
    assert lane.close(60)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said[:2] == [("DEBUG", "1 again in 0.0 s: 503 of [slack-webhook]"), ("DEBUG", "delivered 1")]
    drop = "dropped since the last such line: told_refused: 1 (no_service at [slack-webhook] - make a new webhook)"
    assert said[2:] == [("WARNING", drop), ("DEBUG", drop), ("DEBUG", drop)]
    assert lane.status().last_error == "no_service at [slack-webhook] - make a new webhook"


@pytest.mark.promise("secrets")
def test_the_text_of_a_fault_is_nowhere(
    lane_of: LaneOf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may quote what a caller said: its type alone is told."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    caplog.set_level(logging.DEBUG)
    lane = lane_of(Answering(ValueError("my card is 4970")), "faulty")
    lane.report(metrics(1))
    assert lane.close(60)
    assert lane.status().last_error == "ValueError"
    assert lane.status().dropped == {"faulty_failed": 1}
    assert "4970" not in caplog.text


@pytest.mark.promise("overload")
def test_the_log_says_a_loss_once_a_minute(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """Of a thousand refusals there is one line at WARNING, and at the end one for those that it did not know of yet."""
    lane = lane_of(Answering(*[PermanentError("unauthorized, set INFLUXDB_TOKEN") for _ in range(1000)]), "once")
    for _ in range(1000):
        lane.report(metrics(1))
    assert lane.flush(60)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "once_refused: 1 (unauthorized, set INFLUXDB_TOKEN)" in caplog.text
    assert lane.close(60)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "once_refused: 999 " in caplog.text


@pytest.mark.promise("chaos")
def test_the_log_says_at_the_end_what_was_not_confirmed(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """Also within the minute of the line before; then nothing is counted that no line told."""
    lane = lane_of(Answering(PermanentError("no"), *[TransientError("away") for _ in range(50)]), "away", retry=SLOW)
    lane.report(metrics(1))
    assert lane.flush(60)
    lane.report(metrics(3))
    assert not lane.close(60)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(": ")[2] for line in lines] == ["away_refused: 1 (no)", "away_unconfirmed: 3 (away)"]


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


# -- idle -----------------------------------------------------------------------------------------------------------


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


# -- what a reporter does wrong -------------------------------------------------------------------------------------


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


# -- what the end of a reporter says --------------------------------------------------------------------------------


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
    assert _new_drops(before) == lost
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


# -- a fork -----------------------------------------------------------------------------------------------------------


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
    assert (lane.status().dropped, lane.status().last_error, _new_drops(before)) == ({}, None, {})
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
