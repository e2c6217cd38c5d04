"""Takes phone numbers and secrets out of text before it leaves the process."""

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["MAX_CHARS", "scrub"]

MAX_CHARS: Final = 500
"""Longer texts are cut before they are searched, so that a huge message costs the call nothing."""

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
    # E.164, and national forms of nine digits or more with the usual separators; not part of a longer word (a SID).
    (re.compile(r"(?<![\w.])(?:\+|00)\d(?:[\s().-]{0,2}\d){6,14}(?!\w)"), "[phone]"),
    (re.compile(r"(?<![\w.])\(?0\d\)?(?:[\s().-]{0,2}\d){7,11}(?![\w])"), "[phone]"),
    (re.compile(r"(?<![\w.])\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}(?!\w)"), "[phone]"),
)


def scrub(text: str) -> str:
    """`text` with phone numbers, e-mail addresses and credentials replaced by a word for what they were.

    Cut to `MAX_CHARS` characters first. The patterns are a net, not a proof: do not put a caller's words into
    exception messages.
    """
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS] + "…"
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
