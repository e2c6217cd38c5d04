"""What the tests of deliveries share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from callbot_latency.delivery.lane import CAPACITY, Lane
from tests.support.lanes import QUICK, Intervals, Reporter


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    reporter = Reporter()
    yield reporter
    reporter.may_go.set()


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> Intervals:
    return Intervals(monkeypatch)


@pytest.fixture
def lane_of() -> Iterator[Callable[..., Lane]]:
    """``lane_of(reporter, ...)`` gives a lane that is started, and closed after the test."""
    made: list[Lane] = []

    def build(reporter: Any, name: str = "lane", capacity: int = CAPACITY, **kwargs: Any) -> Lane:
        lane = Lane(name, reporter, capacity, **{"retry": QUICK, **kwargs})
        made.append(lane)
        lane.start()
        return lane

    yield build
    for lane in made:
        lane.close(60)
