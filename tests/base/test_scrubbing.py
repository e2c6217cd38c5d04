"""What is taken out of text before it leaves the process."""

from time import thread_time

import pytest

from callbot_latency.base.scrubbing import LOOKAHEAD_CHARS, MAX_MESSAGE_CHARS, scrub


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("no answer from +33612345678", "612345678"),
        ("no answer from +33 6 12 34 56 78", "12 34 56"),
        ("no answer from 0033612345678", "612345678"),
        ("no answer from 06 12 34 56 78.", "12 34 56"),
        ("no answer from 06.12.34.56.78", "12.34.56"),
        ("called (415) 555-2671 twice", "555-2671"),
        ("called 415-555-2671 twice", "555-2671"),
        ("called +1 (415) 555-2671", "555-2671"),
        ("mail to jean.dupont+rdv@example.co.uk failed", "dupont"),
        ("https://hooks.slack.com/services/T000/B000/XXXX refused", "XXXX"),
        ("401 for Authorization: Bearer abcdef.123456", "abcdef.123456"),
        ("password=hunter22 is wrong", "hunter22"),
        ("{'api_key': 'abc-def-ghi'}", "abc-def-ghi"),
        ('{"access_token": "abc-def-ghi"}', "abc-def-ghi"),
        ("Incorrect API key provided: sk-proj-abcdefgh12345678", "abcdefgh"),
        ("xoxb-123456789012-abcdef", "123456789012"),
        ("403 for https://speech.googleapis.com/v1/x?key=AIzaSyA-abcdefghijklmnopqrstuvwxyz012345", "abcdefgh"),
        ("session 00D5g000004abcD!AQEAQHunter2hunter2 is over", "Hunter2"),
        ("session_id=00D5g000004xyz!AQ expired", "00D5g"),
        ("token eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM invalid", "SflKxw"),
        ("GET https://user:pass1234@host/path", "pass1234"),
        ("postgres://svc:pass1234@db:5432/x is down", "pass1234"),
    ],
)
def test_numbers_addresses_and_credentials_go(text: str, secret: str) -> None:
    """What must not be told is replaced by a word for it; the rest stays readable."""
    scrubbed = scrub(text)
    assert secret not in scrubbed
    assert "[" in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "timed out after 1500 ms",
        "call CA0123456789abcdef0123456789abcdef not found",
        "call CA123456789 not found",
        "HTTP 503 from http://localhost:8080/v1/speech",
        "127.0.0.1:9090 refused the connection",
        "2025-01-01T12:00:00Z",
        "expected 16000 Hz, got 8000 Hz",
        "la connexion a été coupée",
    ],
)
def test_what_is_harmless_stays(text: str) -> None:
    """Ids, addresses of servers, times and amounts are what an operator needs."""
    assert scrub(text) == text


def test_a_long_text_is_cut_before_it_is_searched() -> None:
    """A huge message costs the call nothing."""
    assert scrub("x" * 10_000_000) == "x" * MAX_MESSAGE_CHARS + "…"
    assert scrub("x" * MAX_MESSAGE_CHARS) == "x" * MAX_MESSAGE_CHARS
    assert scrub("x" * (MAX_MESSAGE_CHARS - 10) + " 06 12 34 56 78") == "x" * (MAX_MESSAGE_CHARS - 10) + " [phone]"


@pytest.mark.parametrize(
    "secret", ["06 12 34 56 78", "jean.dupont@example.com", "https://svc:hunter2@db/x", "sk-hunter2hunter2"]
)
@pytest.mark.parametrize("where", [MAX_MESSAGE_CHARS, MAX_MESSAGE_CHARS + LOOKAHEAD_CHARS])
def test_no_half_of_a_secret_is_left_at_the_cut(secret: str, where: int) -> None:
    """Neither where the text is cut nor where the search ends, even where what was found made it short."""
    for filler in ("", "+33612345678 " * (where // 13 - 3)):
        for shift in range(30):
            scrubbed = scrub(filler.ljust(where - shift - 1, "x") + " " + secret + " and more" * 100)
            assert not any(part in scrubbed for part in ("34 56", "dupont", "hunter"))


@pytest.mark.parametrize("piece", ["0", "+1 ", "a.", "(", "://", "a@", "token ", "eyJ", "-", "password=", "0 ", "0.("])
def test_no_text_is_slow(piece: str) -> None:
    """No pattern backtracks for long: hundreds of the worst texts take well under a second each."""
    started_s = thread_time()
    scrub(piece * MAX_MESSAGE_CHARS)
    assert thread_time() - started_s < 1


def test_scrubbing_twice_changes_nothing_more() -> None:
    """The words that are put in are themselves harmless."""
    for text in (
        "+33612345678 a@b.fr password=x token abcdefgh https://u:p@h",
        "https://hooks.slack.com/services/T/B/X",
    ):
        assert scrub(scrub(text)) == scrub(text)
