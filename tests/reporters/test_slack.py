"""Alerts in Slack: what is posted, what each answer means, and that the webhook stays a secret."""

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from pydantic import SecretStr

from callbot_latency import Alert, ConfigError, LatencyConfig, LatencyMetric, Severity
from callbot_latency.alerting import AlertEvent
from callbot_latency.reporters import PermanentError, TransientError
from callbot_latency.reporters.from_config import slack_reporter
from callbot_latency.reporters.slack import SlackReporter
from tests.support.collectors import free_port, refusing
from tests.support.scripted_http import HANG, RESET, SECRET, Answer, Server, webhook

AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def an_alert(severity: Severity = Severity.CRITICAL, **more: Any) -> Alert:
    metric = LatencyMetric(
        "salesforce_api",  # type: ignore[arg-type]
        "query",
        4000,
        "success",  # type: ignore[arg-type]
        timestamp=AT,
        call_sid="CA123",
        provider="salesforce",
        severity=severity,
        trace_id="ab" * 16,
        turn=3,
    )
    return Alert(metric, severity, 3000, **more)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no time-out is given, a busy machine has a minute for an answer."""
    monkeypatch.setitem(SlackReporter.__init__.__kwdefaults__, "timeout_s", 60.0)


@pytest.fixture
def slack() -> Iterator[Server]:
    with webhook() as playing:
        yield playing


def until_asked(server: Server, times: int) -> None:
    """Wait until the server has read so many requests; a client that gave up may be ahead of it."""
    deadline_s = monotonic() + 60
    while len(server.requests) < times:
        assert monotonic() < deadline_s
        sleep(0.005)


def test_an_alert_is_one_message(slack: Server) -> None:
    """A JSON post with blocks and a plain text, to the address of the webhook."""
    SlackReporter(slack.url).notify(an_alert())
    (request,) = slack.requests
    assert request.path == f"/services/{SECRET}"
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    message = request.json
    assert message["text"].startswith("critical: salesforce_api query (salesforce) took 4000 ms in call CA123")
    assert message["blocks"][0]["text"]["text"] == "Critical: salesforce_api query took 4000 ms"
    assert "channel" not in message


def test_the_first_versions_arguments_work(slack: Server) -> None:
    """By position: the webhook, then the channel, which goes into the message."""
    SlackReporter(slack.url, "#ops").notify(an_alert())
    assert slack.messages()[0]["channel"] == "#ops"


def test_it_takes_alerts_alone(slack: Server) -> None:
    """Without `report`, a lane counts no measurement as delivered to Slack. It may be started and closed again."""
    reporter = SlackReporter(slack.url)
    assert not hasattr(reporter, "report")
    for _ in range(2):
        reporter.start()
        reporter.notify(an_alert())
        reporter.close()
    assert len(slack.requests) == 2


def test_one_channel_is_one_target() -> None:
    """The same webhook by hand and from the environment; another channel of one webhook is another target."""
    url = f"https://hooks.slack.com/services/{SECRET}"
    reporter, there, elsewhere = SlackReporter(url), SlackReporter(url, "#a"), SlackReporter(url, "#b")
    assert reporter.target == there.target == SlackReporter(url, "#a").target
    assert hash(reporter.target) == hash(there.target)
    assert there.target != elsewhere.target
    assert reporter.target != SlackReporter(f"{url}2").target
    assert reporter.target != url
    assert "HUSH" not in repr(reporter.target)


def test_warnings_are_posted_where_they_are_asked_for(slack: Server) -> None:
    """By the reporter's severity, or by an alert that names its channels."""
    SlackReporter(slack.url).notify(an_alert(Severity.WARNING))
    assert slack.requests == []
    SlackReporter(slack.url).notify(an_alert(Severity.WARNING, channels=("slack",)))
    SlackReporter(slack.url, severity="warning").notify(an_alert(Severity.WARNING))
    SlackReporter(slack.url, severity=Severity.WARNING).notify(an_alert())
    assert len(slack.requests) == 3


def test_french(slack: Server) -> None:
    """`language` is the language of the messages."""
    SlackReporter(slack.url, language="fr").notify(an_alert(in_flight=True))
    assert slack.messages()[0]["blocks"][0]["text"]["text"] == (
        "Critique : salesforce_api query toujours en cours après 4000 ms"
    )


# -- what the server answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"ok", b"", b"OK", b'{"ok":true}', b'{"success":true}', b"\xff\xfe", b"[1]"])
def test_every_200_is_a_success(slack: Server, body: bytes) -> None:
    """As Slack's documentation has it; Slack's look-alikes say it in other words."""
    slack.answers(Answer(200, body))
    SlackReporter(slack.url).notify(an_alert())


