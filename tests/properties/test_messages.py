"""Whatever an application calls its operations, nothing of it is live in a message."""

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from callbot_latency import Alert, LatencyMetric, Severity
from callbot_latency.alerting import AlertEvent
from callbot_latency.alerting.message import one_line_message
from callbot_latency.reporters.slack_blocks import slack_message

LIVE = ["<!channel>", "<!here|x>", "<@U123>", "<#C123>", "<http://evil.test|Jaeger>", "@here", "@channel", "@everyone"]
DIRECTING = ["\u202e", "\u2066", "\u200f", "\x00", "\x1b[31m", "\r\n", "\u2028", "\ud800", "&lt;!channel&gt;", "{0}"]

texts = st.one_of(
    st.text(st.characters(), max_size=60),
    st.lists(st.sampled_from([*LIVE, *DIRECTING, "a", " ", "*", "_", "`", "&", "ü"]), max_size=8).map("".join),
    st.text(st.sampled_from("&<>@\u202e x"), min_size=200, max_size=1000),
)
metrics = st.builds(
    LatencyMetric,
    st.sampled_from(["speech_to_text", "salesforce_api"]),
    texts.filter(bool),
    st.floats(0, 1e300),
    st.sampled_from(["success", "error", "timeout", "cancelled", "running"]),
    timestamp=st.datetimes().map(lambda at: at.replace(tzinfo=UTC)),
    call_sid=st.none() | texts,
    stream_sid=st.none() | texts,
    provider=st.none() | texts,
    error_message=st.none() | texts,
    metadata=st.dictionaries(texts, texts, max_size=2),
    trace_id=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    turn=st.none() | st.integers(0, 1000),
)
alerts = st.builds(
    Alert,
    metrics,
    st.sampled_from(Severity),
    st.floats(0, 1e9),
    st.sampled_from(AlertEvent),
    in_flight=st.booleans(),
    held_back=st.integers(0, 10**9),
    since=st.none() | st.just(datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=1)),
    slow=st.integers(0, 10**9),
    worst_ms=st.none() | st.floats(0, 1e300),
    rule=st.none() | texts,
    text=st.none() | texts,
    lasts=st.booleans(),
    trace_url=st.none() | texts.map(lambda text: f"http://jaeger/trace/{text}"),
)


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


@pytest.mark.promise("injection")
@given(alerts, st.sampled_from(["en", "fr"]))
def test_a_slack_message_has_no_live_token_and_keeps_every_limit(alert: Alert, language: Literal["en", "fr"]) -> None:
    """No command, mention, link or invisible character of data; Block Kit takes what slack_sdk checks."""
    message = slack_message(alert, language)
    sent = json.loads(json.dumps(message).encode("utf-8"))
    for text in strings_in(sent):
        assert not re.search("[<>]", text)
        assert not re.search(r"@(here|channel|everyone)\b", text, re.IGNORECASE)
        for char in text.replace("\n", ""):
            assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert sent["mrkdwn"] is sent["link_names"] is False
    assert 0 < len(sent["text"]) <= 3000
    assert not re.search("&(?!amp;)", sent["text"])
    assert len(sent["blocks"]) <= 50
    header = sent["blocks"][0]["text"]
    assert header["type"] == "plain_text"
    assert 0 < len(header["text"]) <= 150
    assert "mrkdwn" not in {kind for block in sent["blocks"] for kind in kinds_in(block)}
    assert all(text for text in strings_in(sent))
    for block in Block.parse_all(sent["blocks"]):
        block.validate_json()


def kinds_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "type" in value:
            yield value["type"]
        for item in value.values():
            yield from kinds_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from kinds_in(item)


@pytest.mark.promise("injection")
@given(alerts, st.sampled_from(["en", "fr"]))
def test_a_line_of_the_log_is_one_line(alert: Alert, language: Literal["en", "fr"]) -> None:
    """Nobody writes a second line, or turns the direction of the first."""
    line = one_line_message(alert, language)
    assert len(line.splitlines()) == 1
    assert not [char for char in line if unicodedata.category(char) in {"Cc", "Cf", "Cs"}]
    line.encode("utf-8")
