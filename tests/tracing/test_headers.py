"""What may stand in the headers of a call, and which hosts may see them."""

import pytest

from callbot_latency.tracing.headers import CallIds, Hosts, checked_host, read_headers

ALL = {"x-callbot-call-sid": "CA1", "x-callbot-stream-sid": "MZ1", "x-callbot-turn": "7"}
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    "headers",
    [
        ALL,
        {name.upper(): value for name, value in ALL.items()},
        {name.title(): value for name, value in ALL.items()},
        list(ALL.items()),
        [(name.encode(), value.encode()) for name, value in ALL.items()],
        {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in ALL.items()]},
        {"type": "websocket", "headers": [(name.encode(), value.encode()) for name, value in ALL.items()]},
        {"HTTP_" + name.upper().replace("-", "_"): value for name, value in ALL.items()}
        | {"wsgi.input": object(), "wsgi.version": (1, 0), "REQUEST_METHOD": "GET"},
    ],
    ids=["lower", "upper", "title", "pairs", "ASGI headers", "ASGI scope", "ASGI WebSocket scope", "WSGI"],
)
def test_the_ids_are_read_from_what_any_server_gives(headers: object) -> None:
    """In any case of letters, as text or as bytes."""
    assert read_headers(headers) == (CallIds("CA1", "MZ1", 7), {})


def test_trace_context_is_read_beside_them() -> None:
    """And without them."""
    headers = {"Traceparent": PARENT, "TraceState": "a=b"}
    assert read_headers(headers) == (CallIds(), {"traceparent": PARENT, "tracestate": "a=b"})
    assert read_headers({**ALL, **headers})[0].call_sid == "CA1"


@pytest.mark.parametrize(
    "wrong",
    ["", " ", "CA 1", "CA1\r\nx: y", "CA1\n", "CA1,CA2", "é", "\x00", "<b>", "CA1;", '"CA1"', "x" * 129, "{}", "$x"],
)
def test_what_is_no_id_is_absent(wrong: str) -> None:
    """Without the call_sid, nothing of the call is bound; without another, the rest is. Nor is it ever sent."""
    assert read_headers({**ALL, "x-callbot-call-sid": wrong})[0] == CallIds()
    assert read_headers({**ALL, "x-callbot-stream-sid": wrong})[0] == CallIds("CA1", None, 7)
    assert CallIds(wrong, "MZ1", 7).to_headers() == {}
    assert CallIds("CA1", wrong, 7).to_headers() == {"x-callbot-call-sid": "CA1", "x-callbot-turn": "7"}


@pytest.mark.parametrize("wrong", ["", "0", "-1", "1.5", "007", "+1", "٣", "1000000", "9" * 5000, "1\n", " 1"])
def test_what_is_no_turn_is_absent(wrong: str) -> None:
    """Turns count from 1; nothing that int() would take besides is taken."""
    assert read_headers({**ALL, "x-callbot-turn": wrong})[0] == CallIds("CA1", "MZ1")


def test_what_comes_twice_and_differs_says_nothing() -> None:
    """One of them is not the sender's; the same value twice is one value."""
    pairs = list(ALL.items())
    assert read_headers([*pairs, *pairs])[0] == CallIds("CA1", "MZ1", 7)
    assert read_headers([*pairs, ("X-Callbot-Call-Sid", "CA2")])[0] == CallIds()
    assert read_headers([("X-Callbot-Call-Sid", "CA2"), *pairs, *pairs])[0] == CallIds()
    assert read_headers([*pairs, ("X-Callbot-Turn", "8"), *pairs])[0] == CallIds("CA1", "MZ1")


def test_an_underscore_is_another_name() -> None:
    """A proxy that takes our headers off would let it through."""
    assert read_headers({"x_callbot_call_sid": "CA1", "http_x_callbot_call_sid": "CA1"})[0] == CallIds()


@pytest.mark.parametrize("odd", [[("a",), 5, None, ("a", "b", "c"), (1, 2), ("x-callbot-call-sid", 5)], {}, [], {5: 6}])
def test_what_is_no_header_is_passed_over(odd: object) -> None:
    """No error."""
    assert read_headers(odd) == (CallIds(), {})


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://rag.internal/search", True),
        ("https://RAG.Internal:8443/search?q=1", True),
        ("http://rag.internal./", True),
        ("http://user:password@rag.internal/", True),
        ("http://a.example.com/", True),
        ("http://a.b.example.com/", True),
        ("http://10.0.0.7:80/", True),
        ("http://[::1]:8000/", True),
        ("http://example.com/", False),
        ("http://badexample.com/", False),
        ("http://example.com.evil.org/", False),
        ("http://rag.internal.evil.org/", False),
        ("http://evil.org/rag.internal", False),
        ("http://evil.org?@rag.internal", False),
        ("http://evil.org#@rag.internal", False),
        ("http://rag.internal@evil.org/", False),
        ("http://evil.org\\@rag.internal/", False),
        ("http://evil.org\t@rag.internal/", False),
        ("http://evil.org\n.example.com/", False),
        ("http://evil.org%2f.example.com/", False),
        ("http://[rag.internal/", False),
        ("http://ｒag.internal/", False),
        ("rag.internal/search", False),
        ("/search", False),
        ("", False),
        ("http://", False),
    ],
)
def test_only_the_hosts_listed_are_told(url: str, allowed: bool) -> None:
    """Names exactly, patterns for what is beneath them, and nothing where two parsers could disagree."""
    hosts = Hosts(["rag.internal", "*.example.com", "10.0.0.7", "::1"])
    assert hosts(url) is allowed
    assert Hosts([])(url) is False


@pytest.mark.parametrize(
    ("given", "kept"),
    [(" RAG.internal. ", "rag.internal"), ("*.Example.com", "*.example.com"), ("[::1]", "::1"), ("my_rag", "my_rag")],
)
def test_a_host_is_kept_as_it_is_compared(given: str, kept: str) -> None:
    """Without case, blanks, brackets and the last dot."""
    assert checked_host(given) == kept


@pytest.mark.parametrize("wrong", ["*", "*.", "http://rag", "rag:80", "rag/x", "a b", "-a", "*.*.com", "a.*.com", "é"])
def test_what_is_no_host_is_refused(wrong: str) -> None:
    """Everybody is no host either."""
    with pytest.raises(ValueError, match="expected hosts such as"):
        checked_host(wrong)
