"""What holds for every text."""

from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.scrub import MAX_CHARS, scrub

harmless = st.text("abcdefgh éö,", max_size=30)
digits = st.text("0123456789", min_size=8, max_size=8)


@given(st.text(max_size=2 * MAX_CHARS))
def test_any_text_is_scrubbed_without_error(text: str) -> None:
    """It is never much longer than what is kept of it."""
    assert len(scrub(text)) <= 8 * MAX_CHARS


@given(harmless, st.sampled_from(["+33", "+1", "0033", "06"]), digits, st.sampled_from(["", " ", ".", "-"]), harmless)
def test_a_phone_number_goes_wherever_it_stands(
    before: str, prefix: str, number: str, separator: str, after: str
) -> None:
    """With any of the usual separators."""
    pairs = separator.join([prefix, *(number[n : n + 2] for n in range(0, 8, 2))])
    scrubbed = scrub(f"{before} {pairs} {after}")
    assert pairs not in scrubbed
    assert "[phone]" in scrubbed


@given(harmless)
def test_what_holds_nothing_is_left_as_it_is(text: str) -> None:
    """Letters and spaces are not touched."""
    assert scrub(text) == text
