"""Whatever a fact is, in JSON's own types, and bounded."""

import itertools
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, Final

from .text import text_of_any

__all__ = ["plain"]

_MAX_DEPTH: Final = 8
_MAX_PARTS: Final = 1_000
"""How deep, and of how many texts, lists and mappings, one fact of the metadata may be in a file."""


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
