"""Business hours: days and times of day in a time zone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

__all__ = ["DAYS", "MINUTES_A_DAY", "BusinessHours", "any_open"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """From one time of day to another, on some days of the week.

    What the clock on the wall shows decides: on the day that clocks go back an hour is there twice, on the day that
    they go forward one is missing. Hours that end at or before their begin go over midnight, and belong to the day on
    which they begin.

    Args:
        zone: whose clock.
        days: on which they begin, 0 for Monday.
        opens: minutes since midnight; included.
        closes: minutes since midnight, at most 24 * 60; not included.

    """

    zone: ZoneInfo
    days: frozenset[int]
    opens: int
    closes: int

    def are_open(self, at: datetime) -> bool:
        """Whether the aware time `at` is within."""
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.opens < self.closes:
            return today and self.opens <= minute < self.closes
        yesterday = (local.replace(tzinfo=None) - timedelta(days=1)).weekday() in self.days
        return (today and minute >= self.opens) or (yesterday and minute < self.closes)


def any_open(hours: Sequence[BusinessHours], at: datetime) -> bool:
    """Whether any of them are open; without hours it is always open."""
    return not hours or any(each.are_open(at) for each in hours)
