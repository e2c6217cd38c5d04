"""`send_test()`: which channels work, before somebody must be woken."""

import logging

import pytest

from callbot_latency import Alert, add_alert_callback, report_manager
from callbot_latency.alerting import send_test

from .conftest import Start
from .faults.scripted import HANG, SECRET, Answer, webhook


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
            assert send_test() == {"log": None, "slack": None, "pager": "ValueError"}
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
        (HANG, "no answer within 1 s"),
    ],
)
def test_a_channel_that_fails_is_asked_once_and_says_why(answer: Answer, said: str, start: Start) -> None:
    """Without waiting until it might work; the webhook is in no word of it."""
    with webhook() as slack:
        slack.answers(answer)
        start(slack_webhook_url=slack.url, logging_enabled=False)
        went = send_test(timeout_s=1)
        assert said in (went["slack"] or "")
        assert SECRET not in str(went)
        assert len(slack.requests) == 1


def test_it_speaks_french(start: Start) -> None:
    """As every alert."""
    with webhook() as slack:
        start(slack_webhook_url=slack.url, language="fr")
        assert send_test()["slack"] is None
        assert slack.requests[0].json["text"] == "test : ce canal fonctionne ; rien n'est lent"


def test_without_init_it_says_what_to_do() -> None:
    """Nothing runs, so nothing can be tested."""
    with pytest.raises(RuntimeError, match="call callbot_latency.init"):
        send_test()
