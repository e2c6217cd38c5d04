"""Business hours, against the instants at which their days begin and end."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.alerting.rules.business_hours import MINUTES_A_DAY, BusinessHours, any_open

ZONES = ["Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
# Clocks change between 00:30 and 04:00 in these zones: hours that begin or end then are told apart below.
_OUTSIDE_OF_CHANGES = st.one_of(st.just(0), st.integers(4 * 60, MINUTES_A_DAY - 1))


def instant(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """When the clock on the wall shows so many minutes after midnight of `day`."""
    shown = datetime.combine(day, time()) + timedelta(minutes=minutes)
    return shown.replace(tzinfo=zone).astimezone(UTC)


@given(
    st.sampled_from(ZONES),
    st.sets(st.integers(0, 6), min_size=1),
    _OUTSIDE_OF_CHANGES,
    st.one_of(_OUTSIDE_OF_CHANGES, st.just(MINUTES_A_DAY)),
    st.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
)
def test_open_between_the_instants_at_which_they_begin_and_end(
    name: str, days: set[int], opens: int, closes: int, at: datetime
) -> None:
    """In any zone, on any day, over midnight and over changes of the clock."""
    if opens == closes:
        return
    zone, now = ZoneInfo(name), at.replace(tzinfo=UTC)
    today = now.astimezone(zone).date()
    expected = False
    for back in (0, 1):
        day = today - timedelta(days=back)
        if day.weekday() in days:
            ends_later = closes if closes > opens else closes + MINUTES_A_DAY
            expected |= instant(day, opens, zone) <= now < instant(day, ends_later, zone)
    assert BusinessHours(zone, frozenset(days), opens, closes).are_open(now) == expected


PARIS = ZoneInfo("Europe/Paris")
SUNDAY = frozenset({6})


@pytest.mark.parametrize(
    ("opens", "closes", "at", "expected"),
    [
        # 29 March 2026: 02:00 is followed by 03:00, at 01:00 UTC.
        (120, 180, "2026-03-29T00:59:59+00:00", False),
        (120, 180, "2026-03-29T01:00:00+00:00", False),
        (60, 180, "2026-03-29T00:59:59+00:00", True),
        (60, 180, "2026-03-29T01:00:00+00:00", False),
        # 25 October 2026: 02:00 to 03:00 is there twice, from 00:00 UTC to 02:00 UTC.
        (120, 180, "2026-10-24T23:59:59+00:00", False),
        (120, 180, "2026-10-25T00:00:00+00:00", True),
        (120, 180, "2026-10-25T01:59:59+00:00", True),
        (120, 180, "2026-10-25T02:00:00+00:00", False),
        # Over midnight: Sunday 22:00 to Monday 06:00.
        (1320, 360, "2026-06-07T19:59:59+00:00", False),
        (1320, 360, "2026-06-07T20:00:00+00:00", True),
        (1320, 360, "2026-06-08T03:59:59+00:00", True),
        (1320, 360, "2026-06-08T04:00:00+00:00", False),
        (1320, 360, "2026-06-08T20:00:00+00:00", False),
    ],
)
def test_the_clock_on_the_wall_decides(opens: int, closes: int, at: str, expected: bool) -> None:
    """A missing hour is missing, one that is there twice is open twice, a night belongs to the day it begins on."""
    assert BusinessHours(PARIS, SUNDAY, opens, closes).are_open(datetime.fromisoformat(at)) is expected


def test_several_hours_are_any_of_them_and_none_are_always() -> None:
    """A break at noon is two of them."""
    at = datetime(2026, 6, 7, 12, 30, tzinfo=UTC)
    morning, afternoon = BusinessHours(PARIS, SUNDAY, 540, 720), BusinessHours(PARIS, SUNDAY, 840, 1080)
    assert any_open([morning, afternoon], at)
    assert not any_open([morning, afternoon], at - timedelta(hours=1))
    assert any_open([], at)
