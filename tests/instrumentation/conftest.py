"""What every test of an instrumentor has: a server to speak to, and clients that are as they were afterwards."""

from collections.abc import Iterator
from time import perf_counter_ns

import pytest

from callbot_latency import uninstrument
from tests.support.scripted_http import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server with scripted answers."""
    with serving() as running:
        yield running


@pytest.fixture
def reads_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When streams read the clock, in seconds of it."""
    reads: list[float] = []

    def read() -> int:
        now_ns = perf_counter_ns()
        reads.append(now_ns / 1e9)
        return now_ns

    monkeypatch.setattr("callbot_latency.measuring.generators.perf_counter_ns", read)
    return reads


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    uninstrument()
