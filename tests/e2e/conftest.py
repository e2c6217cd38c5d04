"""The real servers: started once for all tests of this folder, their logs shown when a test fails."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devservers import servers
from devservers.stack import Stack, missing_servers

REQUIRED = os.environ.get("CALLBOT_REQUIRE_SERVERS") == "1"


def _without(reason: str) -> None:
    """Say by name what is missing: a failure where the servers are required, else a skip."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def binary() -> Callable[[str], Path]:
    """``binary("otelcol")`` is the path of a command; where it is missing, the test is skipped or fails."""

    def path_of(command: str) -> Path:
        try:
            return servers.binary(command)
        except servers.MissingServerError as missing:
            _without(str(missing))
            raise

    return path_of


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every server of `make stack`, running."""
    missing = missing_servers()
    if missing:
        _without("\n".join(missing.values()))
    with Stack(folder=tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    running = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(running, Stack):
        report.sections.extend((f"end of {log}", end) for log, end in running.log_ends().items())
    return report
