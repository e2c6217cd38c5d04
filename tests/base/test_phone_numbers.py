"""What is recorded of phone numbers in metadata, wherever that is given."""

from enum import StrEnum
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from opentelemetry import trace

from callbot_latency import (
    LatencyMetric,
    attempt,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    record,
    shutdown,
    turn,
)
from callbot_latency.base.phone_numbers import MAX_METADATA_CHARS, REDACT, PhoneNumbers
from callbot_latency.measuring.active_session import NotStartedSession, active
from tests.conftest import Start
from tests.support.recorded import Recorded

NUMBER = "+33 6 12 34 56 78"
HASHED = PhoneNumbers(b"secret")
WORD: str = HASHED.redact({"x": NUMBER})["x"]  # type: ignore[index]

pytestmark = pytest.mark.usefixtures("fresh_callbacks")


@measure_latency("rag_inference", metadata={"caller": NUMBER, "model": "large"})
def ask() -> None:
    """Its metadata was given at import."""


def everything() -> None:
    """Metadata by each way there is."""
    with call("CA1", metadata={"caller": NUMBER}), turn(metadata={"intent": f"call {NUMBER} back"}):
        with measure_latency_context("rag_inference", "a", metadata={"callers": [NUMBER]}) as handle:
            handle.set_metadata(late={"of": {"whom": NUMBER}})
            with attempt("mistral", metadata={"asked_for": NUMBER}):
                pass
        ask()
    record(LatencyMetric("rag_inference", "b", 5, "success", metadata={NUMBER: 1, "all": (NUMBER,)}))  # type: ignore[arg-type]
    foreign = {"operation_type": "rag_inference", "metadata.caller": NUMBER}
    with trace.get_tracer("theirs").start_as_current_span("c", attributes=foreign):
        pass


@pytest.mark.parametrize(
    ("settings", "word"),
    [({}, "[phone]"), ({"phone_numbers": "hashed", "trace_key": "secret"}, WORD)],
    ids=["never", "hashed"],
)
def test_no_number_is_recorded_whichever_way_it_is_given(
    start: Start, tmp_path: Path, settings: dict[str, Any], word: str
) -> None:
    """On spans of ours, in the file, in alerts, and in the texts of rules; in its place stands a word."""
    recorded = Recorded(start, tmp_path, **settings)
    everything()
    lines = recorded.lines
    assert [each for each in recorded.attributes if each != {"metadata.caller": NUMBER}] == [
        {"metadata.asked_for": word},
        {"metadata.callers": f"['{word}']", "metadata.late": f"{{'of': {{'whom': '{word}'}}}}"},
        {"metadata.caller": word, "metadata.model": "large"},
        {"metadata.intent": f"call {word} back"},
        {"metadata.caller": word},
    ]
    # Turns go to the file by themselves, so that they may come first.
    assert sorted(lines, key=str) == sorted(
        [
            {"asked_for": word},
            {"callers": [word], "late": {"of": {"whom": word}}},
            {"caller": word, "model": "large"},
            {"intent": f"call {word} back"},
            {word: 1, "all": [word]},
            {"caller": word},
        ],
        key=str,
    )
    texts = [alert.text for alert in recorded.alerts if alert.rule]
    assert texts == [
        f"of {word}, call {word} back, ['{word}']",
        f"of {word}, call {word} back, -",
        "of -, -, -",
        f"of {word}, -, -",
    ]
    assert not any(NUMBER in text for text in recorded.texts if text != str({"metadata.caller": NUMBER}))


@pytest.mark.parametrize(
    "written",
    [
        "+33612345678",
        "0033612345678",
        "00 33 6 12 34 56 78",
        "+33 (0)6 12 34 56 78",
        "+33(0)612345678",
        "+(33) 6-12-34-56-78",
        "+33.6.12.34.56.78",
        "+33\u00a06\u00a012\u00a034\u00a056\u00a078",
        "+33\u20116\u201112\u201134\u201156\u201178",
        "%2B33612345678",
        "+33\u0666\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668",
    ],
)
def test_one_number_is_one_word_however_it_is_written(written: str) -> None:
    """In its form for calls from abroad, alone or within a text."""
    assert HASHED.redact({"a": written, "b": f"{written}, 2 calls"}) == {"a": WORD, "b": f"{WORD}, 2 calls"}


def test_a_word_depends_on_the_number_and_on_the_key() -> None:
    """16 hex digits; a national form is another number than the one for calls from abroad."""
    words = {
        str(phones.redact({"a": number}))
        for phones in (HASHED, PhoneNumbers(b"other"))
        for number in ("+33612345678", "+33612345679", "0612345678")
    }
    assert len(words) == 6
    assert WORD.removeprefix("phone:").isalnum()
    assert len(WORD) == len("phone:") + 16


