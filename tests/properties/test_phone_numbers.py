"""What holds for every phone number in metadata."""

import re
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callbot_latency import LatencyMetric, call, measure_latency_context, record, turn
from callbot_latency.base.phone_numbers import REDACT, PhoneNumbers
from callbot_latency.base.scrubbing import scrub
from tests.conftest import Start
from tests.support.recorded import Recorded

HASHED = PhoneNumbers(b"secret")
WORD = re.compile(r"phone:[0-9a-f]{16}")


class Written(NamedTuple):
    """A number as somebody writes it."""

    digits: str
    """Those that tell who it is, in any form."""
    text: str


separators = st.sampled_from(["", " ", "-", ".", "\u00a0", "\u2011", ") "])
numbers_abroad = st.one_of(
    *(
        st.tuples(st.just(country), st.from_regex(rf"\A[1-9][0-9]{{{length - 1}}}\Z"))
        for country, length in [("33", 9), ("1", 10), ("44", 10), ("49", 11), ("212", 9), ("7", 10), ("352", 8)]
    )
)


def in_groups(digits: str, separator: str, size: int) -> str:
    return separator.join(digits[n : n + size] for n in range(0, len(digits), size))


@st.composite
def abroad(draw: st.DrawFn, number: tuple[str, str] | None = None) -> Written:
    """E.164, with + or 00 and any separators."""
    country, rest = number or draw(numbers_abroad)
    prefix = draw(st.sampled_from(["+", "00", "+ ", "(+", "%2B", "00 "]))
    # A form encodes no brackets, and there is no (0) to leave out in every country.
    plain = prefix == "%2B" or country in ("1", "7")
    between = draw(st.sampled_from(["", " ", "-"] if plain else ["", " ", "-", " (0)", "(0) "]))
    return Written(rest, prefix + country + between + in_groups(rest, draw(separators), draw(st.integers(1, 4))))


@st.composite
def french(draw: st.DrawFn) -> Written:
    """In pairs from 01 to 09, or with a 0 that stands alone."""
    digits = draw(st.from_regex(r"\A0[1-9][0-9]{8}\Z"))
    separator = draw(st.sampled_from(["", " ", ".", "-", "/", "\u00a0", ". "]))
    if separator and draw(st.booleans()):
        sizes = draw(st.sampled_from([(3, 3, 3), (3, 2, 2, 2), (1, 2, 2, 2, 2)]))
        ends = [1 + sum(sizes[:n]) for n in range(len(sizes) + 1)]
        groups = (digits[begin:end] for begin, end in pairwise(ends))
        return Written(digits, "0" + draw(st.sampled_from([" ", "-", "\u00a0"])) + separator.join(groups))
    return Written(digits, in_groups(digits, separator, 2))


@st.composite
def american(draw: st.DrawFn) -> Written:
    """In groups of three, three and four."""
    area, exchange, line = (draw(st.from_regex(rf"\A[2-9][0-9]{{{n}}}\Z")) for n in (2, 2, 3))
    form = draw(st.sampled_from(["({}) {}-{}", "({}){}-{}", "{}-{}-{}", "{}.{}.{}", "{} {} {}", "1-{}-{}-{}"]))
    return Written(area + exchange + line, form.format(area, exchange, line))


numbers = st.one_of(abroad(), french(), american())
words = st.text("abcdefgh éö", max_size=12)
befores = st.sampled_from(["", " ", ": ", "=", "tel:", "sip:", '"', "\n", "Tel.", ", ", "<", "n°"])
afters = st.sampled_from(["", " ", ".", ", ", ";", ")", "\n", '"', "@sip.example.com", " - "])


@st.composite
def texts(draw: st.DrawFn, number: Written) -> str:
    """A text with the number somewhere in it."""
    before, after = draw(words), draw(words)
    between = draw(befores)
    if before and not between and number.text[0] != "+":
        between = " "
    # What follows a number's own digits at once is another word's beginning.
    return f"{before}{between}{number.text}{draw(afters) or ' '}{after}"


def digits_of(text: str) -> str:
    """Those that are left of it where the words for numbers are taken out."""
    return "".join(str(int(each)) for each in WORD.sub("", text) if each.isdecimal())


@given(st.data())
def test_a_number_goes_wherever_it_stands(data: st.DataObject) -> None:
    """In texts, lists, mappings and their keys; in a message too."""
    number = data.draw(numbers)
    text = data.draw(texts(number))
    facts = {"a": text, "b": [text, {"c": text}], text: 1, "d": {text: None}, "queue": "sales"}
    for phones in (REDACT, HASHED):
        cleaned = phones.redact(facts)
        assert number.digits not in digits_of(str(cleaned)), cleaned
        assert number.text not in str(cleaned)
        assert cleaned["queue"] == "sales"
        assert phones.redact(cleaned) == cleaned
    assert number.digits not in digits_of(scrub(text))