def test_an_answer_without_content_is_a_success(slack: Server) -> None:
    """204, of look-alikes."""
    slack.answers(Answer(204))
    SlackReporter(slack.url).notify(an_alert())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"ok":false,"error":"invalid_token"}', r"200 \(invalid_token\): the webhook's secret is wrong or revoked"),
        (b'{"success":false}', "^Slack answers 200: check SLACK_WEBHOOK_URL"),
        (b"<!doctype html><title>Sign in</title>", "a web page answered instead of a webhook"),
    ],
)
def test_a_200_that_says_no_is_none(slack: Server, body: bytes, says: str) -> None:
    """Slack's own API answers so, and proxies that want somebody to sign in."""
    slack.answers(Answer(200, body))
    with pytest.raises(PermanentError, match=says):
        SlackReporter(slack.url).notify(an_alert())


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_server_that_ails_is_asked_again(slack: Server, status: int) -> None:
    """And its answer is not quoted, but for Slack's own word."""
    slack.answers(Answer(status, b"<html>internal</html>", {"Retry-After": "3"}), Answer(500, b"rollup_error"))
    reporter = SlackReporter(slack.url)
    with pytest.raises(TransientError, match=f"^Slack answers {status}$") as raised:
        reporter.notify(an_alert())
    assert raised.value.retry_after_s == 3
    with pytest.raises(TransientError, match=r"^Slack answers 500 \(rollup_error\)$"):
        reporter.notify(an_alert())


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, b"invalid_payload", "check that SLACK_WEBHOOK_URL is an incoming webhook"),
        (400, b"user_not_found", "set it to a channel such as #alerts"),
        (403, b"invalid_token", "make a new one and set SLACK_WEBHOOK_URL"),
        (403, b"action_prohibited", "an administrator restricts posting"),
        (404, b"channel_not_found", "check SLACK_CHANNEL, invite the app"),
        (404, b"No service", r"404 \(no_service\): the webhook was removed or disabled"),
        (404, b"no_team", "check SLACK_WEBHOOK_URL"),
        (410, b"channel_is_archived", "unarchive it"),
        (404, b"<html>what we sent</html>", "^Slack answers 404: nothing is there"),
        (401, b"", "401: the address is not accepted"),
        (418, b"Some sentence of a proxy.", "^Slack answers 418: check SLACK_WEBHOOK_URL$"),
    ],
)
def test_a_refusal_says_what_to_do(slack: Server, status: int, body: bytes, says: str) -> None:
    """Other 4xx are for ever; one sentence names the setting to change."""
    slack.answers(Answer(status, body))
    with pytest.raises(PermanentError, match=says) as raised:
        SlackReporter(slack.url).notify(an_alert())
    assert len(str(raised.value).splitlines()) == 1
    assert len(slack.requests) == 1


def test_where_the_layout_is_refused_the_plain_text_is_posted(slack: Server) -> None:
    """A plain line that arrives is better than a fine message that does not."""
    slack.answers(Answer(400, b"invalid_blocks"))
    SlackReporter(slack.url, "#ops").notify(an_alert())
    fine, plain = slack.messages()
    assert "blocks" not in plain
    assert plain == {name: value for name, value in fine.items() if name != "blocks"}
    slack.answers(Answer(400, b"invalid_blocks_format"), Answer(400, b"invalid_blocks"))
    with pytest.raises(PermanentError, match="please report it"):
        SlackReporter(slack.url).notify(an_alert())


# -- faults of the network ------------------------------------------------------------------------------------------


def test_a_hanging_server_is_left_in_time(slack: Server) -> None:
    """After `timeout_s`; the lane tries again."""
    slack.answers(HANG)
    began_s = monotonic()
    with pytest.raises(TransientError, match="did not answer in time"):
        SlackReporter(slack.url, timeout_s=0.2).notify(an_alert())
    assert monotonic() - began_s < 10


