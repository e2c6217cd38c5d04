"""`make demo-stack`: the call of the demo, and where it can be seen."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.callbot import demo_stack
from tests.support.subprocesses import ROOT, clean_environment


def test_the_call_is_shown_as_read_back_from_each_server(tmp_path: Path, binary: Callable[[str], Path]) -> None:
    """The alert as it fires, then trace, quantiles and counts with their addresses; it stays up until Ctrl-C."""
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
        told: list[str] = []
        for line in process.stdout:
            told.append(line)
            if "find_order still runs after" in line:
                # While the caller waits: the bot has not answered yet.
                assert not any("bot: Your order" in earlier for earlier in told)
            if "Ctrl-C ends them" in line:
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0, errors
    _, _, read_back = "".join(told).partition("\nJaeger\n")
    jaeger, _, rest = read_back.partition("\nPrometheus")
    prometheus, _, influxdb = rest.partition("\nInfluxDB")
    # The greeting and "one moment please" besides an answer to each question; the latter waits for Salesforce.
    transcribed = jaeger.count("speech_to_text transcribe") - jaeger.count("speech_to_text transcribe.attempt")
    assert jaeger.count("text_to_speech synthesize_stream") == transcribed + 2 > 2
    assert "speech_to_text transcribe.attempt" in jaeger
    [find_order] = (n for n, line in enumerate(jaeger.splitlines()) if "salesforce_api find_order" in line)
    assert "│   └── text_to_speech synthesize_stream" in jaeger.splitlines()[find_order + 1]
    assert sum("find_order still runs after 15" in line for line in told) == 1
    for name in ("speech_to_text/transcribe", "rag_inference/infer", "salesforce_api/find_contact"):
        assert name in prometheus
        assert name in influxdb
    assert [part.count("http://127.0.0.1:") for part in (jaeger, prometheus, influxdb)] == [1, 2, 1]
    _, _, waited_for = prometheus.partition("what the caller waited for")
    for part in ("endpointing", "rag_inference", "salesforce_api", "twilio_buffer"):
        assert f"  {part} " in waited_for
    assert jaeger.count("── turn ") == transcribed


@pytest.mark.usefixtures("binary")
def test_without_servers_it_says_which(tmp_path: Path) -> None:
    """A machine that has none and can build none is told by name."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.callbot.demo_stack"],
        cwd=tmp_path,
        env=clean_environment({"PATH": str(tmp_path), "CALLBOT_STACK_CACHE": str(tmp_path / "c"), "PIP_NO_INDEX": "1"}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1
    assert "put prometheus and promtool on PATH" in done.stdout


@pytest.mark.parametrize(("given", "told"), [("twilio=4s", "expected one of rag, salesforce"), ("rag=4", "rag=900ms")])
def test_a_bad_option_starts_no_server(given: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what can be slow, and ends with 2."""
    with pytest.raises(SystemExit) as stopped:
        demo_stack.main(["--slow", given])
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert told in output.err
    assert output.out == ""
