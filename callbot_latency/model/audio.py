"""Audio in numbers: how many bytes, how many a second, how long it lasts."""

import math
from numbers import Integral, Real
from typing import Any, Final

__all__ = ["BYTES_LIKE", "checked_rate", "duration_of", "said_duration_ms", "said_size", "size_of"]

BYTES_LIKE: Final = (bytes, bytearray, memoryview)
_MAX_SIZE: Final = 2**63
"""What has 64 bits, as everything that reads it."""


def size_of(item: Any) -> int | None:
    """How many bytes it has; None for what is not bytes, and for a view that was released."""
    if not issubclass(type(item), BYTES_LIKE):
        return None
    try:
        return memoryview(item).nbytes
    except ValueError:
        return None


def checked_rate(bytes_per_s: Any) -> float | None:
    """So many bytes a second, or None.

    Raises:
        TypeError, ValueError: no finite number above 0; names the argument.

    """
    if bytes_per_s is None:
        return None
    if not _is_number(bytes_per_s, Real):
        raise TypeError(f"audio_bytes_per_s: expected a number of bytes, got {type(bytes_per_s).__name__}")
    rate = _finite(bytes_per_s)
    if rate is None or rate <= 0:
        raise ValueError(f"audio_bytes_per_s: expected a finite number > 0, such as 8000, got {bytes_per_s!r:.40}")
    return rate


def duration_of(size_bytes: int, bytes_per_s: float) -> float | None:
    """How long so many bytes last, in milliseconds; None where that is beyond any number."""
    return _finite(size_bytes / bytes_per_s * 1000)


def said_duration_ms(value: Any) -> float | None:
    """A duration that somebody says, in milliseconds; None where there is none."""
    duration_ms = _finite(value) if _is_number(value, Real) else None
    return duration_ms if duration_ms is not None and duration_ms >= 0 else None


def said_size(value: Any) -> int | None:
    """A number of bytes that somebody says; None where there is none."""
    size = int(value) if _is_number(value, Integral) else -1
    return size if 0 <= size < _MAX_SIZE else None


def _is_number(value: Any, kind: type) -> bool:
    """Whether it is such a number, be it numpy's; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