def test_a_dripping_answer_is_left_in_time(slack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is what counts: it came in time, and the body is not waited for."""
    slack.answers(Answer(200, b"o", drips=True))
    # After the status, each look at the clock is 25 s later than the last.
    looks = count()
    monkeypatch.setattr("callbot_latency.reporters.http_client.monotonic", lambda: monotonic() + 25 * next(looks))
    began_s = monotonic()
    SlackReporter(slack.url, timeout_s=60).notify(an_alert())
    assert monotonic() - began_s < 20


def test_a_connection_that_is_reset_or_refused_is_tried_again(slack: Server) -> None:
    """Whatever the network does is for now, not for ever."""
    slack.answers(RESET)
    with pytest.raises(TransientError, match="broke the connection off"):
        SlackReporter(slack.url).notify(an_alert())
    with refusing() as url, pytest.raises(TransientError, match="cannot be reached"):
        SlackReporter(f"{url}/services/{SECRET}").notify(an_alert())
    with pytest.raises(TransientError, match="no such host"):
        SlackReporter(f"http://no-such-host.invalid/services/{SECRET}").notify(an_alert())


def test_an_answer_that_breaks_off_after_its_status_was_a_delivery(slack: Server) -> None:
    """A second try would be a second message."""
    slack.answers(Answer(200, b"o", breaks_off=True))
    SlackReporter(slack.url).notify(an_alert())
    assert len(slack.requests) == 1


@pytest.mark.promise("endless-answers")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(slack: Server, status: int) -> None:
    """The other host gets nothing: neither the message nor the question."""
    with webhook() as other:
        slack.answers(Answer(status, b"", {"Location": other.url}))
        with pytest.raises(
            PermanentError, match=f"^Slack answers {status}: redirects are not followed.*check SLACK_WEBHOOK_URL"
        ) as raised:
            SlackReporter(slack.url).notify(an_alert())
        assert other.requests == []
        assert other.root not in str(raised.value)
    assert len(slack.requests) == 1


def test_the_proxy_of_the_environment_is_used(slack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its password, which is in no text; NO_PROXY goes before it."""
    monkeypatch.setenv("http_proxy", slack.root.replace("http://", "http://bob:pass%20word@"))
    monkeypatch.setenv("no_proxy", "")
    reporter = SlackReporter(f"http://hooks.slack.test/services/{SECRET}")
    reporter.notify(an_alert())
    assert slack.requests[0].path == f"http://hooks.slack.test/services/{SECRET}"
    assert slack.requests[0].headers["proxy-authorization"] == "Basic Ym9iOnBhc3Mgd29yZA=="
    monkeypatch.setenv("no_proxy", "hooks.slack.test")
    with pytest.raises(TransientError):
        SlackReporter(f"http://hooks.slack.test/services/{SECRET}").notify(an_alert())
    assert len(slack.requests) == 1


def test_a_proxy_that_is_none_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of its variable, without its password."""
    monkeypatch.setenv("https_proxy", "socks5://bob:password@proxy:1080")
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY: expected a proxy such as") as raised:
        SlackReporter("https://hooks.slack.com/services/x")
    assert "password" not in "".join(traceback.format_exception(raised.value))


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"webhook_url": f"hooks.slack.com/services/{SECRET}"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": f"https:///services/{SECRET}"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": f"https://hooks.slack.com:port/{SECRET}"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": f"https://hooks.slack.com/ {SECRET}"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": f"https://hooks.slack.com/{SECRET}\n"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": f"https://[::1/{SECRET}"}, "webhook_url: expected a URL such as"),
        ({"webhook_url": None}, "webhook_url: expected the URL of an incoming webhook, got NoneType"),
        ({"channel": "two words"}, "channel: expected a channel such as '#alerts' or an ID, got 'two words'"),
        ({"channel": "<!channel>"}, "channel: expected a channel"),
        ({"channel": 5}, "channel: expected a channel such as '#alerts' or an ID, got int"),
        ({"severity": "all"}, "severity: expected 'warning' or 'critical', got 'all'"),
        ({"language": "de"}, "language: expected 'en' or 'fr', got 'de'"),
        ({"timeout_s": 0}, "timeout_s: expected seconds above 0"),
        ({"timeout_s": float("nan")}, "timeout_s: expected seconds above 0"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments: dict[str, Any], says: str) -> None:
    """It names the argument, and never quotes the webhook."""
    with pytest.raises((TypeError, ValueError)) as raised:
        SlackReporter(**{"webhook_url": "https://hooks.slack.com/services/x", **arguments})
    assert str(raised.value).startswith(says)
    assert "HUSH" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("channel", ["#ops", "ops", "@ann", "C0123456789", "#équipe-alertes", "", None])
def test_channels_by_name_and_id(channel: str | None) -> None:
    """With or without its mark; an empty one is none."""
    SlackReporter("https://hooks.slack.com/services/x", channel)


def test_the_settings_make_the_reporter(isolated: Path) -> None:
    """Or none, where no webhook is set."""
    assert slack_reporter(LatencyConfig()) is None
    with webhook() as slack:
        config = LatencyConfig(
            slack_webhook_url=SecretStr(slack.url), slack_channel="#ops", slack_severity="warning", language="fr"
        )
        reporter = slack_reporter(config)
        assert reporter is not None
        reporter.notify(an_alert(Severity.WARNING))
        (message,) = slack.messages()
    assert message["channel"] == "#ops"
    assert message["text"].startswith("avertissement : ")


@pytest.mark.usefixtures("isolated")
def test_a_setting_that_is_no_use_is_named() -> None:
    """A `ConfigError` names the variable; the webhook is not quoted."""
    with pytest.raises(ConfigError, match="^SLACK_WEBHOOK_URL: expected a URL such as") as raised:
        slack_reporter(LatencyConfig(slack_webhook_url=SecretStr(f"https:///{SECRET}")))
    assert "HUSH" not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(ConfigError, match="^SLACK_CHANNEL: expected a channel"):
        slack_reporter(LatencyConfig(slack_webhook_url=SecretStr("https://x.test/y"), slack_channel="a b"))


def fault_of(reporter: SlackReporter) -> Exception | None:
    try:
        reporter.notify(an_alert())
    except (TransientError, PermanentError) as fault:
        return fault
    return None


# -- the secret -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("secrets")
def test_the_webhook_is_in_no_text(slack: Server, caplog: pytest.LogCaptureFixture) -> None:
    """No repr, log line at any level, error, traceback or attribute quotes a part of it, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    reporter, hasty = SlackReporter(slack.url, "#ops"), SlackReporter(slack.url, "#ops", timeout_s=0.2)
    away = SlackReporter(f"http://{slack.root.rpartition('/')[2].partition(':')[0]}:{free_port()}/services/{SECRET}")
    slack.answers(
        Answer(200),
        Answer(302, b"", {"Location": slack.url}),
        Answer(404, slack.url.encode()),
        Answer(500, slack.url.encode()),
        Answer(429, b"", {"Retry-After": "1"}),
        RESET,
        HANG,
    )
    speak: list[SlackReporter] = [*[reporter] * 6, hasty, away]
    faults = [fault for speaker in speak if (fault := fault_of(speaker)) is not None]
    assert len(faults) == 7
    assert [fault.__context__ for fault in faults] == [None] * 7
    told = "".join("".join(traceback.format_exception(fault)) + repr(fault) for fault in faults)
    told += "".join(repr(each) + str(each) + repr(vars(each)) for each in (reporter, hasty)) + caplog.text
    until_asked(slack, 7)
    assert len(slack.requests) == 7
    assert "HUSH" not in told
    assert repr(reporter) == "SlackReporter(<webhook of 127.0.0.1>, channel='#ops', severity='critical')"


def test_others_lines_of_urllib3_are_logged_as_ever(slack: Server, caplog: pytest.LogCaptureFixture) -> None:
    """We are silent about our own posts alone."""
    import urllib3

    caplog.set_level(logging.DEBUG)
    SlackReporter(slack.url).notify(an_alert())
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]
    with urllib3.PoolManager() as pool:
        pool.request("POST", f"{slack.root}/theirs", body=b"{}")
    assert any("/theirs" in record.getMessage() for record in caplog.records)


