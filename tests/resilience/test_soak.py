"""Weeks of calls leave nothing: memory, threads and descriptors stay, and no measurement lives on in a task.

``SOAK_TURNS`` makes it longer, such as 1000000, where each call has a call_sid of its own and fills every table.
"""

import os
from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python

TURNS = int(os.environ.get("SOAK_TURNS", "5000"))
IS_LONG = TURNS >= 200_000
"""Then the first 100,000 turns are of 10,000 calls, as many as are remembered."""
SECONDS = 300 + TURNS // 100
NOISE = 200
BLOCKS_A_KB = 16
"""Python's blocks are of 64 bytes on the average here; a leak of anything is of blocks."""


@pytest.mark.promise("weeks-of-running")
@pytest.mark.timeout(SECONDS + 20)
def test_calls_without_end_leave_nothing(tmp_path: Path) -> None:
    """At most 1 kB in 10,000 turns; threads and descriptors are constant; of all measurements, 0 live in their task."""
    warm_up, calls = (100_000, None) if IS_LONG else (1_500, 100)
    done = run_python(
        f"from tests.resilience.soak import run; tell(**run({TURNS}, {warm_up}, {calls}))",
        tmp_path,
        {"LATENCY_LOGGING_ENABLED": "false"},
        timeout_s=SECONDS,
    )
    facts = facts_of(done)
    blocks = facts["blocks"]
    print([each - blocks[0] for each in blocks], facts)  # noqa: T201 - shown by -rP
    assert facts["watched"] >= TURNS
    assert facts["alive"] == [0] * len(blocks)
    assert blocks[-1] - blocks[0] <= NOISE + TURNS / 10_000 * BLOCKS_A_KB
    assert len(set(facts["threads"])) == 1
    assert max(facts["fds"]) == facts["fds"][0]
    assert facts["dropped"] == {}
    assert facts["ended"] is True
