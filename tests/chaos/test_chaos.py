"""Conservation over everything at once: the example callbot under load while all that it reports to goes wrong."""

import os
import secrets

import pytest

from devservers.stack import missing_servers
from tests.chaos.plan import SERVERS
from tests.chaos.run import Run, say

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))


@pytest.mark.promise("chaos")
@pytest.mark.servers
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_nothing_is_lost_unsaid_whatever_goes_wrong(protocol: str) -> None:
    """For each way out accepted = delivered + dropped(reason) + pending, no exception, no call harmed, whole lines."""
    missing = missing_servers(SERVERS)
    if missing and os.environ.get("CALLBOT_REQUIRE_SERVERS") != "1":
        pytest.skip("\n".join(missing.values()))
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    say(f"seed {seed}: CHAOS_SEED={seed} brings the same faults again")
    assert Run(seed, SECONDS, say, protocol=protocol).judged() == []
