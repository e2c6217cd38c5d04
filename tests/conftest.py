"""What every test has: faults of ours raise, no setting of the machine is read, no context is left behind."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callbot_latency import LatencyConfig, call, init, latency_tracker, shutdown
from callbot_latency.alerting.callbacks import callbacks
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.model.operation import _registered
from callbot_latency.runtime import lifecycle as runtime_module
from callbot_latency.semconv import ENVIRONMENT
from tests.support.clock import Clock

# Where the suite runs in the background of a shell, SIGINT is ignored, by the processes that it starts too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_TIME_FOLDERS = {"accuracy", "e2e", "resilience"}
# How hard the tests of properties look: without a deadline, since a machine may be busy with something else.
settings.register_profile(
    "callbot_latency", max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("callbot_latency")

Start = Callable[..., LatencyConfig]
FinishedSpans = Callable[[], Sequence[ReadableSpan]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that wait in real time, and say which tests run on the same worker.

    The tests that use the servers of `make stack` share one worker, and so do the tests of a file, for the sake of its
    fixtures. A test in real time runs wherever there is room. The longest ones begin first.
    """
    for item in items:
        if item.path.parent.name in REAL_TIME_FOLDERS or item.get_closest_marker("servers"):
            item.add_marker("real_time")
        if item.get_closest_marker("xdist_group") is None:
            if "stack" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group("stack"))
            elif item.get_closest_marker("real_time") is None:
                item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=_start_rank)


def _start_rank(item: pytest.Item) -> int:
    if item.get_closest_marker("servers"):
        return 0
    group = item.get_closest_marker("xdist_group")
    if group is not None and group.args == ("stack",):
        return 1
    return 2 if item.get_closest_marker("real_time") else 3


@pytest.fixture(autouse=True)
def _faults_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours fails the test instead of being contained."""
    monkeypatch.setattr(raise_internal_errors, "enabled", True)


@pytest.fixture
def faults_contained(_faults_raise: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for users: a fault of ours, or of a reporter, is held and counted."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _no_leaked_context() -> Iterator[None]:
    """After each test no span is current, and OpenTelemetry failed to detach none."""
    logger, told = logging.getLogger("opentelemetry.context"), _Records()
    logger.addHandler(told)
    try:
        yield
    finally:
        logger.removeHandler(told)
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left current"
    assert not told.records, [record.getMessage() for record in told.records]


@pytest.fixture
def fresh_types() -> Iterator[None]:
    """Operation types that the test registers are forgotten after it."""
    before = dict(_registered)
    try:
        yield
    finally:
        _registered.clear()
        _registered.update(before)


@pytest.fixture
def fresh_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No alert callback is registered, and those that the test registers are forgotten after it."""
    monkeypatch.setattr(callbacks, "_functions", ())


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long our threads slept where they give way, by a clock that stands still but for these sleeps."""
    asked: list[float] = []
    monkeypatch.setattr("callbot_latency.base.pacing.sleep", asked.append)
    monkeypatch.setattr("callbot_latency.base.pacing.monotonic", lambda: sum(asked))
    return asked


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting from the environment, none from a ``.env`` file; gives the empty folder that is the working one."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "LATENCY_")) or name in ENVIRONMENT:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(isolated: Path) -> Iterator[Start]:
    """``start(**settings)`` begins to measure with these settings, and returns them; ended after the test."""

    def begin(**settings: Any) -> LatencyConfig:
        config = LatencyConfig(**{"metrics_file_path": isolated / "metrics.jsonl", **settings})
        latency_tracker.reset_stats()
        init(config)
        return config

    try:
        yield begin
    finally:
        shutdown()
        latency_tracker.enabled = True
        latency_tracker.reset_stats()


@pytest.fixture
def measuring(start: Start) -> LatencyConfig:
    """Measuring is on, with the default settings and a metrics file in the test's folder."""
    return start()


@pytest.fixture
def spans(measuring: LatencyConfig) -> FinishedSpans:
    """``spans()`` gives the spans that have ended, in that order."""
    exporter = InMemorySpanExporter()
    running = runtime_module._runtime
    assert running is not None
    tracers: Any = running.providers.tracers
    # Past our provider's own method, after which spans would be started in another way than usual.
    TracerProvider.add_span_processor(tracers, SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


def ticking(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of operations and turns, from now on."""
    clock = Clock()
    for module in ("measuring.session", "measuring.measurement", "calls.call_timeline", "calls.turn_state"):
        monkeypatch.setattr(f"callbot_latency.{module}.perf_counter_ns", clock)
    return clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, measuring: LatencyConfig) -> Iterator[Clock]:
    """In a call, CA1, the time of operations and turns is what the test says."""
    clock = ticking(monkeypatch)
    with call("CA1", stream_sid="MZ1") as bound:
        clock.timeline = bound.timeline  # type: ignore[attr-defined]
        yield clock
