"""`init()` and `shutdown()`, again and again, from many threads, and beside an application's own providers."""

from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python, written

STATE = """
import gc, logging

def state():
    from callbot_latency.runtime import lifecycle as runtime
    gc.collect()
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "fds": len(fds),
        "handlers": len(logging.getLogger().handlers) + len(logging.getLogger("callbot_latency").handlers),
        "sigterm": repr(signal.getsignal(signal.SIGTERM)),
    }

def at_once(function, n=20):
    together, failed = threading.Barrier(n), []
    def run():
        together.wait()
        try:
            function()
        except BaseException as error:
            failed.append(repr(error))
    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed
"""


@pytest.mark.promise("lifecycle")
def test_twenty_threads_start_it_once(tmp_path: Path) -> None:
    """20 threads call `init()` at once, then `shutdown()`: one worker, each measurement once, nothing left."""
    done = run_python(
        STATE
        + """
failed = at_once(init)
running = state()["threads"]
for _ in range(100):
    listen()
seen = len(latency_tracker.metrics)
failed += at_once(shutdown)
tell(failed=failed, running=running, seen=seen, left=state()["threads"])
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["failed"] == []
    assert facts["running"] == sorted(
        [
            "MainThread",
            "callbot_latency.callbacks",
            "callbot_latency.deadlines",
            "callbot_latency.jsonl",
            "callbot_latency.log",
            "callbot_latency.shutdown",  # of the tracer provider
            "callbot_latency.shutdown",  # of the meter provider
            "callbot_latency.worker",
        ]
    )
    assert facts["seen"] == 100
    assert facts["left"] == ["MainThread"]
    assert len(written(tmp_path)) == 100
    assert done.stderr == ""


@pytest.mark.promise("lifecycle")
def test_init_and_shutdown_at_once_never_fail(tmp_path: Path) -> None:
    """Some threads start, some end, some measure: nothing raises, nothing hangs, and all is ended in the end."""
    done = run_python(
        STATE
        + """
import itertools
turn = itertools.count()
def one():
    n = next(turn)
    for _ in range(5):
        (init, shutdown, listen)[n % 3]()
        listen()
failed = at_once(one, 21)
ended = shutdown()
tell(failed=failed, ended=ended, left=state()["threads"])
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts == {"failed": [], "ended": True, "left": ["MainThread"]}
    assert "Traceback" not in done.stderr


@pytest.mark.promise("lifecycle", "weeks-of-running")
@pytest.mark.parametrize("exporter", ["none", "console"])
def test_the_tenth_session_is_as_the_second(exporter: str, tmp_path: Path) -> None:
    """Sessions one after another leave no thread, descriptor or handler behind, and count each measurement once."""
    done = run_python(
        STATE
        + """
from opentelemetry import trace
running, between, counted = [], [], []
for n in range(10):
    init()
    init()
    latency_tracker.reset_stats()
    listen()
    with trace.get_tracer("web").start_as_current_span("GET"):
        listen()
    counted.append(latency_tracker.get_stats()["speech_to_text/listen"]["count"])
    running.append(state())
    shutdown()
    shutdown()
    between.append(state())
tell(running=running, between=between, counted=counted)
""",
        tmp_path,
        {"OTEL_TRACES_EXPORTER": exporter},
    )
    facts = facts_of(done)
    assert facts["counted"] == [2] * 10
    # The JSONL file is opened by the lane in its own time, so a running session's descriptors are not compared.
    running = [{**each, "fds": None} for each in facts["running"]]
    assert running[1:] == [running[1]] * 9
    assert facts["between"][1:] == [facts["between"][1]] * 9
    assert facts["between"][9]["threads"] == ["MainThread"]
    assert len(written(tmp_path)) == 20
    spans = [line for line in done.stdout.splitlines() if '"name": "speech_to_text listen"' in line]
    assert len(spans) == (20 if exporter == "console" else 0)


OWN_PROVIDERS = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers, meters = TracerProvider(), MeterProvider([reader])
tracers.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)

def metric_names():
    data = reader.get_metrics_data()
    return sorted(m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics) if data else []
