"""Whatever a stranger sends: no error, and nothing bound that could be more than an id."""

import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from callbot_latency.tracing.headers import CallIds, Hosts, read_headers

SAFE = re.compile(r"[A-Za-z0-9._:~@=+/-]{1,128}\Z")
NAMES = st.sampled_from(
    ["x-callbot-call-sid", "X-Callbot-Stream-Sid", "x-callbot-turn", "traceparent", "HTTP_X_CALLBOT_CALL_SID", "host"]
)
VALUES = st.one_of(st.text(), st.binary(), st.from_regex(SAFE), st.integers(), st.none())
PAIRS = st.lists(st.tuples(st.one_of(NAMES, NAMES.map(str.encode), st.text(), st.binary(), st.integers()), VALUES))


@given(PAIRS)
@example([("x-callbot-call-sid", "CA1\n")])
@example([("x-callbot-call-sid", b"CA1"), ("x-callbot-turn", "²")])
def test_reading_never_raises_and_never_takes_what_is_no_id(pairs: list[tuple[Any, Any]]) -> None:
    """As a list of pairs and as a mapping; ids are of safe characters and bounded, the turn is a small number."""
    for headers in (pairs, dict(pairs)):
        ids, trace_context = read_headers(headers)
        for sid in (ids.call_sid, ids.stream_sid):
            assert sid is None or SAFE.match(sid)
        assert ids.turn is None or 1 <= ids.turn <= 999_999
        assert ids.call_sid is not None or ids == CallIds()
        assert set(trace_context) <= {"traceparent", "tracestate"}


@given(st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.integers()))
def test_what_is_sent_is_what_is_read(call_sid: str, stream_sid: str | None, turn: int | None) -> None:
    """Each id arrives whole or not at all, and no value could end its line."""
    sent = CallIds(call_sid, stream_sid, turn).to_headers()
    assert all(SAFE.match(value) for value in sent.values())
    read, _ = read_headers(sent)
    assert read.call_sid in (call_sid, None)
    assert read.stream_sid in (stream_sid, None)
    assert read.turn in (turn, None)
    if SAFE.match(call_sid):
        assert read.call_sid == call_sid


@given(st.text(), st.text())
def test_no_text_around_a_host_makes_it_another(before: str, after: str) -> None:
    """A URL is told only where its host is one of those listed, by whatever else stands in it."""
    url = f"http://{before}evil.org{after}"
    if Hosts(["rag.internal", "*.example.com"])(url):
        authority = re.split(r"[/?#]", url.removeprefix("http://"), maxsplit=1)[0]
        host = authority.rpartition("@")[2].partition(":")[0].rstrip(".").lower()
        assert host == "rag.internal" or host.endswith(".example.com")
