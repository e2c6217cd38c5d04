"""SIGKILL in the middle of writing, a hundred times: what was written stays, and half a line takes no other along."""

import json
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from callbot_latency.reporters.rotation import backups_of
from tests.support.rotated import lines_of
from tests.support.subprocesses import facts_of, run_python

KILLS = 100
WRITERS = 3
BATCH = 10

NURSERY = """
import random
from pathlib import Path
from callbot_latency.reporters.jsonl import JsonlReporter

def write(mouth, max_mb):
    reporter = JsonlReporter(Path("m.jsonl"), max_mb=max_mb, backups=10_000)
    reporter.start()
    for n in range(0, 1_000_000, BATCH):
        name, said = f"p{os.getpid()}", {"said": "x" * 6_000}
        reporter.report([
            cl.LatencyMetric("speech_to_text", name, k, "success", metadata=said) for k in range(n, n + BATCH)
        ])
        os.write(mouth, f"{n}\\n".encode())
        time.sleep(0.001)

def born(max_mb):
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ear)
        write(mouth, max_mb)
    os.close(mouth)
    return pid, os.fdopen(ear)

def killed(pid, told):
    lines = [told.readline() for _ in range(random.randint(1, 4))]
    time.sleep(random.uniform(0, 0.003))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with told:
        lines += told.readlines()
    return int(lines[-1]) + BATCH

random.seed(SEED)
alive, told_of = [born(MAX_MB) for _ in range(WRITERS)], {}
for left in range(KILLS, 0, -1):
    pid, told = alive.pop(0)
    told_of[f"p{pid}"] = killed(pid, told)
    if left > WRITERS:
        alive.append(born(MAX_MB))
tell(told_of=told_of)
"""


@pytest.mark.promise("killed-process")
@pytest.mark.parametrize("max_mb", [0, 1], ids=["one file", "rotating"])
def test_a_hundred_writers_are_killed_in_the_middle_of_it(max_mb: float, tmp_path: Path) -> None:
    """Three at a time, 60 kB a write: every line that a writer had written is there once, whoever writes after it."""
    names = {"KILLS": KILLS, "WRITERS": WRITERS, "BATCH": BATCH, "MAX_MB": max_mb, "SEED": 16}
    setting = "".join(f"{name} = {value}\n" for name, value in names.items())
    told_of = facts_of(run_python(setting + NURSERY, tmp_path, timeout_s=115))["told_of"]
    assert len(told_of) == KILLS

    path, rows, torn = tmp_path / "m.jsonl", list[Any](), list[str]()
    for line in lines_of(path):
        torn.append(line)
        with suppress(ValueError):
            rows.append(json.loads(line))
            torn.pop()
    found = Counter((row["operation_name"], row["latency_ms"]) for row in rows)
    assert set(found.values()) == {1}
    lost = [(name, n) for name, written in told_of.items() for n in range(written) if (name, n) not in found]
    sys.stdout.write(f"{len(rows)} lines, {len(torn)} torn of {KILLS} kills, {len(backups_of(path))} moved aside\n")
    assert lost == []
    # Half a line is the beginning of one, on a line of its own.
    assert len(torn) <= KILLS
    assert all(line.startswith("{") and line.count("operation_name") <= 1 for line in torn)
    assert bool(backups_of(path)) == bool(max_mb)
