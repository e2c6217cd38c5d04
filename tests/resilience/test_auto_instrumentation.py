"""`opentelemetry-instrument python app.py` starts the measuring by the package's entry point."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.subprocesses import clean_environment, written

APP = """
from callbot_latency import measure_latency, shutdown

@measure_latency("speech_to_text", provider="google")
def listen():
    pass

shutdown.__defaults__ = (60.0,)  # however slow the machine
for _ in range(5):
    listen()
print("the application ran")
"""


def run_instrumented(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the application of `folder`, which never calls `init()`."""
    (folder / "app.py").write_text(APP)
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    quiet = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    return subprocess.run(
        [instrument, sys.executable, "app.py"],
        cwd=folder,
        env=clean_environment({**quiet, **environment}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_starts_without_a_line_of_code(tmp_path: Path) -> None:
    """Each measurement stands in the file."""
    done = run_instrumented(tmp_path, {})
    assert (done.returncode, done.stdout) == (0, "the application ran\n"), done.stderr
    assert "callbot_latency" not in done.stderr
    assert len(written(tmp_path)) == 5


def test_the_spans_go_where_the_distro_sends_them(tmp_path: Path) -> None:
    """OTEL_TRACES_EXPORTER=console: each of our spans once."""
    done = run_instrumented(tmp_path, {"OTEL_TRACES_EXPORTER": "console"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"name": "speech_to_text listen"') == 5
    assert len(written(tmp_path)) == 5


@pytest.mark.promise("wrong-settings")
def test_a_bad_setting_turns_tracking_off_with_one_line(tmp_path: Path) -> None:
    """The line names the variable; the application runs as if bare."""
    done = run_instrumented(tmp_path, {"LATENCY_STT_WARNING_MS": "abc"})
    assert (done.returncode, done.stdout) == (0, "the application ran\n")
    told = [line for line in done.stderr.splitlines() if "callbot_latency" in line]
    assert len(told) == 1
    assert "LATENCY_STT_WARNING_MS" in told[0]
    assert "Traceback" not in done.stderr
    assert written(tmp_path) == []


def test_tracking_off_is_silent(tmp_path: Path) -> None:
    """LATENCY_TRACKING_ENABLED=false."""
    done = run_instrumented(tmp_path, {"LATENCY_TRACKING_ENABLED": "false"})
    assert (done.returncode, done.stdout) == (0, "the application ran\n")
    assert "callbot_latency" not in done.stderr
    assert written(tmp_path) == []