"""


def test_the_applications_providers_are_used_and_stay_usable(tmp_path: Path) -> None:
    """Providers set before `init()` are not replaced, take our spans and metrics once, and outlive `shutdown()`."""
    done = run_python(
        OWN_PROVIDERS
        + """
for _ in range(3):
    init()
    listen()
    shutdown()
same = trace.get_tracer_provider() is tracers and metrics.get_meter_provider() is meters
names = metric_names()
with trace.get_tracer("web").start_as_current_span("after"):
    pass
metrics.get_meter("web").create_counter("after").add(1)
tell(
    same=same, names=names, spans=[span.name for span in exporter.get_finished_spans()],
    after="after" in metric_names(),
    processors=len(tracers._active_span_processor._span_processors),
)
""",
        tmp_path,
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "prometheus"},
    )
    facts = facts_of(done)
    assert facts["same"] is True
    assert facts["spans"] == ["speech_to_text listen"] * 3 + ["after"]
    assert "callbot.operation.duration" in facts["names"]
    assert facts["after"] is True
    assert facts["processors"] == 2
    assert len(written(tmp_path)) == 3
    assert done.stderr == ""


def test_one_provider_of_the_application_beside_one_of_ours(tmp_path: Path) -> None:
    """A TracerProvider alone is used, and the MeterProvider that is missing is ours."""
    done = run_python(
        OWN_PROVIDERS.replace("metrics.set_meter_provider(meters)", "")
        + """
init()
listen()
shutdown()
tell(spans=len(exporter.get_finished_spans()), ours=type(metrics.get_meter_provider()).__name__)
""",
        tmp_path,
        {"OTEL_METRICS_EXPORTER": "console"},
    )
    facts = facts_of(done)
    assert facts["spans"] == 1
    assert "callbot.operation.duration" in done.stdout
    assert len(written(tmp_path)) == 1


@pytest.mark.parametrize("environment", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}])
def test_without_spans_everything_is_measured_all_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    """No SDK or nothing sampled: the file and the tracker hold each measurement."""
    done = run_python(
        "init()\nfor _ in range(20): listen()\ntell(seen=len(latency_tracker.metrics))", tmp_path, environment
    )
    assert facts_of(done)["seen"] == 20
    assert len(written(tmp_path)) == 20


@pytest.mark.parametrize("threads", [1, 50])
def test_measuring_before_the_start_says_once_how_to_start(threads: int, tmp_path: Path) -> None:
    """One log line however many threads measure at once; what is measured runs as if bare."""
    done = run_python(
        STATE
        + f"""
@measure_latency("rag_inference")
def ask():
    if threading.current_thread() is not threading.main_thread():
        seen.append(1)
    return 42

seen = []
sys.setswitchinterval(1e-6)
failed = at_once(ask, {threads})
answers = [ask() for _ in range(10)]
with measure_latency_context("rag_inference", "search") as handle:
    handle.set_provider("x")
with cl.call("CA1"):
    ask()
tell(failed=failed, answers=answers, ran=len(seen), threads=state()["threads"])
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts == {"failed": [], "answers": [42] * 10, "ran": threads, "threads": ["MainThread"]}
    assert done.stderr.count("callbot_latency.init()") == 1
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_thread_that_looked_before_init_does_not_switch_off(tmp_path: Path) -> None:
    """What was about to say how to start when `init()` came leaves the measuring on, and speaks once."""
    done = run_python(
        """
        from callbot_latency.measuring.active_session import active
        early = active.session
        early.open()
        init()
        early.open()
        listen()
        tell(seen=len(latency_tracker.metrics))
        """,
        tmp_path,
    )
    assert facts_of(done)["seen"] == 1
    assert done.stderr.count("callbot_latency.init()") == 1


def test_tracking_off_is_silent(tmp_path: Path) -> None:
    """LATENCY_TRACKING_ENABLED=false: no line, no file, no thread."""
    done = run_python(
        STATE + "init(); listen(); tell(**state()); shutdown()", tmp_path, {"LATENCY_TRACKING_ENABLED": "false"}
    )
    assert facts_of(done)["threads"] == ["MainThread"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
