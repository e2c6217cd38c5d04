"""How every reporter asks a server: one attempt, what it may cost, and what is said of it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count

import pytest

from callbot_latency.reporters import TransientError
from callbot_latency.reporters.http import HttpResponse
from callbot_latency.reporters.http_client import MAX_RESPONSE_BYTES, HttpClient
from tests.support import scripted_http as play


@pytest.fixture
def server() -> Iterator[play.Server]:
    with play.webhook() as running:
        yield running


def ask(server: play.Server, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpClient("Server", server.url, 60).request_once("POST", server.url, b"{}", headers or {})


class Impatient:
    """A clock on which no time passes while an attempt begins to read, and then more than it may take.

    An attempt looks at it once for its deadline and before each piece of the answer that it reads: of what drips, each
    byte is one. Without a look at it, what drips is read for longer than a test may take.
    """

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self._looks = count()

    def __call__(self) -> float:
        return 0.0 if next(self._looks) < self.looks else 1e6

    @property
    def is_over(self) -> bool:
        """Whether somebody has looked since the time passed."""
        return next(self._looks) > self.looks


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Impatient]:
    """From when it is called on, the time of attempts is over after ten looks."""

    def begin() -> Impatient:
        clock = Impatient(10)
        monkeypatch.setattr("callbot_latency.reporters.http_client.monotonic", clock)
        return clock

    return begin


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "Thu, 01 Jan 2026 12:00:07 GMT", "Date": "Thu, 01 Jan 2026 12:00:00 GMT"}, 7),
        ({"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT", "Date": "Thu, 01 Jan 2026 12:00:00 GMT"}, 0),
        ({"Retry-After": "Thu, 01 Jan 2026 12:00:07 -0000", "Date": "soon"}, 0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_busy_server_is_left_alone_as_long_as_it_asks(headers: dict[str, str], seconds: float | None) -> None:
    """In seconds or until a date, by the server's own clock; what makes no sense asks for nothing."""
    with play.webhook(play.Answer(429, b"rate_limited", headers)) as server:
        error = ask(server).as_error("Server", "rate_limited", "wait")
    assert isinstance(error, TransientError)
    assert str(error) == "Server answers 429 (rate_limited)"
    assert error.retry_after_s == seconds


def test_a_date_without_the_servers_clock_is_measured_by_ours(server: play.Server) -> None:
    """Within a minute."""
    server.answers(play.Answer(503, b"", {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1))}))
    error = ask(server).as_error("Server", "", None)
    assert isinstance(error, TransientError)
    assert error.retry_after_s == pytest.approx(3600, abs=60)


@pytest.mark.promise("endless-answers")
def test_at_most_64_kb_of_an_answer_are_read(server: play.Server) -> None:
    """Of a megabyte, compressed or not; and nobody is asked to compress, whatever a client's headers say."""
    packed = play.Answer(500, b"\x1f\x8b" * 500_000, {"Content-Encoding": "gzip"})
    server.answers(play.Answer(500, b"x" * 1_000_000), packed)
    answers = [ask(server, headers={"accept-encoding": "gzip"}) for _ in range(2)]
    assert [len(answer.body) for answer in answers] == [MAX_RESPONSE_BYTES, MAX_RESPONSE_BYTES] == [65_536, 65_536]
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


@pytest.mark.parametrize("answer", [play.DRIP, play.Answer(200, b"x", breaks_off=True)], ids=["drips", "breaks off"])
def test_the_status_counts_once_it_came(
    server: play.Server, answer: play.Answer, impatient: Callable[[], Impatient]
) -> None:
    """A body that drips is left in time, one that breaks off changes nothing."""
    server.answers(answer)
    clock = impatient()
    assert ask(server).status == 200
    assert clock.is_over is answer.drips


@pytest.mark.promise("endless-answers")
@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
def test_one_attempt_ends_in_time_even_if_the_head_drips(
    server: play.Server, kept: bool, impatient: Callable[[], Impatient]
) -> None:
    """A byte every 20 ms of status line and headers is no answer, on a connection that served before neither."""
    attempts = HttpClient("Server", server.url, 60)
    server.answers(*[play.OK] * kept, play.Answer(drips_head=True))
    if kept:
        assert attempts.request_once("POST", server.url, b"{}", {}).status == 200
    clock = impatient()
    with pytest.raises(TransientError, match="^Server: did not answer in time$"):
        attempts.request_once("POST", server.url, b"{}", {})
    assert clock.is_over


def test_an_error_has_no_context_that_quotes_the_address(
    server: play.Server, impatient: Callable[[], Impatient]
) -> None:
    """What urllib3 raised is neither its cause nor its context."""
    server.answers(play.Answer(drips_head=True))
    impatient()
    with pytest.raises(TransientError) as failed:
        ask(server)
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None


@pytest.mark.promise("endless-answers")
def test_a_proxy_that_drips_is_left_in_time(
    server: play.Server, monkeypatch: pytest.MonkeyPatch, impatient: Callable[[], Impatient]
) -> None:
    """Also while it makes the tunnel to an https address."""
    server.answers(play.Answer(drips_head=True))
    monkeypatch.setenv("https_proxy", server.root)
    monkeypatch.setenv("no_proxy", "")
    clock = impatient()
    with pytest.raises(TransientError, match="^Server: "):
        HttpClient("Server", "https://example.test", 60).request_once("POST", "https://example.test", b"{}", {})
    assert clock.is_over


def test_a_host_of_no_proxy_is_asked_itself(server: play.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other one by the proxy, whose fault is said as such and quotes nothing."""
    monkeypatch.setenv("http_proxy", "http://ann:HUSH@no-such-proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(server).status == 200
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(TransientError, match=r"^Server: the proxy of the environment cannot be reached, or refuses$"):
        ask(server)
