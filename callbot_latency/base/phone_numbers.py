"""What becomes of phone numbers in metadata: a word for them, or a keyed hash where LATENCY_PHONE_NUMBERS asks for it.

What is one stands in `scrub.PHONE`, as for messages. Digits alone may be an order's number, and stay, unless their
key says what they are. E-mail addresses and credentials become the words that messages have for them.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from .scrubbing import (
    LOOKAHEAD_CHARS,
    NAMES_A_SECRET,
    PHONE_WORD,
    SECRET_WORD,
    custom_patterns,
    may_hold_secret,
    truncate,
    without_secrets,
)
from .text import text_of_any

__all__ = ["MAX_METADATA_CHARS", "REDACT", "PhoneNumbers", "needs_redaction"]

MAX_METADATA_CHARS: Final = 10_000
"""Longer texts of metadata are cut before they are searched, which for so many takes a few ms at the very most."""
_LEAST_DIGITS: Final = 7
_ENOUGH_DIGITS: Final = re.compile(r"(?:\d\D{0,4}){6}\d")
"""Whatever `PHONE` finds has so many digits, no further apart; looking for them costs least."""
_BARE: Final = re.compile(r"[^\w]*(?:\d[\s().\u2010-\u2015-]*){7,15}")
# Neither a date nor a part of a UUID.
_BARE_WITHIN: Final = re.compile(
    r"(?<![\w-])(?!(?:19|20)\d\d-\d\d-\d\d)\d(?:[\s().\u2010-\u2015-]{0,2}\d){6,14}(?![\w-])"
)
_NAMES_A_NUMBER: Final = re.compile(
    r"(?:.*(?:phone|msisdn|caller|callee|appelant|portable)s?|(?:.*[\W_])?(?:mobiles?|fax(?:es)?|t[eé]ls?))"
    r"(?:[\W_]?(?:number|num|no|id)s?)?",
    re.IGNORECASE,
)
_PERSON: Final = b"callbot.phone"
"""Tells these hashes from those that ids derive from (BLAKE2's personalisation)."""


def needs_redaction(facts: Mapping[Any, Any]) -> bool:
    """Whether it is worth looking closer; false of most metadata, at little cost."""
    for key, value in facts.items():
        kind = type(value)
        if kind is str:
            size = len(value)
            if size > MAX_METADATA_CHARS or (
                size >= _LEAST_DIGITS and not value.isidentifier() and _is_suspicious(value)
            ):
                return True
        elif kind is not bool and value is not None and (kind in _NESTED or _has_digits_enough(value)):
            return True
        if type(key) is not str or len(key) > MAX_METADATA_CHARS or _is_suspicious_key(key):
            return True
    return bool(custom_patterns.patterns)


def _is_suspicious(text: str) -> bool:
    return _ENOUGH_DIGITS.search(text) is not None or may_hold_secret(text)


@lru_cache(maxsize=1024)
def _is_suspicious_key(key: str) -> bool:
    """Keys stand in the bot's code, so there are few."""
    return NAMES_A_SECRET.fullmatch(key) is not None or (not key.isidentifier() and _is_suspicious(key))


_NESTED: Final = frozenset({dict, list})


def _has_digits_enough(number: float) -> bool:
    return 1e6 <= number < 1e15


class PhoneNumbers:
    """Replaces each phone number in metadata by ``[phone]``, or by ``phone:`` and 16 hex digits; other secrets too.

    Args:
        secret: keys the hash, at most 64 bytes, so that nobody without it can try all numbers; None: nothing of a
            number is kept.

    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = secret

    def redact(self, facts: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """`facts`, which are of JSON's types, without phone numbers, addresses and credentials in their texts and keys.

        A number of digits alone, text or not, is one where its key says so (``phone``, ``caller_id``); other numbers
        stay. A text is a credential where its key says so (``api_key``). A text is cut to `MAX_METADATA_CHARS`
        characters. Keys that become the same are numbered: ``[phone]``, ``[phone] 2``. Where there is nothing to do,
        the same object is returned.
        """
        return self._mapping(facts) if needs_redaction(facts) else facts

    def _mapping(self, facts: Mapping[Any, Any]) -> dict[Any, Any]:
        cleaned: dict[Any, Any] = {}
        alike = Counter[Any]()
        for key, value in facts.items():
            text = key if type(key) is str else text_of_any(key)
            name = truncate(text, MAX_METADATA_CHARS)
            seen = without_secrets(name, self._found)
            free = said = key if seen == text else seen
            while free in cleaned:
                alike[said] += 1
                free = f"{said} {alike[said] + 1}"
            cleaned[free] = self._value(value, name)
        return cleaned

    def _value(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            # Searched past the cut, since half of an address or a credential is not found.
            return truncate(self._text(truncate(value, MAX_METADATA_CHARS + LOOKAHEAD_CHARS), name), MAX_METADATA_CHARS)
        if isinstance(value, dict):
            return self._mapping(value)
        if isinstance(value, list):
            return [self._value(each, name) for each in value]
        if isinstance(value, (int, float)) and _has_digits_enough(value) and _NAMES_A_NUMBER.fullmatch(name):
            return self._word(str(int(value)))
        return value

    def _text(self, text: str, name: str) -> str:
        if text and NAMES_A_SECRET.fullmatch(name):
            return SECRET_WORD
        if _NAMES_A_NUMBER.fullmatch(name):
            if _BARE.fullmatch(text):
                return self._word(text)
            return _BARE_WITHIN.sub(self._found, without_secrets(text, self._found))
        return without_secrets(text, self._found)

    def _found(self, match: re.Match[str]) -> str:
        return self._word(match[0])

    def _word(self, number: str) -> str:
        if self._key is None:
            return PHONE_WORD
        digest = hashlib.blake2b(_normal(number).encode(), digest_size=8, key=self._key, person=_PERSON)
        return "phone:" + digest.hexdigest()


REDACT: Final = PhoneNumbers()
"""Keeps nothing of a number."""


def _normal(number: str) -> str:
    """ASCII digits, and + before a country's code, after which the (0) that is not dialled from abroad is left out."""
    number = re.sub("%2[Bb]", "+", number)
    if "+" not in number and not _digits(number).startswith("00"):
        return _digits(number)
    return "+" + _digits(number.replace("(0)", "")).removeprefix("00")


def _digits(text: str) -> str:
    return "".join(str(int(each)) for each in text if each.isdecimal())