@given(st.data(), numbers_abroad, words, words)
def test_one_number_is_one_word(data: st.DataObject, number: tuple[str, str], before: str, after: str) -> None:
    """However it is written for a call from abroad, and whatever stands around it; another number has another word."""
    one, same = data.draw(abroad(number)), data.draw(abroad(number))
    facts = {"a": f"{before} {one.text} {after}", "b": same.text, "c": f"+{number[0]}{number[1]}"}
    [in_text], [alone], [plain] = (WORD.findall(value) for value in HASHED.redact(facts).values())
    assert in_text == alone == plain
    other = data.draw(numbers_abroad)
    [word] = WORD.findall(HASHED.redact({"a": f"+{other[0]}{other[1]}"})["a"])
    assert (word == plain) is ("".join(other) == "".join(number))


ids = st.one_of(
    st.from_regex(r"\A(CA|MZ|AC|SM)[0-9a-f]{32}\Z"),
    st.from_regex(r"\A[A-Z]{2,4}-[0-9]{4,12}\Z"),
    st.from_regex(r"\A[A-Z]{2,4}-20[0-9]{2}-[0-9]{3,12}\Z"),
    st.from_regex(r"\A[A-Za-z_]{1,8}[0-9]{1,20}\Z"),
    st.from_regex(r"\A[0-9]{1,15}[A-Za-z_]{1,8}\Z"),
    st.from_regex(r"\A[1-9][0-9]{0,17}\Z"),
    st.uuids().map(str),
    st.from_regex(r"\A0[0-9]{7}-0[0-9]{3}-4[0-9]{3}-8[0-9]{3}-[0-9]{12}\Z"),
    st.datetimes(datetime(1900, 1, 1)).map(lambda at: at.isoformat()),
    st.datetimes(datetime(1900, 1, 1)).map(lambda at: at.isoformat(" ", "seconds")),
    st.dates(date(1900, 1, 1), date(2099, 1, 1)).map(lambda day: day.strftime("%d/%m/%Y")),
    st.tuples(
        st.datetimes(datetime(1900, 1, 1), datetime(2099, 1, 1)),
        st.sampled_from(
            ["%H:%M %Y-%m-%d", "%Y-%m-%d %H:%M:%S %Y-%m-%d %H:%M:%S", "%H:%M %d/%m/%Y", "%H:%M:%S %d.%m.%Y"]
        ),
    ).map(lambda at: at[0].strftime(at[1])),
    st.tuples(st.times(), st.integers(10, 99)).map(lambda at: f"{at[0]:%H:%M} {at[1]} 000 000 EUR"),
    st.lists(st.floats(-180, 180), min_size=1, max_size=2).map(lambda at: ",".join(f"{each:+.7f}" for each in at)),
    st.floats(allow_nan=False).map(str),
    st.ip_addresses().map(str),
)


@given(ids)
def test_ids_and_times_stay(value: str) -> None:
    """What an operator looks things up by."""
    assert REDACT.redact({"order": value, "all": [value], "text": f"order {value}, urgent"}) == {
        "order": value,
        "all": [value],
        "text": f"order {value}, urgent",
    }


@given(st.dictionaries(st.text(max_size=20), st.text("0123456789+() .-/%2B\u0660x", max_size=60), max_size=4))
def test_whatever_the_text_cleaning_is_no_fault_and_is_done_once(facts: dict[str, str]) -> None:
    """A second look finds nothing, so that a text may be scrubbed again where it is told."""
    cleaned = REDACT.redact(facts)
    assert REDACT.redact(cleaned) == cleaned


@pytest.mark.promise("secrets")
@pytest.mark.usefixtures("fresh_callbacks")
@pytest.mark.parametrize(
    "given_settings", [{}, {"phone_numbers": "hashed", "trace_key": "secret"}], ids=["never", "hashed"]
)
def test_nothing_that_is_recorded_has_the_number(start: Start, tmp_path: Path, given_settings: dict[str, Any]) -> None:
    """Spans, file, tracker, alerts and the texts of rules, for metadata of calls, turns, operations and handles."""
    recorded = Recorded(start, tmp_path, **given_settings)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        recorded.forget()
        number = data.draw(numbers)
        text = data.draw(texts(number))
        operation = measure_latency_context("rag_inference", "a", metadata={"callers": {text: text}})
        with call("CA", metadata={"caller": text}), turn(metadata={"intent": [text]}), operation as handle:
            handle.set_metadata(late=text)
        record(LatencyMetric("rag_inference", "b", 5, "success", metadata={"caller": text}))  # type: ignore[arg-type]
        told = recorded.texts
        assert len(told) >= 3 + 3 + 2 + 2 + 1
        assert [each for each in told if number.digits in digits_of(each)] == []

    check()