def test_a_key_longer_than_a_hash_takes_is_a_key_of_its_own(start: Start) -> None:
    """LATENCY_TRACE_KEY may have any length: each gives words and trace ids of its own."""
    seen = []
    for length in (64, 65, 100, 101):
        start(trace_key="k" * length, phone_numbers="hashed")
        with call("CA1") as bound, measure_latency_context("rag_inference", "ask", metadata={"a": NUMBER}):
            pass
        (metric,) = latency_tracker.get_recent_metrics()
        shutdown()
        seen.append((bound.trace_id, metric.metadata["a"]))
    assert len({trace_id for trace_id, _ in seen}) == len({word for _, word in seen}) == 4


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("06 12 34 56 78", "[phone]"),
        ("06 12 34 56 78 42", "[phone] 42"),
        ("(0)6 12 34 56 78", "[phone]"),
        ("06/12/34/56/78", "[phone]"),
        ("Tel.0612345678", "Tel.[phone]"),
        ("tel:+33612345678;ext=4", "tel:[phone];ext=4"),
        ("sip:+33612345678@sip.example.com", "sip:[phone]@sip.example.com"),
        ("https://bot/voice?From=%2B33612345678&To=%2B33187654321", "https://bot/voice?From=[phone]&To=[phone]"),
        ("0612345678 0687654321", "[phone] [phone]"),
        ("(415)555-2671", "[phone]"),
        ("1-415-555-2671", "[phone]"),
        ("+14155552671x42", "[phone]x42"),
        ("call 0 800 123 456 now", "call [phone] now"),
        ("0 892 70 50 50", "[phone]"),
        ("0 1 42 68 53 00", "[phone]"),
        ("0-800.123.456", "[phone]"),
        ("tel:0033612345678", "tel:[phone]"),
        ("12:0033612345678", "12:[phone]"),
        ("12:00 0612345678", "12:00 [phone]"),
        ("2:06 12 34 56 78", "2:[phone]"),
        ("a,+33612345678", "a,[phone]"),
        ("+33.612345678", "[phone]"),
        ("+44.2079460958", "[phone]"),
        ("+1.4155552671", "[phone]"),
    ],
)
def test_numbers_as_people_and_servers_write_them(text: str, cleaned: str) -> None:
    """What stands around one stays."""
    assert REDACT.redact({"a": text}) == {"a": cleaned}


@pytest.mark.parametrize(
    "value",
    [
        "CA0123456789abcdef0123456789abcdef",
        "MZ00000000000000000000000000000001",
        "ORD-0012345678",
        "2024-0612345678",
        "A0612345678",
        "order_0612345678",
        "09299861-3574-478a-bfba-d65c6ecb1a89",
        "a1b2c3d4-0612-4345-8678-912345678901",
        "2024-12-06T10:30:00+01:00",
        "06/12/2024 10:30",
        "06-12-2024 10:30:00",
        "192.168.100.200:5060",
        "0.0612345678",
        "12:00 2025-01-02",
        "12:05 2025-01-02",
        "2025-01-01 12:00:00 2025-01-02 12:00:00",
        "16:00 01/02/2025",
        "10:05 01.02.25 10:30",
        "09:00 10 000 000 EUR",
        "09:05 10 000 000 EUR",
        "GPS 48.8566,+2.3522219",
        "+48.8566141,+2.3522219",
        "+0.123456789012",
        "33612345678",
        33612345678,
        1.5,
        10**400,
        float("nan"),
        True,
        None,
        "spring-2026",
        "",
    ],
)
def test_what_is_no_number_stays(value: Any) -> None:
    """Ids, dates, amounts; digits alone may be an order's number. The mapping is not even copied where all is short."""
    facts = {"order": value}
    assert str(REDACT.redact(facts)) == str(facts)


@pytest.mark.parametrize(
    "key",
    [
        "phone",
        "customer_phone",
        "PhoneNumber",
        "caller",
        "caller_id",
        "msisdn",
        "tel",
        "tél",
        "user.mobile",
        "mobile_no",
        "phones",
        "callers",
        "phone_numbers",
        "caller_ids",
        "tels",
        "faxes",
    ],
)
def test_digits_alone_are_a_number_where_their_key_says_so(key: str) -> None:
    """As text, as an integer, as the float that a table made of it, and in a list."""
    values = ["33612345678", "33 612 345 678", 33612345678, 33612345678.0]
    word = HASHED.redact({"phone": 33612345678})["phone"]  # type: ignore[index]
    assert HASHED.redact({key: values}) == {key: [word] * 4}
    assert REDACT.redact({key: 33612345678}) == {key: "[phone]"}
    few: dict[str, Any] = {key: [123456, True, None, "iPhone 12", "12345", 10**400]}
    assert REDACT.redact(few) == few


