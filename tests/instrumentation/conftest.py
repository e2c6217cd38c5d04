"""What every test of an instrumentor has: a server to speak to, and clients that are as they were afterwards."""

from collections.abc import Iterator

import pytest

from callbot_latency import uninstrument

from .http_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server with scripted answers."""
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    uninstrument()
