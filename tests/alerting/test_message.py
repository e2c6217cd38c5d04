"""The words of an alert, in both languages: a line, a title, facts, and Slack's blocks."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import callbot_latency.alerting
from callbot_latency import Alert, LatencyMetric, Severity
from callbot_latency.alerting import AlertEvent
from callbot_latency.alerting.display import UNNAMED, display_id, display_text, display_url, neutralise_mentions
from callbot_latency.alerting.message import message_fields, one_line_message, title_of
from callbot_latency.alerting.translations import FRENCH, checked, say
from callbot_latency.base.text import one_line
from callbot_latency.model.alert import Language
from callbot_latency.model.operation import OperationStatus
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.reporters.slack_blocks import slack_message
from tests.support.subprocesses import ROOT

AT = datetime(2026, 1, 1, 12, 6, tzinfo=UTC)
URL = "http://localhost:16686/trace/" + "ab" * 16


def metric(**more: Any) -> LatencyMetric:
    fields: dict[str, Any] = {
        "operation_type": "salesforce_api",
        "operation_name": "query",
        "latency_ms": 4000,
        "status": "success",
        "timestamp": AT,
        "call_sid": "CA1",
        "provider": "salesforce",
        "severity": "critical",
        "trace_id": "ab" * 16,
        "turn": 3,
        **more,
    }
    return LatencyMetric(**fields)


BREACH = Alert(
    metric(),
    Severity.CRITICAL,
    3000,
    held_back=41,
    since=AT - timedelta(minutes=6),
    slow=42,
    worst_ms=9300,
    trace_url=URL,
)
IN_FLIGHT = Alert(
    metric(latency_ms=3000, status=OperationStatus.RUNNING), Severity.CRITICAL, 3000, in_flight=True, trace_url=URL
)
RECOVERY = replace(
    BREACH, metric=metric(latency_ms=200, severity=None), threshold_ms=1000, event=AlertEvent.RECOVERY, trace_url=None
)
RULE = replace(BREACH, rule="VIP queue", text="p95 is 1200 ms over 5 min", since=AT, slow=3, lasts=True, held_back=0)
RULE_OVER = replace(RULE, event=AlertEvent.RECOVERY, text="after 6 min", lasts=False, trace_url=None)
RECOVERIES = replace(RECOVERY, recovered=180)
SUMMARY = replace(BREACH, event=AlertEvent.SUMMARY, held_back=80)


@pytest.mark.parametrize(
    ("alert", "english", "french"),
    [
        (
            BREACH,
            "critical: salesforce_api query (salesforce) took 4000 ms in call CA1, critical from 3000 ms, "
            f"and 41 more like it, {URL}",
            "critique : salesforce_api query (salesforce) a pris 4000 ms dans l'appel CA1, critique à partir de "
            f"3000 ms, et 41 de plus du même genre, {URL}",
        ),
        (
            IN_FLIGHT,
            "critical: still running: salesforce_api query (salesforce) for 3000 ms in call CA1, critical from "
            f"3000 ms, {URL}",
            "critique : toujours en cours : salesforce_api query (salesforce) depuis 3000 ms dans l'appel CA1, "
            f"critique à partir de 3000 ms, {URL}",
        ),
        (
            RECOVERY,
            "recovered: salesforce_api query back under 1000 ms after 6 min, 42 slow, worst 9300 ms",
            "rétabli : salesforce_api query de nouveau sous 1000 ms après 6 min, opérations lentes : 42, "
            "au pire 9300 ms",
        ),
        (
            RECOVERIES,
            "recovered: 180 kinds, not told one by one; the last: salesforce_api query",
            "rétabli : 180 sortes d'opérations, non annoncées une à une ; la dernière : salesforce_api query",
        ),
        (
            replace(RULE_OVER, recovered=2),
            "recovered: 2 kinds, not told one by one; the last: rule VIP queue",
            "rétabli : 2 sortes d'opérations, non annoncées une à une ; la dernière : règle VIP queue",
        ),
        (
            SUMMARY,
            "critical: 80 more slow operations, not told one by one; the last: salesforce_api query (salesforce) "
            f"took 4000 ms in call CA1, {URL}",
            "critique : opérations lentes en plus, non annoncées une à une : 80 ; la dernière : salesforce_api query "
            f"(salesforce) a pris 4000 ms dans l'appel CA1, {URL}",
        ),
        (
            RULE,
            f"still critical: rule VIP queue: p95 is 1200 ms over 5 min, see call CA1, {URL}",
            f"toujours critique : règle VIP queue : p95 is 1200 ms over 5 min, voir l'appel CA1, {URL}",
        ),
        (
            replace(RULE, text="slow in CA1", lasts=False, held_back=2, trace_url=None),
            "critical: rule VIP queue: slow in CA1, and 2 more like it",
            "critique : règle VIP queue : slow in CA1, et 2 de plus du même genre",
        ),
        (
            RULE_OVER,
            "recovered: rule VIP queue is over after 6 min, fired 3 times",
            "rétabli : règle VIP queue terminée after 6 min, déclenchée 3 fois",
        ),
        (
            replace(RULE, event=AlertEvent.SUMMARY, held_back=8, trace_url=None),
            "critical: 8 more slow operations, not told one by one; the last: rule VIP queue: "
            "p95 is 1200 ms over 5 min",
            "critique : opérations lentes en plus, non annoncées une à une : 8 ; la dernière : règle VIP queue : "
            "p95 is 1200 ms over 5 min",
        ),
    ],
    ids=[
        "breach",
        "in flight",
        "recovery",
        "recoveries",
        "recoveries of rules",
        "summary",
        "rule",
        "rule of a call",
        "rule over",
        "summary of rules",
    ],
)
def test_the_line(alert: Alert, english: str, french: str) -> None:
    """As the log has it."""
    assert one_line_message(alert) == english
    assert one_line_message(alert, "fr") == french


def shown_by(message: dict[str, Any]) -> list[str]:
    """What a reader of the channel sees, line by line."""
    header, facts = message["blocks"]
    elements = [element.get("text", element.get("url")) for element in facts["elements"][0]["elements"]]
    return [header["text"]["text"], *"".join(elements).split("\n")]


@pytest.mark.parametrize(
    ("alert", "language", "lines"),
    [
        (
            IN_FLIGHT,
            "en",
            [
                "Critical: salesforce_api query still running after 3000 ms",
                "Call  CA1",
                "Turn  3",
                "Provider  salesforce",
                "Latency  3000 ms and still running, critical from 3000 ms",
                f"Trace  {'ab' * 16}",
                "open the trace",
            ],
        ),
        (
            BREACH,
            "en",
            [
                "Critical: salesforce_api query took 4000 ms",
                "Call  CA1",
                "Turn  3",
                "Provider  salesforce",
                "Latency  4000 ms, critical from 3000 ms",
                "Slow since  2026-01-01 12:00:00 UTC",
                "Slow  42, worst 9300 ms",
                "Held back  41 more like it since the last message",
                f"Trace  {'ab' * 16}",
                "open the trace",
            ],
        ),
        (
            RECOVERY,
            "fr",
            [
                "Rétabli : salesforce_api query de nouveau sous 1000 ms",
                "Fournisseur  salesforce",
                "Durée  6 min",
                "Lentes  42, au pire 9300 ms",
            ],
        ),
        (
            RECOVERIES,
            "fr",
            [
                "Rétabli : 180 sortes d'opérations",
                "La dernière  salesforce_api query",
                "Durée  6 min",
                "Lentes  42, au pire 9300 ms",
            ],
        ),
        (
            SUMMARY,
            "fr",
            [
                "Critique : opérations lentes en plus : 80",
                "Retenues  80, non annoncées une à une",
                "La dernière  salesforce_api query (salesforce) a pris 4000 ms dans l'appel CA1",
                "ouvrir la trace",
            ],
        ),
        (
            RULE,
            "en",
            [
                "Still critical: rule VIP queue",
                "Message  p95 is 1200 ms over 5 min",
                "Call  CA1",
                "Turn  3",
                "Provider  salesforce",
                "Since  2026-01-01 12:06:00 UTC",
                "Fired  3 times",
                f"Trace  {'ab' * 16}",
                "open the trace",
            ],
        ),
        (
            RULE_OVER,
            "fr",
            [
                "Rétabli : règle VIP queue",
                "Message  after 6 min",
                "Fournisseur  salesforce",
                "Depuis  2026-01-01 12:06:00 UTC",
                "Déclenchée  3 fois",
            ],
        ),
    ],
    ids=["in flight", "breach", "recovery", "recoveries", "summary", "rule", "rule over"],
)
def test_what_stands_in_slack(alert: Alert, language: Language, lines: list[str]) -> None:
    """A title, a line a fact, and the link."""
    assert shown_by(slack_message(alert, language)) == lines


def test_the_examples_of_the_docs_are_what_is_sent() -> None:
    """docs/operations.md shows each kind as it is."""
    page = (ROOT / "docs" / "operations.md").read_text()
    for alert in (IN_FLIGHT, BREACH, RECOVERY, SUMMARY):
        assert "\n".join(shown_by(slack_message(alert))) in page
    assert "\n".join(shown_by(slack_message(IN_FLIGHT, "fr"))) in page


def test_what_is_unknown_is_not_there() -> None:
    """A measurement of which nothing but its time is known."""
    bare = Alert(LatencyMetric("rag_inference", "search", 9000, "timeout"), Severity.CRITICAL, 8000)  # type: ignore[arg-type]
    assert [fact[:2] for fact in message_fields(bare)] == [
        ("Latency", "9000 ms, critical from 8000 ms"),
        ("Outcome", "timeout"),
    ]
    over = Alert(bare.metric, Severity.CRITICAL, 3000, AlertEvent.RECOVERY)
    assert message_fields(over) == []
    assert [block["type"] for block in slack_message(over)["blocks"]] == ["header"]


@pytest.mark.parametrize("status", OperationStatus)
@pytest.mark.parametrize("severity", Severity)
@pytest.mark.parametrize("event", AlertEvent)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_kind_has_its_words(
    language: Language, event: AlertEvent, severity: Severity, status: OperationStatus
) -> None:
    """No combination is without a line, a title and blocks."""
    slow = replace(BREACH, metric=metric(status=status), event=event, severity=severity)
    for alert in (slow, replace(slow, rule="r", text="it is so")):
        assert one_line_message(alert, language)
        assert title_of(alert, language)
        assert slack_message(alert, language)["blocks"]


def test_the_table_of_french_has_what_is_said_and_nothing_else() -> None:
    """With the same values in braces on both sides."""
    source = "".join(file.read_text() for file in Path(callbot_latency.alerting.__file__).parent.glob("[!l]*.py"))
    source += Path(callbot_latency.alerting.__file__).parents[1].joinpath("reporters/apprise.py").read_text()
    words = {member.value for kind in (Severity, OperationStatus) for member in kind}
    for english, french in FRENCH.items():
        assert f'"{english}"' in source or english in words, english
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", french)), english


def test_a_value_is_never_taken_for_a_template() -> None:
    """Braces in a name are braces."""
    assert say("fr", " in call {call_sid}", call_sid="{ms}{0.__class__}") == " dans l'appel {ms}{0.__class__}"


def test_a_language_that_is_not_spoken_is_refused() -> None:
    """With the two that are."""
    assert (checked("en"), checked("fr")) == ("en", "fr")
    with pytest.raises(ValueError, match="^language: expected 'en' or 'fr', got 'de'$"):
        checked("de")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\t c", "a b c"),
        ("a\x00\x1b[31mb\x7f", "a[31mb"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\u200b\u2066b\ufeff", "ab"),
        ("a\u2028b", "a b"),
        ("\ud800x", "x"),
        ("é 語 🎉", "é 語 🎉"),
        ("x" * 30, "x" * 19 + "…"),
    ],
)
def test_a_line_is_one_and_shows_all_of_itself(text: str, line: str) -> None:
    """Neither control nor bidi characters, and no longer than asked."""
    assert one_line(text, 20) == line


def test_a_text_without_anything_to_see_has_a_sign_in_its_place() -> None:
    """Slack refuses an empty text."""
    assert (display_text("\u202e \n"), display_id("\x00")) == (UNNAMED, UNNAMED)


def test_ids_are_as_they_are_unless_they_hold_a_number_or_address() -> None:
    """A UUID that starts like a telephone number stays whole."""
    uuid = "01234567-1234-4123-8123-012345678901"
    assert display_id(uuid) == uuid
    assert display_id("+33612345678") == "[phone]"
    assert "ann@example.com" not in display_id("sip:ann@example.com")


@pytest.mark.parametrize(
    "secret",
    ["token=abcdef123456", "call;api_key=abcdef123456", "sk-abcdef123456", "xoxb-1234567890-abc", "eyJhbGciOi.x1"],
)
def test_a_secret_among_ids_is_scrubbed(secret: str) -> None:
    """Whoever put it there."""
    display_text = display_id(secret)
    assert "abcdef123456" not in display_text
    assert display_text != secret


@pytest.mark.parametrize(
    "sid",
    [
        "CA" + "0123456789abcdef" * 2,
        "MZ" + "0" * 32,
        "SK" + "1234567890" * 3 + "ab",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "call-0123456789",
        "1712345678.42",
    ],
)
def test_what_a_person_copies_is_found_again(sid: str) -> None:
    """Twilio's SIDs, ids of traces and spans, and others that are no secret."""
    assert display_id(sid) == sid


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        (URL, URL),
        ("https://x.test/a b<c>|d", "https://x.test/a%20b%3Cc%3E%7Cd"),
        ("http://ann:word@x.test/t?a=1&b=%20", "http://x.test/t?a=1&b=%20"),
        ("http://x.test?a@b/@here", "http://x.test?a%40b/%40here"),
        ("http://x.test/\u202eé", "http://x.test/%C3%A9"),
        ("javascript:alert(1)", None),
        ("http:///x", None),
        ("http://x.test/" + "a" * 1_000, None),
        (None, None),
    ],
)
def test_a_link_leads_where_it_says(url: str | None, safe: str | None) -> None:
    """Without a password, and without a character that ends it; what is no address is no link."""
    assert display_url(url) == safe


def test_nothing_inert_is_live() -> None:
    """Commands, links and mentions become text that looks alike."""
    assert neutralise_mentions("<!channel> <http://x|y> @here @Everyone @channel @ann a@here.com") == (
        "‹!channel› ‹http://x|y› \uff20here \uff20Everyone \uff20channel @ann a\uff20here.com"
    )


def test_the_plain_text_of_slack_is_cut_to_its_limit() -> None:
    """Also where each character is written as an entity."""
    alert = replace(
        BREACH,
        metric=metric(operation_name="&" * 500, provider="&" * 500, call_sid="&" * 500),
        trace_url="http://x.test/?" + "&" * 900,
    )
    text = slack_message(alert)["text"]
    assert len(text) <= 3000
    assert not re.search("&(?!amp;)", text)


def test_thresholds_are_said_as_they_are_set() -> None:
    """The default thresholds, as whole milliseconds."""
    threshold_ms = Thresholds().get_critical_threshold(BREACH.metric.operation_type)
    assert f"critical from {threshold_ms:.0f} ms" in one_line_message(BREACH)
