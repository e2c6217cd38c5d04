"""`report_manager`: reporters added by hand and by the environment, each isolated from the others."""

import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from callbot_latency import (
    Alert,
    LatencyMetric,
    PermanentError,
    ReporterStatus,
    ReportManager,
    TransientError,
    TurnMetric,
    measure_latency_context,
    record,
    report_manager,
    shutdown,
)
from callbot_latency.base.drop_counters import dropped
from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.reporter_checks import snake_case
from callbot_latency.model.operation import OperationStatus, OperationType, Severity
from callbot_latency.runtime import lifecycle as runtime_module
from tests.support.subprocesses import until

Start = Callable[..., Any]


class Kept:
    def __init__(self) -> None:
        self.metrics: list[LatencyMetric] = []

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.metrics += batch


class Told(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.alerts: list[Alert] = []

    def notify(self, alert: Alert) -> None:
        self.alerts.append(alert)


class Hanging(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.may_go, self.entered = threading.Event(), threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.entered.set()
        self.may_go.wait(60)
        super().report(batch)


class Webhook(Told):
    name = "slack"

    def __init__(self, target: str | None) -> None:
        super().__init__()
        self.target = target


def a_metric(latency_ms: float = 1.0) -> LatencyMetric:
    return LatencyMetric(OperationType.STT, "f", latency_ms, OperationStatus.SUCCESS)


@pytest.fixture
def manager() -> Iterator[ReportManager]:
    """One of the test's own, running."""
    manager = ReportManager()
    manager.start()
    yield manager
    manager.close(5)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What the test adds to the one of `init()` is removed after it."""
    yield
    shutdown(60)
    for reporter in report_manager.reporters:
        report_manager.remove_reporter(reporter)


# -- by hand --------------------------------------------------------------------------------------------------------


def test_added_before_init_or_after_it_gets_everything_from_then_on(start: Start) -> None:
    """The same for both; alerts too, where it has `notify`."""
    before, after = Told(), Kept()
    report_manager.add_reporter(before)
    start()
    report_manager.add_reporter(after)
    with measure_latency_context(OperationType.STT, "listen"):
        pass
    record(a_metric(6000))
    assert shutdown(60)
    assert [metric.operation_name for metric in before.metrics] == ["listen", "f"]
    assert after.metrics == before.metrics
    assert [alert.severity for alert in before.alerts] == [Severity.CRITICAL]
    assert {name: status.delivered for name, status in report_manager.status().items()} == {
        "jsonl": 2,
        "told": 3,
        "kept": 2,
    }


def test_by_hand_stays_through_shutdown_and_serves_the_next_session(start: Start) -> None:
    """Started and closed with each session; what the environment named goes."""
    events: list[str] = []

    class Whole(Kept):
        def start(self) -> None:
            events.append("start")

        def close(self) -> None:
            events.append("close")

    reporter = Whole()
    report_manager.add_reporter(reporter)
    for n in range(1, 3):
        start()
        assert list(report_manager.status()) == ["whole", "jsonl"]
        record(a_metric())
        assert shutdown(60)
        assert report_manager.reporters == (reporter,)
        assert len(reporter.metrics) == n
    assert events == ["start", "close"] * 2
    record(a_metric())
    assert len(reporter.metrics) == 2


def test_removed_it_gets_what_waited_and_nothing_more(manager: ReportManager) -> None:
    """Its lane is closed; the others go on."""
    leaves, stays = Kept(), Kept()
    manager.add_reporter(leaves, interval_s=60)
    manager.add_reporter(stays)
    manager.report([a_metric()])
    assert manager.remove_reporter(leaves, timeout_s=60)
    manager.report([a_metric()])
    assert manager.close(60)
    assert (len(leaves.metrics), len(stays.metrics)) == (1, 2)
    assert manager.reporters == (stays,)
    with pytest.raises(ValueError, match=r"Kept is not one of report_manager\.reporters"):
        manager.remove_reporter(leaves)


def test_removing_one_that_hangs_is_bounded_and_counted(manager: ReportManager) -> None:
    """What it has in hand is unconfirmed."""
    before = dropped.by_reason().get("hanging_unconfirmed", 0)
    reporter = Hanging()
    manager.add_reporter(reporter)
    manager.report([a_metric()])
    assert reporter.entered.wait(60)
    started_s = monotonic()
    assert not manager.remove_reporter(reporter, timeout_s=0.1)
    assert monotonic() - started_s < 10
    assert dropped.by_reason()["hanging_unconfirmed"] - before == 1
    reporter.may_go.set()


def test_removed_while_slow_and_added_again_it_is_called_by_one_thread_at_a_time(manager: ReportManager) -> None:
    """The new lane waits until the old one has returned."""

    class Slow(Hanging):
        inside = most = 0

        def report(self, batch: Sequence[LatencyMetric]) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            super().report(batch)
            self.inside -= 1

    slow = Slow()
    manager.add_reporter(slow)
    manager.report([a_metric(1)])
    assert slow.entered.wait(60)
    for number in (2, 3):
        assert not manager.remove_reporter(slow, timeout_s=0.05)
        slow.entered.clear()
        manager.add_reporter(slow)
        manager.report([a_metric(number)])
        assert not slow.entered.wait(0.1)
    slow.may_go.set()
    assert manager.flush(60)
    assert slow.most == 1
    assert [metric.latency_ms for metric in slow.metrics] == [1, 3]


def test_the_same_object_twice_counts_once(manager: ReportManager) -> None:
    """So do two of one class with the same target; different targets, or none, are different reporters."""
    reporter, one, same, other = Kept(), Webhook("https://x/1"), Webhook("https://x/1"), Webhook("https://x/2")
    for each in (reporter, reporter, one, same, other, Webhook(None), Webhook(None)):
        manager.add_reporter(each)
    assert manager.reporters[:3] == (reporter, one, other)
    assert list(manager.status()) == ["kept", "slack", "slack_2", "slack_3", "slack_4"]
    manager.remove_reporter(same)
    assert one not in manager.reporters


@pytest.mark.parametrize("hand_first", [True, False])
def test_by_hand_comes_before_the_environment(hand_first: bool, manager: ReportManager) -> None:
    """The same webhook from both counts once, with what was said by hand, whichever came first."""
    by_hand, of_environment = Webhook("https://x/1"), Webhook("https://x/1")
    adds = [lambda: manager.add_reporter(by_hand), lambda: manager.add_from_environment(of_environment)]
    for add in adds if hand_first else reversed(adds):
        add()
        manager.report([a_metric()])
    assert manager.reporters == (by_hand,)
    assert list(manager.status()) == ["slack"]
    assert manager.close(60)
    assert len(by_hand.metrics) + len(of_environment.metrics) == 2
    assert manager.reporters == (by_hand,)


def test_the_environments_own_added_by_hand_stays(manager: ReportManager) -> None:
    """The very object: its lane goes on, and it is no longer the environment's."""
    reporter = Webhook("https://x/1")
    manager.add_from_environment(reporter)
    manager.add_reporter(reporter)
    assert manager.close(60)
    assert manager.reporters == (reporter,)


@pytest.mark.promise("lifecycle")
def test_from_twenty_threads_at_once(manager: ReportManager) -> None:
    """Each reporter has its own name and lane, and gets everything that comes after."""
    reporters, together = [Kept() for _ in range(20)], threading.Barrier(20)

    def add(reporter: Kept) -> None:
        together.wait()
        manager.add_reporter(reporter)

    threads = [threading.Thread(target=add, args=(reporter,)) for reporter in reporters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.report([a_metric()])
    assert manager.close(60)
    assert [len(reporter.metrics) for reporter in reporters] == [1] * 20
    assert len(manager.status()) == 20


# -- how it is named, batched and checked ---------------------------------------------------------------------------


def test_its_attributes_are_its_defaults(manager: ReportManager) -> None:
    """`name`, `batch_size` and `interval_s` of the class, unless given."""

    class Sized(Kept):
        name = "sized"
        batch_size = 2
        interval_s = 60.0

        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def report(self, batch: Sequence[LatencyMetric]) -> None:
            self.sizes.append(len(batch))

    by_class, given = Sized(), Sized()
    manager.add_reporter(by_class)
    manager.add_reporter(given, name="given", batch_size=3)
    manager.report([a_metric() for _ in range(7)])
    assert list(manager.status()) == ["sized", "given"]
    assert manager.close(60)
    assert by_class.sizes == [2, 2, 2, 1]
    assert given.sizes == [3, 3, 1]


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("SlackReporter", "slack_reporter"),
        ("InfluxDBReporter", "influx_db_reporter"),
        ("_HTTP2", "http2"),
        ("É", "reporter"),
    ],
)
def test_else_its_class_names_it(name: str, snake: str) -> None:
    """In snake case."""
    assert snake_case(name) == snake


def test_the_names_of_our_own_lanes_are_not_given_away(manager: ReportManager) -> None:
    """Drops and channels called `log` and `callbacks` are theirs."""

    class Log(Kept): ...

    manager.add_reporter(Log())
    assert list(manager.status()) == ["log_2"]


@pytest.mark.parametrize("name", ["log", "kept", "Slack", "a b", "", "1"])
def test_a_name_that_is_malformed_or_taken_is_an_error(name: str, manager: ReportManager) -> None:
    """It would be a label and a channel: nothing is renamed in silence."""
    manager.add_reporter(Kept())
    with pytest.raises(ValueError, match="name: expected"):
        manager.add_reporter(Kept(), name=name)
    assert len(manager.reporters) == 1


@pytest.mark.parametrize(
    "numbers",
    [{"capacity": 0}, {"batch_size": 0}, {"batch_size": 2.5}, {"interval_s": -1}, {"interval_s": float("nan")}],
)
def test_a_number_out_of_range_is_an_error(numbers: dict[str, Any], manager: ReportManager) -> None:
    """One that names the argument."""
    (name,) = numbers
    with pytest.raises(ValueError, match=f"{name}: expected"):
        manager.add_reporter(Kept(), **numbers)


class Nothing: ...


class TakesNothing:
    def report(self) -> None: ...


class Async:
    async def report(self, batch: Sequence[LatencyMetric]) -> None: ...


class NotAMethod(Kept):
    close = 3


class WantsToStart(Kept):
    def start(self, when: float) -> None: ...


class AsyncOfTurns(Kept):
    async def report_turns(self, turns: Sequence[TurnMetric]) -> None: ...


@pytest.mark.parametrize(
    ("reporter", "told"),
    [
        (Nothing(), r"Nothing has neither"),
        (Kept, r"the class Kept itself"),
        (TakesNothing(), r"report\(batch\), TakesNothing\.report is not one"),
        (Async(), r"a plain method report\(batch\), Async\.report"),
        (NotAMethod(), r"a plain method close\(\), NotAMethod\.close"),
        (AsyncOfTurns(), r"a plain method report_turns\(turns\), AsyncOfTurns\.report_turns"),
        (WantsToStart(), r"a plain method start\(\), WantsToStart\.start"),
    ],
)
def test_what_is_no_reporter_is_told_at_once(reporter: Any, told: str, manager: ReportManager) -> None:
    """One TypeError that says what was expected, instead of a failure a batch."""
    with pytest.raises(TypeError, match=told):
        manager.add_reporter(reporter)


# -- isolation ------------------------------------------------------------------------------------------------------


@pytest.mark.promise("hanging-consumer")
def test_a_slow_one_delays_none_of_the_others(manager: ReportManager) -> None:
    """While one hangs, one fails and one is refused, the fourth has everything; `status` tells each one's numbers."""

    class Failing(Kept):
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            raise PermanentError("no such bucket")

    class Busy(Kept):
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            raise TransientError("429", retry_after_s=60)

    hanging, well = Hanging(), Kept()
    for reporter in (hanging, Failing(), Busy(), well):
        manager.add_reporter(reporter)
    manager.report([a_metric()])
    assert hanging.entered.wait(60)
    for _ in range(99):
        manager.report([a_metric()])
    assert not manager.flush(0.1)
    until(lambda: sum(manager.status()["failing"].dropped.values()) == 100)
    until(lambda: manager.status()["busy"].last_error)
    until(lambda: manager.status()["kept"].delivered == 100)
    assert not hanging.metrics
    status = manager.status()
    assert len(well.metrics) == 100
    assert (status["kept"].delivered, status["hanging"].pending, status["busy"].pending) == (100, 100, 100)
    assert status["failing"].dropped == {"failing_refused": 100}
    assert (status["failing"].last_error, status["busy"].last_error) == ("no such bucket", "429")
    for each in status.values():
        assert each.accepted == 100 == each.delivered + sum(each.dropped.values()) + each.pending
    hanging.may_go.set()


@pytest.mark.parametrize(("retry", "tries"), [(Retry(attempts=3), 3), (object(), 16)])
def test_a_reporter_may_be_more_patient_than_others(manager: ReportManager, retry: object, tries: int) -> None:
    """As the file is, which waits two minutes for a full disk. What else is called so changes nothing."""

    class Away(Kept):
        def report(self, batch: Sequence[LatencyMetric]) -> None:
            raise TransientError("away", retry_after_s=0)

    away: Any = Away()
    away.retry = retry
    manager.add_reporter(away)
    manager.report([a_metric()])
    assert manager.flush(60)
    status = manager.status()["away"]
    assert (status.retried, status.dropped) == (tries - 1, {"away_gave_up": 1})


@pytest.mark.promise("end-in-time")
def test_ten_that_hang_end_within_the_one_time_out(manager: ReportManager) -> None:
    """They are waited for at the same time, and what each had is counted."""
    reporters = [Hanging() for _ in range(10)]
    well = Kept()
    for reporter in (*reporters, well):
        manager.add_reporter(reporter)
    manager.report([a_metric()])
    for reporter in reporters:
        assert reporter.entered.wait(60)
    until(lambda: well.metrics)
    started_s = monotonic()
    # In turn they would take 15 s.
    assert not manager.close(1.5)
    assert 1.45 < monotonic() - started_s < 10
    unconfirmed = [status.dropped for name, status in manager.status().items() if name != "kept"]
    assert [sum(each.values()) for each in unconfirmed] == [1] * 10
    assert len(well.metrics) == 1
    for reporter in reporters:
        reporter.may_go.set()


def test_an_unknown_status_is_of_zeros() -> None:
    """Before `init()` nothing was accepted."""
    manager = ReportManager()
    manager.add_reporter(Kept())
    assert manager.status() == {"kept": ReporterStatus("kept")}
    assert manager.remove_reporter(manager.reporters[0], timeout_s=60)


def test_an_alert_is_passed_to_the_channels_it_names(manager: ReportManager) -> None:
    """By the reporter's name."""
    slack, mail = Webhook("https://x/1"), Told()
    manager.add_reporter(slack)
    manager.add_reporter(mail, name="mail")
    for channels in (None, ("mail",), ("slack", "log")):
        manager.notify(Alert(a_metric(), Severity.CRITICAL, 5000, channels=channels))
    assert manager.close(60)
    assert [alert.channels for alert in slack.alerts] == [None, ("slack", "log")]
    assert [alert.channels for alert in mail.alerts] == [None, ("mail",)]


def test_after_shutdown_the_status_tells_how_each_fared_until_the_next_init(start: Start) -> None:
    """Also of those that the environment added, which are reporters no more."""
    start()
    record(a_metric())
    assert shutdown(60)
    status = report_manager.status()["jsonl"]
    assert (status.accepted, status.delivered, status.pending) == (1, 1, 0)
    assert report_manager.reporters == ()
    assert shutdown(60)
    assert report_manager.status()["jsonl"] == status
    start(file_logging_enabled=False)
    assert report_manager.status() == {}


def test_the_environment_adds_the_file(start: Start) -> None:
    """The file is a reporter as every other; without it there is none."""
    start()
    assert list(report_manager.status()) == ["jsonl"]
    assert shutdown(60)
    start(file_logging_enabled=False)
    assert report_manager.status() == {}
    assert runtime_module._runtime is not None
