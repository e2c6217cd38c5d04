"""Takes phone numbers and secrets out of text before it leaves the process."""

import re
from collections.abc import Callable, Sequence
from typing import Final

__all__ = [
    "LOOKAHEAD_CHARS",
    "MAX_MESSAGE_CHARS",
    "NAMES_A_SECRET",
    "OWN_WORD",
    "PHONE",
    "PHONE_WORD",
    "SECRET_WORD",
    "custom_patterns",
    "may_hold_secret",
    "scrub",
    "truncate",
    "without_secrets",
]

MAX_MESSAGE_CHARS: Final = 500
"""Longer messages are cut and the rest is not searched, so that a huge message costs the call nothing."""
LOOKAHEAD_CHARS: Final = 500
"""So much more is searched than is kept: half of an address or a credential would not be found."""

_LONGEST: Final = 60
"""No phone number has more characters."""
_OF_NUMBERS: Final = "0123456789+().-/ \u00a0\u202f\u2010\u2011"

PHONE_WORD: Final = "[phone]"
"""Stands for a phone number."""
SECRET_WORD: Final = "[secret]"  # noqa: S105 - a word for one
"""Stands for a credential."""
OWN_WORD: Final = "[scrubbed]"
"""Stands for what a pattern of the operator's own finds."""

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

_NAMES: Final = r"(?:password|passwd|secret|token|api[_-]?key|authorization"
NAMES_A_SECRET: Final = re.compile(rf".*{_NAMES})", re.IGNORECASE | re.DOTALL)
"""A key whose value is a credential, whatever it looks like."""

_PATTERNS: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    # Credentials inside a URL: scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/@]{1,256}@"), "[credentials]@"),
    (re.compile(r"https://hooks\.slack\.com/[^\s\"'<>]+", re.IGNORECASE), "[slack-webhook]"),
    (re.compile(r"\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=:-]{6,}", re.IGNORECASE), rf"\1 {SECRET_WORD}"),
    (
        re.compile(
            rf"({_NAMES}|session[_-]?id))"
            r"(\"?'?\s*[=:]\s*\"?'?)(?!\[secret\])[^\s\"',;&)}\]]+",
            re.IGNORECASE,
        ),
        rf"\1\2{SECRET_WORD}",
    ),
    (re.compile(r"\b(?:sk|pk|rk|xox[abprs])-[A-Za-z0-9_-]{8,}"), SECRET_WORD),
    # Google's API keys, which its errors quote within a URL; the session ids of Salesforce.
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), SECRET_WORD),
    (re.compile(r"\b00D[A-Za-z0-9]{9,15}![A-Za-z0-9._]{8,}"), SECRET_WORD),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,1000}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*"), "[jwt]"),
)
"""Credentials; each takes time in proportion to the text."""
# A phone number's hash may stand before the @ of a SIP address.
_EMAIL: Final = re.compile(r"(phone:[\da-f]{16}@)|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_CUT_WORD: Final = re.compile(r"\S{1,256}$")


class _Own:
    """The patterns that the operator adds, the same for the whole process; `init()` sets them."""

    __slots__ = ("patterns",)

    def __init__(self) -> None:
        self.patterns: tuple[re.Pattern[str], ...] = ()


custom_patterns: Final = _Own()


def truncate(text: str, most: int) -> str:
    """`text`, or its first `most` characters and "…", without the digits at the cut: half a number is not found."""
    if len(text) <= most:
        return text
    sure = most - _LONGEST
    return text[:sure] + text[sure:most].rstrip(_OF_NUMBERS) + "…"


def may_hold_secret(text: str) -> bool:
    """Whether `text` may hold an address or a credential; false of most, at a fraction of what a search costs."""
    low = text.lower()
    # Spelled out: a loop over a list would take three times as long, one pattern five times.
    return (
        "@" in low
        or "token" in low
        or "secret" in low
        or "passw" in low
        or "bearer" in low
        or "basic" in low
        or "authorization" in low
        or ("api" in low and "key" in low)
        or "session" in low
        or "hooks.slack" in low
        or "k-" in low
        or "xox" in low
        or "aiza" in low
        or "00d" in low
        or "eyj" in low
        or bool(custom_patterns.patterns)
    )


def without_secrets(text: str, phone: str | Callable[[re.Match[str]], str] = PHONE_WORD) -> str:
    """`text` with phone numbers, e-mail addresses and credentials replaced by a word for what they were.

    Args:
        text: of any length; the time that it takes is in proportion.
        phone: the word for a phone number, or what gives one.

    """
    is_suspicious = may_hold_secret(text)
    if is_suspicious:
        for pattern in custom_patterns.patterns:
            text = pattern.sub(OWN_WORD, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    text = PHONE.sub(phone, text)
    return _EMAIL.sub(_email, text) if is_suspicious else text


def _email(found: re.Match[str]) -> str:
    return found[1] or "[email]"


def scrub(text: str) -> str:
    """`text` with phone numbers, e-mail addresses and credentials replaced by a word for what they were.

    Cut to `MAX_MESSAGE_CHARS` characters. The patterns are a net, not a proof: do not put a caller's words into
    exception messages.
    """
    seen = truncate(text, MAX_MESSAGE_CHARS + LOOKAHEAD_CHARS)
    scrubbed = without_secrets(seen)
    if seen is not text and len(scrubbed) <= MAX_MESSAGE_CHARS:
        scrubbed = _CUT_WORD.sub("…", scrubbed)
    return truncate(scrubbed, MAX_MESSAGE_CHARS)