def test_under_such_a_key_digits_within_a_text_are_numbers_too() -> None:
    """However many there are; a date, a UUID and what has letters in it are none."""
    text = "33612345678 ou 33 6 12 34 56 79, 33612345678"
    first, second = (HASHED.redact({"phone": n})["phone"] for n in (33612345678, 33612345679))  # type: ignore[index]
    assert HASHED.redact({"caller": text}) == {"caller": f"{first} ou {second}, {first}"}
    assert HASHED.redact({"order": text}) == {"order": text}
    for other in ("2025-01-01 12:30", "09299861-3574-478a-bfba-d65c6ecb1a89", "CA33612345678 or 33612345678x"):
        assert HASHED.redact({"caller": other}) == {"caller": other}


@pytest.mark.parametrize("key", ["hotel", "automobile", "from", "order_number", "called_at", "phone_seconds"])
def test_other_keys_leave_digits_as_they_are(key: str) -> None:
    """An id or a time of a name that only looks like it."""
    facts = {key: 1700000000, "other": "1700000000"}
    assert REDACT.redact(facts) == facts


def test_keys_are_cleaned_too() -> None:
    """Whatever they are, in nested mappings too; those that hold no number stay what they are."""

    class Line(StrEnum):
        MAIN = NUMBER

    facts = {NUMBER: 1, 33612345678: 2, (NUMBER,): 3, "a": {f"to {NUMBER}": 4}}
    assert HASHED.redact(facts) == {WORD: 1, 33612345678: 2, f"('{WORD}',)": 3, "a": {f"to {WORD}": 4}}
    assert REDACT.redact({Line.MAIN: 1}) == {"[phone]": 1}


def test_no_fact_is_lost_where_keys_become_the_same() -> None:
    """They are numbered in their order; whoever is called like that already is another."""
    facts = {NUMBER: "asked", "+33612345679": "refused", "[phone] 2": "named so", "of": {NUMBER: 1, "+33612345": 2}}
    assert REDACT.redact(facts) == {
        "[phone]": "asked",
        "[phone] 2": "refused",
        "[phone] 2 2": "named so",
        "of": {"[phone]": 1, "[phone] 2": 2},
    }
    assert HASHED.redact({NUMBER: 1, "+33612345678": 2}) == {WORD: 1, f"{WORD} 2": 2}


def test_a_long_text_is_cut_before_it_is_searched() -> None:
    """Its first 10,000 characters are kept: whoever puts a document into metadata does not hold up a call."""
    long = "mot " * 2_500
    assert len(long) == MAX_METADATA_CHARS
    assert REDACT.redact({"a": long}) == {"a": long}
    for piece in ("mot ", "1-", "x"):
        facts = {"a": piece * 1_000_000, piece * 1_000_000: ["b", piece * 1_000_000]}
        started_s = thread_time()
        cleaned = REDACT.redact(facts)
        assert thread_time() - started_s < 1.5  # all of it would take 5 s and more
        assert max(map(len, [cleaned["a"], *cleaned, cleaned[list(cleaned)[1]][1]])) <= MAX_METADATA_CHARS + 1
        assert cleaned["a"].endswith("…")


def test_no_half_of_a_number_is_left_at_the_cut() -> None:
    """Half of one is not found, so that it goes by itself."""
    for shift in range(30):
        text = "x" * (MAX_METADATA_CHARS - 30 + shift) + " 06 12 34 56 78 or later"
        assert not any(map(str.isdecimal, REDACT.redact({"a": text})["a"])), shift


def test_facts_without_numbers_are_not_copied() -> None:
    """The path of nearly all metadata."""
    facts = {"queue": "sales", "campaign": "spring-2026", "vip": True, "ms": 1.5, "n": 3, "call": "CA123456789"}
    assert REDACT.redact(facts) is facts


def test_a_handle_used_after_shutdown_records_no_number(start: Start, tmp_path: Path) -> None:
    """The operation that is still open then keeps nothing of one, hashed or not."""
    recorded = Recorded(start, tmp_path, phone_numbers="hashed", trace_key="secret")
    with measure_latency_context("rag_inference", "a") as handle:
        shutdown(60)
        handle.set_metadata(caller=NUMBER)
    assert recorded.attributes == [{"metadata.caller": "[phone]"}]


def test_before_the_start_metadata_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a call, a turn, an operation: nothing is recorded, and nothing raised."""
    for begin in (
        lambda: call("CA1", metadata={"caller": NUMBER}),
        lambda: turn(metadata={"caller": NUMBER}),
        lambda: measure_latency_context("rag_inference", "a", metadata={"caller": NUMBER}),
    ):
        monkeypatch.setattr(active, "session", NotStartedSession())
        with begin():
            pass


class Unreadable(dict[str, Any]):
    """Metadata whose items cannot be had."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.promise("hostile-values")
def test_metadata_that_cannot_be_read_takes_no_measurement_along(start: Start, tmp_path: Path) -> None:
    """It is counted, without its metadata."""
    recorded = Recorded(start, tmp_path)
    record(LatencyMetric("rag_inference", "b", 5, "success", metadata=Unreadable(a=1)))  # type: ignore[arg-type]
    assert recorded.lines == [{}]
