"""What becomes of alerts when Slack is busy, ails, refuses or hangs: the lane and the channel together."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic

import pytest

from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.lane import Lane
from callbot_latency.reporters.apprise import AppriseReporter
from callbot_latency.reporters.slack import SlackReporter
from tests.reporters.test_slack import an_alert
from tests.support.scripted_http import HANG, RESET, Answer, webhook

QUICK = {"base_s": 0.01, "cap_s": 0.05}


@contextmanager
def lane_to(reporter: SlackReporter | AppriseReporter, **retry: float) -> Iterator[Lane]:
    lane = Lane(reporter.name, reporter, retry=Retry(**{**QUICK, **retry}))
    lane.start()
    try:
        yield lane
    finally:
        lane.close()


@pytest.mark.promise("http-errors")
def test_429_is_waited_for_and_nothing_sent_early() -> None:
    """Three alerts, the first held up by `Retry-After: 1`: none before the second is over, each once, in order."""
    with webhook(Answer(429, b"rate_limited", {"Retry-After": "1"})) as slack:
        alerts = [an_alert(held_back=n) for n in (1, 2, 3)]
        with lane_to(SlackReporter(slack.url)) as lane:
            for alert in alerts:
                lane.notify(alert)
            assert lane.flush(60)
            status = lane.status()
    first, *others = [request.at_s for request in slack.requests]
    assert all(at_s - first >= 1.0 for at_s in others)
    texts = [message["text"] for message in slack.messages()]
    assert [f"and {n} more" in text for n, text in zip((1, 1, 2, 3), texts, strict=True)] == [True] * 4
    assert (status.accepted, status.delivered, status.retried, dict(status.dropped)) == (3, 3, 1, {})


@pytest.mark.promise("outage")
def test_a_server_that_ails_gets_it_when_it_is_well() -> None:
    """500, a reset, 503: the same message again, and it arrives once."""
    ailing = (Answer(500, b"rollup_error"), RESET, Answer(503))
    with webhook(*ailing) as slack, lane_to(SlackReporter(slack.url)) as lane:
        lane.notify(an_alert())
        assert lane.flush(60)
        status = lane.status()
    assert (status.delivered, status.retried, len(slack.requests)) == (1, 3, 4)
    assert all(one == other for one, other in pairwise(slack.messages()))


@pytest.mark.promise("http-errors")
@pytest.mark.usefixtures("faults_contained")
def test_tries_are_bounded() -> None:
    """A server that never gets well is given up, and counted; the next alert is tried anew."""
    with webhook(*[Answer(500)] * 5) as slack, lane_to(SlackReporter(slack.url), attempts=5) as lane:
        lane.notify(an_alert())
        lane.notify(an_alert())
        assert lane.flush(60)
        status = lane.status()
    assert len(slack.requests) == 6
    assert (status.delivered, dict(status.dropped)) == (1, {"slack_gave_up": 1})


@pytest.mark.promise("http-errors")
@pytest.mark.usefixtures("faults_contained")
@pytest.mark.parametrize("answer", [Answer(404, b"no_service"), Answer(302, b"", {"Location": "http://evil.test"})])
def test_a_refusal_is_not_tried_again(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """It is one line of the log that says what to do."""
    with webhook(answer) as slack, lane_to(SlackReporter(slack.url)) as lane:
        lane.notify(an_alert())
        assert lane.flush(60)
        status = lane.status()
    assert len(slack.requests) == 1
    assert dict(status.dropped) == {"slack_refused": 1}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "callbot_latency.reporters.slack"]
    assert "SLACK_WEBHOOK_URL" in line
    assert "HUSH" not in line + caplog.text


@pytest.mark.promise("end-in-time")
def test_a_hanging_slack_holds_up_the_end_no_longer_than_allowed() -> None:
    """What it has in hand is counted, since nobody knows whether it arrived."""
    with webhook(HANG) as slack:
        lane = Lane("slack", SlackReporter(slack.url, timeout_s=60))
        lane.start()
        lane.notify(an_alert())
        while not slack.requests:
            assert not lane.flush(0.01)
        began_s = monotonic()
        assert not lane.close(0.2)
        assert monotonic() - began_s < 10  # and not the minute of the attempt
        assert dict(lane.status().dropped) == {"slack_unconfirmed": 1}


def test_apprise_asks_again_only_where_it_failed() -> None:
    """Two services, one of which ails twice: each gets the alert once."""
    with webhook() as well, webhook(Answer(500), Answer(500)) as ailing:
        urls = [server.root.replace("http://", "json://") for server in (well, ailing)]
        with lane_to(AppriseReporter(urls)) as lane:
            lane.notify(an_alert())
            assert lane.flush(60)
            status = lane.status()
    assert (len(well.requests), len(ailing.requests)) == (1, 3)
    assert (status.delivered, status.retried) == (1, 2)
