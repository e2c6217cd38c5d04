"""Nanoseconds, as clocks give them, in other units."""

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["EPOCH", "NS_PER_MS", "NS_PER_S", "at"]

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def at(ns: int) -> datetime:
    """The time `ns` nanoseconds after the epoch, to the microsecond."""
    return EPOCH + timedelta(microseconds=ns // 1000)
