"""A bounded buffer and a thread for a reporter that may be slow."""

import threading
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from callbot_latency import Alert, LatencyMetric, Severity
from callbot_latency.drops import dropped
from callbot_latency.guard import reraise
from callbot_latency.lane import Lane


def metrics(amount: int) -> list[LatencyMetric]:
    return [LatencyMetric("speech_to_text", "f", float(n), "success") for n in range(amount)]  # type: ignore[arg-type]


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
        self.may_go.wait(20)
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


def _new_drops(before: dict[str, int]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in dropped.by_reason().items() if n != before.get(name, 0)}


def test_reports_in_order_and_closes(reporter: Reporter) -> None:
    """Batches arrive in order between one start and one close."""
    lane = Lane("a", reporter)
    lane.start()
    batches = [metrics(1), metrics(2), metrics(3)]
    for batch in batches:
        lane.report(batch)
    assert lane.flush(5)
    assert reporter.batches == batches
    assert lane.close(5)
    assert reporter.events == ["start", "close"]


def test_what_waits_at_close_is_reported(reporter: Reporter) -> None:
    """Closing reports everything that was handed over before."""
    lane = Lane("b", reporter)
    lane.start()
    for _ in range(100):
        lane.report(metrics(1))
    assert lane.close(5)
    assert len(reporter.batches) == 100


def test_hanging_reporter_delays_nobody(reporter: Reporter) -> None:
    """Handing over returns at once while the reporter hangs; what has no room is counted exactly."""
    before = dropped.by_reason()
    reporter.may_go.clear()
    lane = Lane("hanging", reporter, capacity=10)
    lane.start()
    lane.report(metrics(1))
    assert reporter.entered.wait(5)
    started_s = monotonic()
    for _ in range(15):
        lane.report(metrics(1))
    assert monotonic() - started_s < 1
    assert _new_drops(before) == {"hanging_lane_full": 5}
    reporter.may_go.set()
    assert lane.close(5)
    assert len(reporter.batches) == 11


def test_close_is_bounded_and_counts_what_was_not_confirmed(reporter: Reporter) -> None:
    """A reporter that hangs costs the time-out; what waits and what it has in hand is counted as unconfirmed."""
    before = dropped.by_reason()
    reporter.may_go.clear()
    lane = Lane("stuck", reporter)
    lane.start()
    lane.report(metrics(3))
    assert reporter.entered.wait(5)
    lane.report(metrics(4))
    started_s = monotonic()
    assert not lane.close(0.2)
    assert monotonic() - started_s < 1
    assert _new_drops(before) == {"stuck_unconfirmed": 7}


def test_flush_is_bounded(reporter: Reporter) -> None:
    """Flushing past a reporter that hangs gives up after its time-out."""
    reporter.may_go.clear()
    lane = Lane("c", reporter)
    lane.start()
    lane.report(metrics(1))
    assert not lane.flush(0.1)
    reporter.may_go.set()
    assert lane.close(5)


def test_failing_batch_is_counted_once_and_the_next_arrives(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that its reporter fails on is counted under one reason; the lane lives on, even after SystemExit."""
    monkeypatch.setattr(reraise, "on", False)
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
    assert lane.close(5)
    assert taken == [4]
    assert _new_drops(before) == {"failing_failed": 5}


def test_after_close_everything_is_dropped_and_counted(reporter: Reporter) -> None:
    """What is handed over after the end is counted, never kept."""
    lane = Lane("ended", reporter)
    lane.start()
    assert lane.close(5)
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
        assert lane.close(5)
    assert reporter.alerts == [alert]


def test_an_alert_that_names_its_channels_passes_to_those_alone(reporter: Reporter) -> None:
    """The lane's name is the channel's."""
    lane, ours, others = Lane("slack", reporter), an_alert(channels=("log", "slack")), an_alert(channels=("log",))
    lane.start()
    lane.notify(others)
    lane.notify(ours)
    assert lane.close(5)
    assert reporter.alerts == [ours]


def test_closed_from_its_own_thread_it_does_the_rest_afterwards() -> None:
    """A callback that shuts everything down waits for nobody, least of all itself."""

    class Closing(Reporter):
        def notify(self, alert: Any) -> None:
            super().notify(alert)
            if len(self.alerts) == 1:
                told.append(lane.close(5))

    reporter, told = Closing(), list[bool]()
    lane = Lane("a", reporter)
    first, second = an_alert(), an_alert()
    lane.notify(first)
    lane.notify(second)
    lane.start()
    lane._thread.join(5)
    assert told == [False]
    assert reporter.alerts == [first, second]
    assert reporter.events == ["start", "close"]
