"""Text that may leave the process: of any object, well-formed, on one line, and values as JSON has them."""

import itertools
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, Final

__all__ = ["one_line", "plain", "text_of_any", "well_formed"]

_MAX_DEPTH: Final = 8
_MAX_PARTS: Final = 1_000
"""How deep, and of how many texts, lists and mappings, one fact of the metadata may be in a file."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Control characters, those that turn the direction of writing or have no width, and what is no character."""


def well_formed(text: str) -> str:
    """`text` with each half of a surrogate pair replaced by U+FFFD.

    Such a half, from a broken decoder, has no UTF-8: OTLP would refuse the whole batch that it stands in.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of_any(value: object) -> str:
    """``str(value)``, well-formed; empty where it cannot be had, since a user's ``__str__`` may raise anything."""
    try:
        text = str(value)
        return well_formed(text) if type(text) is str else ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - see above
        return ""


def one_line(text: str, limit: int) -> str:
    """`text` without control, bidi and invisible characters, white space as single blanks, cut to `limit`."""
    # What is looked at is bounded too: a megabyte of name costs no more than a line.
    text = text[: 4 * limit]
    if not text.isascii() or not text.isprintable():
        import unicodedata  # here, since importing us is to cost little

        spaced = " ".join(text.split())
        text = "".join(char for char in spaced if unicodedata.category(char) not in _INVISIBLE)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(value: Any) -> Any:
    """`value` in JSON's own types: keys become strings, what JSON has no word for becomes its text.

    Of a thing that is deep, endless or contains itself, what is beyond `_MAX_DEPTH` or `_MAX_PARTS` is left out.
    """
    return _plain(value, _MAX_DEPTH, itertools.count())


def _plain(value: Any, depth: int, parts: Iterator[int]) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float)):
        return _plain_number(value)
    if next(parts) >= _MAX_PARTS or not depth:
        return "…"
    if isinstance(value, Mapping):
        items = islice(value.items(), _MAX_PARTS)
        return {text_of_any(key): _plain(item, depth - 1, parts) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1, parts) for item in islice(value, _MAX_PARTS)]
    return text_of_any(value)


def _plain_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    # Python itself refuses to write an integer of more than 4,300 digits.
    return hex(value) if isinstance(value, int) and value.bit_length() > 14_000 else value
