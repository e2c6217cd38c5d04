"""`send_test()`: which channels work, before somebody must be woken."""

import logging
import threading

import pytest

from callbot_latency import (
    Alert,
    LatencyMetric,
    OperationStatus,
    OperationType,
    SlackReporter,
    add_alert_callback,
    record,
    report_manager,
)
from callbot_latency.alerting import send_test
from callbot_latency.model.alert import AlertEvent
from tests.conftest import Start
from tests.support.scripted_http import HANG, SECRET, Answer, webhook


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no time-out is given, a busy machine has a minute for Slack's answer."""
    monkeypatch.setitem(SlackReporter.__init__.__kwdefaults__, "timeout_s", 60.0)


@pytest.mark.usefixtures("fresh_callbacks")
def test_each_channel_gets_one_marked_alert_and_says_how_it_went(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The log, Slack, and a reporter of one's own; callbacks hear nothing."""
    caplog.set_level(logging.INFO, "callbot_latency.alerting")
    heard: list[Alert] = []
    add_alert_callback(heard.append)

    class Pager:
        def notify(self, alert: Alert) -> None:
            raise ValueError("the pager's password is 1234")

    pager = Pager()
    with webhook() as slack:
        start(slack_webhook_url=slack.url)
        report_manager.add_reporter(pager)
        try:
            assert send_test(60) == {"log": None, "slack": None, "pager": "ValueError"}
        finally:
            report_manager.remove_reporter(pager)
        (request,) = slack.requests
    assert request.json["text"] == "test: this channel works; nothing is slow"
    assert "test: this channel works; nothing is slow" in [line.getMessage() for line in caplog.records]
    assert heard == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404, b"no_service"), "no_service"),
        (Answer(429, b"", {"Retry-After": "30"}), "429"),
        (Answer(503, b""), "503"),
        (HANG, "no answer within 0.5 s"),
    ],
)
def test_a_channel_that_fails_is_asked_once_and_says_why(answer: Answer, said: str, start: Start) -> None:
    """Without waiting until it might work; the webhook is in no word of it."""
    with webhook() as slack:
        slack.answers(answer)
        start(slack_webhook_url=slack.url, logging_enabled=False)
        went = send_test(timeout_s=0.5 if answer == HANG else 60)
        assert said in (went["slack"] or "")
        assert SECRET not in str(went)
        # Within half a second a busy machine may not even have asked.
        assert len(slack.requests) == 1 or (answer == HANG and not slack.requests)


def test_it_speaks_french(start: Start) -> None:
    """As every alert."""
    with webhook() as slack:
        start(slack_webhook_url=slack.url, language="fr")
        assert send_test(60)["slack"] is None
        assert slack.requests[0].json["text"] == "test : ce canal fonctionne ; rien n'est lent"


def test_without_init_it_says_what_to_do() -> None:
    """Nothing runs, so nothing can be tested."""
    with pytest.raises(RuntimeError, match="call callbot_latency.init"):
        send_test()


def test_the_second_that_is_silent_had_the_whole_time_out(start: Start) -> None:
    """All channels wait at the same time, and each is told the time that all had together."""
    with webhook(HANG) as one, webhook(HANG) as other:
        start(slack_webhook_url=one.url, logging_enabled=False)
        second = SlackReporter(other.url)
        report_manager.add_reporter(second)
        try:
            assert send_test(0.2) == {"slack": "no answer within 0.2 s", "slack_2": "no answer within 0.2 s"}
        finally:
            report_manager.remove_reporter(second, timeout_s=0)


def test_a_test_that_nobody_waits_for_any_more_is_not_sent(start: Start) -> None:
    """The channel was busy for longer than the time-out; what it posts afterwards is no test."""
    entered, may_go, told = threading.Event(), threading.Event(), list[AlertEvent]()

    class Slow:
        def notify(self, alert: Alert) -> None:
            entered.set()
            may_go.wait(60)
            told.append(alert.event)

    start(logging_enabled=False)
    slow = Slow()
    report_manager.add_reporter(slow)
    try:
        record(LatencyMetric(OperationType.STT, "f", 9000.0, OperationStatus.SUCCESS))
        assert entered.wait(60)
        assert send_test(0.1) == {"slow": "no answer within 0.1 s"}
        may_go.set()
    finally:
        report_manager.remove_reporter(slow, timeout_s=60)
    assert told == [AlertEvent.BREACH]
