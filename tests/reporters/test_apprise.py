"""Alerts through Apprise: its own json:// scheme, to a real server."""

import logging
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from callbot_latency import Alert, ConfigError, LatencyConfig, Severity
from callbot_latency.alerting import AlertEvent
from callbot_latency.reporters import TransientError
from callbot_latency.reporters.apprise import AppriseReporter
from callbot_latency.reporters.from_config import apprise_reporter
from tests.reporters.test_slack import AT, an_alert
from tests.support.collectors import refusing
from tests.support.scripted_http import RESET, SECRET, Answer, Server, webhook


def address(server: Server, path: str = SECRET) -> str:
    """As Apprise writes it, with time-outs of a minute."""
    return server.root.replace("http://", "json://") + f"/{path}?rto=60&cto=60"


@pytest.fixture
def service() -> Iterator[Server]:
    with webhook() as playing:
        yield playing


def test_an_alert_is_one_message(service: Server) -> None:
    """A title and the facts as lines, with the link at the end."""
    alert = an_alert(trace_url="http://jaeger/trace/1", held_back=2)
    AppriseReporter(address(service)).notify(alert)
    (message,) = service.messages()
    assert message["title"] == "Critical: salesforce_api query took 4000 ms"
    assert message["message"].splitlines() == [
        "Call: CA123",
        "Turn: 3",
        "Provider: salesforce",
        "Latency: 4000 ms, critical from 3000 ms",
        "Held back: 2 more like it since the last message",
        f"Trace: {'ab' * 16}",
        "http://jaeger/trace/1",
    ]
    assert message["type"] == "failure"


def test_the_kind_of_message_follows_the_alert(service: Server) -> None:
    """So that a service shows its own colour or urgency; French where it is asked for."""
    reporter = AppriseReporter(address(service), severity="warning", language="fr")
    reporter.notify(an_alert(Severity.WARNING))
    reporter.notify(an_alert(event=AlertEvent.RECOVERY, since=AT, slow=2, worst_ms=4000))
    assert [message["type"] for message in service.messages()] == ["warning", "success"]
    assert "Fournisseur : salesforce" in service.messages()[0]["message"]


def test_warnings_are_sent_where_they_are_asked_for(service: Server) -> None:
    """By the reporter's severity, or by an alert that names its channels."""
    AppriseReporter(address(service)).notify(an_alert(Severity.WARNING))
    assert service.requests == []
    AppriseReporter(address(service)).notify(an_alert(Severity.WARNING, channels=("apprise",)))
    assert len(service.requests) == 1


@pytest.mark.parametrize("separator", [" ", ",", ", "])
def test_several_services_and_the_next_try_of_those_that_failed(separator: str) -> None:
    """A service that took the alert is not asked again when the lane tries again; the next alert goes to both."""
    with webhook() as first, webhook(Answer(500), Answer(500)) as second:
        reporter = AppriseReporter(address(first) + separator + address(second))
        alert = an_alert()
        for _ in range(2):
            with pytest.raises(TransientError, match=r"^Apprise: JSON: Failed to send JSON .*error=500\.$"):
                reporter.notify(alert)
        reporter.notify(alert)
        assert (len(first.requests), len(second.requests)) == (1, 3)
        reporter.notify(an_alert())
        assert (len(first.requests), len(second.requests)) == (2, 4)


@pytest.mark.promise("endless-answers")
def test_a_redirect_is_not_followed(service: Server) -> None:
    """The other host gets nothing."""
    with webhook() as other:
        service.answers(Answer(307, b"", {"Location": other.url}))
        with pytest.raises(TransientError):
            AppriseReporter(address(service)).notify(an_alert())
        assert other.requests == []


def test_it_runs_on_the_lanes_own_thread(service: Server) -> None:
    """Apprise's pool would keep the interpreter's exit waiting for a service that hangs."""
    before = set(threading.enumerate())
    AppriseReporter([address(service), address(service, "b")]).notify(an_alert())
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if "ThreadPool" in name]
    assert len(service.requests) == 2


@pytest.mark.parametrize("urls", ["", "nonsense", f"bogus://{SECRET}", f"json://host/{SECRET} bogus://x", []])
def test_an_url_that_is_none_is_one_clear_error(urls: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It names the argument, and quotes no URL; nor does Apprise's log."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match=r"^urls: expected URLs of Apprise such as .*, got at least one that is none$"):
        AppriseReporter(urls)
    assert "HUSH" not in caplog.text


@pytest.mark.promise("secrets")
def test_the_urls_are_in_no_text(service: Server, caplog: pytest.LogCaptureFixture) -> None:
    """No repr, log line at any level, error or traceback quotes a part of one, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    told = ""
    service.answers(Answer(401, SECRET.encode()), Answer(404), RESET)
    url = address(service).replace("json://", "json://ann:HUSHword@") + "&+X-Token=HUSHtoken"
    with refusing() as away:
        reporters = [AppriseReporter(url)] * 4 + [AppriseReporter(away.replace("http://", "json://") + f"/{SECRET}")]
        for reporter in reporters:
            try:
                reporter.notify(an_alert())
            except TransientError as fault:
                told += "".join(traceback.format_exception(fault))
            told += repr(reporter) + repr(vars(reporter))
    assert told.count("TransientError: Apprise: JSON: ") == 4
    assert "HUSH" not in told + caplog.text
    assert repr(reporters[0]) == "AppriseReporter(<JSON>, severity='critical')"


def test_the_settings_make_the_reporter(service: Server, isolated: Path) -> None:
    """Or none, where no URL is set; one that is no use is named."""
    assert apprise_reporter(LatencyConfig()) is None
    config = LatencyConfig(apprise_urls=SecretStr(address(service)), apprise_severity="warning", language="fr")
    reporter = apprise_reporter(config)
    assert reporter is not None
    reporter.notify(an_alert(Severity.WARNING))
    assert service.messages()[0]["title"].startswith("Avertissement : ")
    with pytest.raises(ConfigError, match="^LATENCY_APPRISE_URLS: expected URLs of Apprise"):
        apprise_reporter(LatencyConfig(apprise_urls=SecretStr("bogus://x")))


def test_the_same_services_are_one_target(service: Server) -> None:
    """Whether the environment or the application names them, in whatever order."""
    one, two = address(service, "one"), address(service, "two")
    assert AppriseReporter([one, two]).target == AppriseReporter(f"{two},{one}").target
    assert AppriseReporter(one).target != AppriseReporter(two).target


def test_nothing_in_a_message_is_live(service: Server) -> None:
    """Mentions and links of data are text, as in Slack."""
    metric = an_alert().metric
    alert = Alert(
        type(metric)("rag_inference", "<!channel> @here", 9000, "success", provider="<http://x|y>\u202e\n@everyone"),  # type: ignore[arg-type]
        Severity.CRITICAL,
        8000,
    )
    AppriseReporter(address(service)).notify(alert)
    text = service.messages()[0]["title"] + service.messages()[0]["message"]
    assert not [live for live in ("<", ">", "@here", "@everyone", "\u202e") if live in text]
