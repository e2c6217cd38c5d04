"""What holds for every text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.base.scrubbing import _EMAIL, _PATTERNS, MAX_MESSAGE_CHARS, may_hold_secret, scrub, without_secrets

harmless = st.text("abcdefgh éö,", max_size=30)
digits = st.text("0123456789", min_size=8, max_size=8)


@given(st.text(max_size=2 * MAX_MESSAGE_CHARS))
def test_any_text_is_scrubbed_without_error(text: str) -> None:
    """It is never much longer than what is kept of it."""
    assert len(scrub(text)) <= 8 * MAX_MESSAGE_CHARS


@given(harmless, st.sampled_from(["+33", "+1", "0033", "06"]), digits, st.sampled_from(["", " ", ".", "-"]), harmless)
def test_a_phone_number_goes_wherever_it_stands(
    before: str, prefix: str, number: str, separator: str, after: str
) -> None:
    """With any of the usual separators."""
    pairs = separator.join([prefix, *(number[n : n + 2] for n in range(0, 8, 2))])
    scrubbed = scrub(f"{before} {pairs} {after}")
    assert pairs not in scrubbed
    assert "[phone]" in scrubbed


ALL = [_EMAIL, *(pattern for pattern, _ in _PATTERNS)]
SECRETS = [
    *(
        "a@b.fr",
        "://u:p@h",
        "https://HOOKS.slack.com/x",
        "Bearer abcdefgh",
        "BASIC dXNlcjpwYXNz",
        "token abcdefgh",
        "Api-Key: 1",
    ),
    *(
        "password=x",
        "PASSWD:x",
        "secret=x",
        "apikey=x",
        "Authorization: x",
        "session-id=x",
        "sk-abcdefgh",
        "pk-abcdefgh",
    ),
    *("rk-abcdefgh", "xoxb-abcdefgh", "eyJabcdef.abc", "AIzaSyA0123456789abcdef012", "00D5g000004abcD!AQEAQHunter2"),
]


@given(st.lists(st.sampled_from(SECRETS) | st.text(max_size=9), max_size=4).map(" ".join))
def test_where_the_first_look_finds_nothing_there_is_nothing(text: str) -> None:
    """The look that costs least passes over no secret."""
    assert may_hold_secret(text) or not any(pattern.search(text) for pattern in ALL)


@pytest.mark.parametrize("secret", SECRETS)
def test_each_kind_of_secret_is_found(secret: str) -> None:
    """Each of those that the test above is made of."""
    assert without_secrets(secret) != secret


@given(harmless)
def test_what_holds_nothing_is_left_as_it_is(text: str) -> None:
    """Letters and spaces are not touched."""
    assert scrub(text) == text
