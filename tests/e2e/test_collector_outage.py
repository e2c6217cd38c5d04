"""The Collector is killed in the middle of a run and started again: nothing that was measured is lost."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devservers.stack import Stack
from tests.e2e.reading import counted_by_prometheus, counted_in_file, eventually, operations, search_spans
from tests.support.subprocesses import clean_environment, command

# Each line on stdin is a phase: so many operations, sent as far as a server takes them.
CODE = """
from opentelemetry import trace
init()
for line in sys.stdin:
    phase, count, flush = line.split()
    for _ in range(int(count)):
        with measure_latency_context("speech_to_text", phase, provider="google"):
            pass
    if flush == "flush":
        assert trace.get_tracer_provider().force_flush()
    print("done " + phase, flush=True)
assert shutdown(60)
"""
EACH = 200


class Bot:
    """A process that measures, phase by phase."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.service = f"callbot-{uuid.uuid4().hex[:8]}"
        self.file = folder / "metrics.jsonl"
        settings = {
            **stack.environment(),
            "OTEL_SERVICE_NAME": self.service,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
            "LATENCY_METRICS_FILE_PATH": str(self.file),
        }
        self.process = subprocess.Popen(
            command(CODE),
            cwd=folder,
            env=clean_environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, phase: str, *, flush: bool = False) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{phase} {EACH} {'flush' if flush else 'no'}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"done {phase}\n"


@pytest.fixture
def bot(stack: Stack, tmp_path: Path) -> Iterator[Bot]:
    running = Bot(stack, tmp_path)
    with running.process:
        yield running
        running.process.kill()


@pytest.mark.promise("outage")
def test_what_the_collector_had_on_disk_arrives_after_it_was_killed(stack: Stack, bot: Bot) -> None:
    """Before, during and after the outage: every span in Jaeger, every count in Prometheus, every line in the file."""
    stack.kill("jaeger")
    bot.measure("queued", flush=True)  # accepted by the Collector, on its disk since Jaeger is gone
    stack.kill("collector")
    bot.measure("meanwhile")  # waits in the SDK
    stack.start("jaeger")
    stack.start("collector")
    bot.measure("afterwards")
    bot.process.communicate(timeout=200)
    assert bot.process.returncode == 0

    wanted = counted_in_file(bot.file)
    assert set(wanted.values()) == {EACH}
    assert {name for _, name, _, _ in wanted} == {"queued", "meanwhile", "afterwards"}

    def arrived() -> None:
        assert operations(search_spans(stack, bot.service)) == wanted
        assert counted_by_prometheus(stack, bot.service) == wanted

    eventually(arrived, 100)
