"""What only a process of its own can show: OpenTelemetry's globals, exits, signals, forks."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PRELUDE = """
import atexit, json, os, signal, sys, threading, time
import callbot_latency as cl
from callbot_latency import init, latency_tracker, measure_latency, measure_latency_context, shutdown
from callbot_latency.drops import dropped

@measure_latency("speech_to_text", provider="google")
def listen():
    pass

def tell(**facts):
    print("FACTS " + json.dumps(facts), flush=True)
"""


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
    code: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 30
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


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the process told by ``tell(...)``; it must have ended well."""
    assert done.returncode == 0, done.stderr
    told = [line.removeprefix("FACTS ") for line in done.stdout.splitlines() if line.startswith("FACTS ")]
    assert told, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(told[-1])
    return facts


def written(folder: Path) -> list[dict[str, Any]]:
    """Every line of the default metrics file beneath `folder`, each of which must be whole."""
    file = folder / "outputs" / "logs" / "latency_metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
