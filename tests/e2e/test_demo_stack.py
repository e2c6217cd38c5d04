"""`make demo-stack`: the call of the demo, and where it can be seen."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.subprocesses import ROOT, clean_environment


def test_the_call_is_shown_as_read_back_from_each_server(tmp_path: Path, binary: Callable[[str], Path]) -> None:
    """It prints trace, quantiles and counts with their addresses, stays up until Ctrl-C, and then ends well."""
    for command in ("otelcol", "jaeger", "prometheus", "influxd"):
        binary(command)
    with subprocess.Popen(
        [sys.executable, "-m", "examples.callbot.demo_stack"],
        cwd=tmp_path,
        env=clean_environment({"PYTHONPATH": str(ROOT), "COLUMNS": "120"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = []
        for line in process.stdout:
            told.append(line)
            if "Ctrl-C ends them" in line:
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0, errors
    _, _, read_back = "".join(told).partition("\nJaeger\n")
    jaeger, _, rest = read_back.partition("\nPrometheus")
    prometheus, _, influxdb = rest.partition("\nInfluxDB")
    assert jaeger.count("text_to_speech synthesize_stream") == jaeger.count("speech_to_text transcribe") + 1 > 1
    for name in ("speech_to_text/transcribe", "rag_inference/infer", "salesforce_api/find_contact"):
        assert name in prometheus
        assert name in influxdb
    assert [part.count("http://127.0.0.1:") for part in (jaeger, prometheus, influxdb)] == [1, 1, 1]


@pytest.mark.usefixtures("binary")
def test_without_servers_it_says_which(tmp_path: Path) -> None:
    """A machine that has none and can build none is told by name."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.callbot.demo_stack"],
        cwd=tmp_path,
        env=clean_environment({"PATH": str(tmp_path), "CALLBOT_STACK_CACHE": str(tmp_path / "c"), "PIP_NO_INDEX": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "put prometheus and promtool on PATH" in done.stdout
