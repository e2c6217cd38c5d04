"""Takes phone numbers and secrets out of text before it leaves the process."""

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["MAX_CHARS", "PHONE", "PHONE_WORD", "cut", "scrub"]

MAX_CHARS: Final = 500
"""Longer texts are cut before they are searched, so that a huge message costs the call nothing."""

_LONGEST: Final = 60
"""No phone number has more characters."""
_OF_NUMBERS: Final = "0123456789+().-/ \u00a0\u202f\u2010\u2011"

PHONE_WORD: Final = "[phone]"
"""Stands for a phone number."""

_GAP: Final = r"[\s().\u2010-\u2015-]{0,2}"
_APART: Final = r"[\s/.\u2010-\u2015-]{1,2}"
_ALONE: Final = r"[\s\u2010-\u2015-]{1,2}"
# Neither a part of a longer word, such as a SID, nor decimals, a UUID or a group within one, a date, ORD-0012345678.
_BEGINS: Final = (
    r"(?<!\w)(?<!\d\.)(?<![\da-fA-F]{4}-)"
    r"(?![\da-fA-F]{8}(?:-[\da-fA-F]{4}){3}-)(?!\d\d[./-]\d\d[./-](?:19|20)\d\d(?!\d))(?!(?<=[A-Z]-)\d{9})"
)
# Decimals with a sign; as a number, "+33.612345678", they would have more digits behind the country's.
_DECIMAL: Final = rf"(?:[02-689]\.\d+|[17]\.\d{{1,9}}|\d\d\.\d{{1,7}}|1\d\d\.\d+)(?!{_GAP}\d)"
# What stands there is a time's minutes or seconds: "12:00 2025-01-02".
_OF_A_TIME: Final = r"(?<=\d:)\d\d(?!\d)"
# Where a country's length is known, what follows is left: "+33 6 12 34 56 78, 2 calls".
_ABROAD: Final = rf"(?:33(?:\s?\(0\))?(?:{_GAP}\d){{9}}(?!\w)|1(?:{_GAP}\d){{10}}(?!\w)|\d(?:{_GAP}\d){{6,14}})"
PHONE: Final = re.compile(
    # E.164, also as a URL or a form encodes it; + tells enough, whatever stands around it.
    rf"(?:\+|%2[Bb])[\s(]{{0,2}}(?!{_DECIMAL}){_ABROAD}(?!\d)"
    rf"|{_BEGINS}(?:(?!{_OF_A_TIME})(?:00{_GAP}{_ABROAD}"
    # National forms: France's pairs, nine digits or more with the usual separators, France's with a 0 that stands
    # alone ("0 800 123 456", "0 892 70 50 50", "0 1 42 68 53 00"), the US's.
    r"|0\d(?:[\s/.\u2010-\u2015-]{0,2}\d\d){4}"
    rf"|(?:\(0\)\s?|\(?0)\d\)?(?:{_GAP}\d){{7,11}}"
    rf"|0{_ALONE}[1-9](?:\d\d(?:(?:{_APART}\d{{3}}){{2}}|(?:{_APART}\d\d){{3}})|(?:{_APART}\d\d){{4}})"
    r"|(?:1[\s.-]{1,2})?(?:\(\d{3}\)[\s.-]{0,2}|\d{3}[\s.-])\d{3}[\s.-]\d{4})"
    # Behind a time's colon only what looks like nothing else.
    rf"|0[1-9](?P<apart>{_APART})\d\d(?:(?P=apart)\d\d){{3}})(?!\w)"
)
"""What is taken for a phone number, in messages and in metadata alike."""

_PATTERNS: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    # Credentials inside a URL: scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/@]{1,256}@"), "[credentials]@"),
    (re.compile(r"https://hooks\.slack\.com/[^\s\"'<>]+", re.IGNORECASE), "[slack-webhook]"),
    (re.compile(r"\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=:-]{6,}", re.IGNORECASE), r"\1 [secret]"),
    (
        re.compile(
            r"\b([\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization|session[_-]?id))"
            r"(\"?'?\s*[=:]\s*\"?'?)(?!\[secret\])[^\s\"',;&)}\]]+",
            re.IGNORECASE,
        ),
        r"\1\2[secret]",
    ),
    (re.compile(r"\b(?:sk|pk|rk|xox[abprs])-[A-Za-z0-9_-]{8,}"), "[secret]"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*"), "[jwt]"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), "[email]"),
    (PHONE, PHONE_WORD),
)


def cut(text: str, most: int) -> str:
    """`text`, or its first `most` characters and "…", without the digits at the cut: half a number is not found."""
    if len(text) <= most:
        return text
    sure = most - _LONGEST
    return text[:sure] + text[sure:most].rstrip(_OF_NUMBERS) + "…"


def scrub(text: str) -> str:
    """`text` with phone numbers, e-mail addresses and credentials replaced by a word for what they were.

    Cut to `MAX_CHARS` characters first. The patterns are a net, not a proof: do not put a caller's words into
    exception messages.
    """
    text = cut(text, MAX_CHARS)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
