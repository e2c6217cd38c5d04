"""What only a process of its own can show: OpenTelemetry's globals, exits, signals, forks."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
LONG_S = 60.0
"""How long a test waits for what must come: longer than any machine takes."""
PATIENT = f"import callbot_latency; callbot_latency.shutdown.__defaults__ = ({LONG_S},)\n"
"""The end of the process waits so long for what is to be written, however slow the machine.

Where nothing hangs it takes no longer. `command` begins with it; the modules that other programs load need it too.
"""

T = TypeVar("T")
R = TypeVar("R")

PRELUDE = (
    """
import atexit, json, os, signal, sys, threading, time
import callbot_latency as cl
from callbot_latency import init, latency_tracker, measure_latency, measure_latency_context, shutdown
from callbot_latency.base.drop_counters import dropped

def keep_the_bound():
    '''The end of the process has its own 2 s, as without the tests.'''
    shutdown.__defaults__ = (cl.runtime.lifecycle.EXIT_TIMEOUT_S,)

def until(true):
    deadline_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline_s, "it does not come"
        time.sleep(0.005)

def has_delivered(amount, name="jsonl"):
    '''Whether this reporter has done with so many.'''
    return cl.report_manager.status()[name].delivered >= amount

def has_failed(amount, name="jsonl"):
    '''Whether it was given so many, and could not report them.'''
    status = cl.report_manager.status()[name]
    return status.accepted == amount and status.last_error is not None

@measure_latency("speech_to_text", provider="google")
def listen():
    pass

def tell(**facts):
    print("FACTS " + json.dumps(facts), flush=True)
"""
    + PATIENT
)


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the running process without any setting of ours or of OpenTelemetry, plus `environment`."""
    from callbot_latency.semconv import ENVIRONMENT

    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LATENCY_")) and name not in ENVIRONMENT
    }
    # From Python 3.12 on it warns the program that forks itself while it has threads, as ours do in tests.
    forks = {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"}
    return {**kept, **forks, "PYTHONPATH": str(ROOT), **(environment or {})}


def command(code: str) -> list[str]:
    """The command line that runs `code` after the common beginning."""
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]


def run_python(
    code: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own in the folder `cwd`; a hang fails the test."""
    return subprocess.run(
        command(code),
        cwd=cwd,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def at_once(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `function` gives for each of `items`, all of them at the same time: for processes that wait."""
    each = list(items)
    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(function, each))


def until(true: Callable[[], object], what: str = "it") -> None:
    """Wait until `true()`; the test fails where it does not come."""
    deadline_s = monotonic() + LONG_S
    while not true():
        assert monotonic() < deadline_s, f"{what} does not come"
        sleep(0.01)


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the process told by ``tell(...)``; it must have ended well."""
    assert done.returncode == 0, done.stderr
    told = [line.removeprefix("FACTS ") for line in done.stdout.splitlines() if line.startswith("FACTS ")]
    assert told, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(told[-1])
    return facts


def metrics_file(folder: Path) -> Path:
    """The default metrics file of a process that runs in `folder`."""
    return folder / "outputs" / "logs" / "latency_metrics.jsonl"


def written(folder: Path) -> list[dict[str, Any]]:
    """Every line of the default metrics file in `folder`, each of which must be whole."""
    file = metrics_file(folder)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def count_written(folder: Path) -> int:
    """How many lines stand there, also while a process writes more."""
    file = metrics_file(folder)
    return file.read_bytes().count(b"\n") if file.exists() else 0