PLANTED = [
    *(f"+3361234{n:04}" for n in range(8)),
    *(f"06 12 34 5{n} 78" for n in range(8)),
    *(f"(415) 555-01{n:02}" for n in range(6)),
    *(f"ann.{n}@example.com" for n in range(6)),
    *(f"https://hooks.slack.com/services/T0/B0/HUSH{n}" for n in range(4)),
    *(f"https://ann:HUSH{n}@influx:8086" for n in range(4)),
    *(f"Bearer HUSH{n}0123456789" for n in range(4)),
    *(f"INFLUXDB_TOKEN=HUSH{n}abcdef" for n in range(4)),
    *(f"sk-HUSH{n}0123456789" for n in range(3)),
    *(f"eyJHUSH{n}abc.eyJdef.ghi" for n in range(3)),
]
"""Phone numbers, addresses, webhooks, tokens and passwords, as they turn up in names and exceptions."""


@pytest.mark.promise("secrets")
@pytest.mark.real_time
def test_fifty_planted_secrets_are_in_no_message(slack: Server) -> None:
    """In whatever field they stand, in every kind of alert and both languages; ids stay as they are."""
    assert len(PLANTED) == 50
    call_sid, trace_id = f"CA{'0' * 32}", "0" * 31 + "1"
    reporters = [SlackReporter(slack.url, language=language) for language in ("en", "fr")]
    for number, value in enumerate(PLANTED):
        metric = LatencyMetric(
            "rag_inference",  # type: ignore[arg-type]
            f"search {value}",
            9000,
            "error",  # type: ignore[arg-type]
            call_sid=call_sid if number % 2 else "+33612340000",
            provider=value,
            error_message=f"the caller said {value}",
            metadata={"caller": value, value: 1},
            trace_id=trace_id,
        )
        for event in AlertEvent:
            url = "http://ann:HUSHword@jaeger/trace/1"
            alert = Alert(metric, Severity.CRITICAL, 8000, event, since=AT, slow=3, worst_ms=9000, trace_url=url)
            for reporter in reporters:
                reporter.notify(alert)
    posted = json.dumps(slack.messages(), ensure_ascii=False)
    assert len(slack.requests) == 50 * len(AlertEvent) * 2
    assert [value for value in [*PLANTED, "HUSH", "the caller said"] if value in posted] == []
    assert call_sid in posted
    assert trace_id in posted
    assert "http://jaeger/trace/1" in posted
