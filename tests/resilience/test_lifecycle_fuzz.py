"""Start, stop, flush, fork, garbage, reporters that come and go, and measuring: at random, from a hundred threads.

``FUZZ_SECONDS`` makes it longer, ``FUZZ_SEED`` plays what a run that failed has printed once more: the same steps of
each thread, though not the same interleaving.
"""

import os
import secrets
from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python

SECONDS = float(os.environ.get("FUZZ_SECONDS", "6"))
SEED = os.environ.get("FUZZ_SEED") or secrets.token_hex(4)


@pytest.mark.promise("lifecycle")
@pytest.mark.timeout(SECONDS + 420)
def test_whatever_a_hundred_threads_do_nothing_raises_hangs_or_stays_behind(tmp_path: Path) -> None:
    """0 exceptions, 0 hangs, in the children that are forked too; threads and descriptors are as before."""
    print(f"FUZZ_SEED={SEED} FUZZ_SECONDS={SECONDS}")  # noqa: T201 - shown where it fails
    done = run_python(
        f"from tests.resilience.lifecycle import run; tell(**run({SEED!r}, {SECONDS}))",
        tmp_path,
        timeout_s=SECONDS + 400,
    )
    facts = facts_of(done)
    print(facts["done"], facts["dropped"])  # noqa: T201 - shown by -rP
    assert facts["faults"] == [], done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Failed to detach" not in done.stderr
    assert facts["after"] == facts["before"]
    assert "internal_error" not in facts["dropped"], done.stderr
    assert facts["done"]["forked"] > 0
    assert sum(facts["done"].values()) > 1_000
