"""Before `init()`: said once, and harmless."""

from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python

pytestmark = pytest.mark.real_time

USES = """
import asyncio, logging
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")

@measure_latency("speech_to_text")
async def alisten():
    return 2

@measure_latency("text_to_speech")
def speak():
    yield 3

def use_everything():
    assert listen() is None
    assert asyncio.run(alisten()) == 2
    assert list(speak()) == [3]
    with measure_latency_context("speech_to_text", "x") as handle:
        handle.set_provider("a"); handle.set_metadata(a=1); handle.mark_first_output()
    with cl.call("CA1") as opened:
        assert opened.trace_id is None
    cl.record(cl.LatencyMetric("speech_to_text", "x", 1, "success"))
    assert latency_tracker.get_stats() == {} and not latency_tracker.metrics
"""


def test_before_init_everything_runs_bare_and_one_line_says_what_to_do(tmp_path: Path) -> None:
    """Whatever is used first, and however often."""
    done = run_python(USES + "use_everything()\nuse_everything()\ntell(threads=threading.active_count())", tmp_path)
    assert facts_of(done) == {"threads": 1}
    assert done.stderr.count("call callbot_latency.init() once") == 1
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_each_door_says_it(tmp_path: Path) -> None:
    """Decorated function, coroutine, stream, block, call and record: whichever is first."""
    code = (
        USES
        + """
from callbot_latency.measuring.active_session import NotStartedSession, active
doors = [
    listen,
    lambda: asyncio.run(alisten()),
    lambda: list(speak()),
    lambda: measure_latency_context("speech_to_text", "x").__enter__(),
    lambda: cl.call("CA1").__enter__(),
    lambda: cl.record(cl.LatencyMetric("speech_to_text", "x", 1, "success")),
]
for door in doors:
    active.session = NotStartedSession()
    door()
tell(said_by=len(doors))
"""
    )
    done = run_python(code, tmp_path)
    assert facts_of(done) == {"said_by": done.stderr.count("callbot_latency measures nothing yet")}


def test_reading_and_importing_say_nothing(tmp_path: Path) -> None:
    """Every public name, every read: no line, thread, file or setting read."""
    code = """
    for name in cl.__all__:
        getattr(cl, name)
    latency_tracker.get_stats(), latency_tracker.get_recent_metrics(), latency_tracker.reset_stats()
    latency_tracker.enabled = True
    tell(threads=threading.active_count(), names=sorted(cl.__all__) == cl.__all__)
    """
    done = run_python(code, tmp_path, {"LATENCY_STT_WARNING_MS": "nonsense"})
    assert facts_of(done) == {"threads": 1, "names": True}
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_init_after_the_first_use_measures_from_then_on(tmp_path: Path) -> None:
    """Nothing that ran before counts, everything after does."""
    done = run_python("listen(); init(); listen(); tell(n=len(latency_tracker.metrics))", tmp_path)
    assert facts_of(done) == {"n": 1}


def test_switched_off_before_init_stays_off(tmp_path: Path) -> None:
    """And is switched on when asked."""
    code = """
    latency_tracker.enabled = False
    init()
    listen()
    off = len(latency_tracker.metrics)
    latency_tracker.enabled = True
    listen()
    tell(off=off, on=len(latency_tracker.metrics))
    """
    assert facts_of(run_python(code, tmp_path)) == {"off": 0, "on": 1}


def test_disabled_by_the_environment(tmp_path: Path) -> None:
    """LATENCY_TRACKING_ENABLED=false: no thread, no file, no provider, bare code."""
    code = """
    from opentelemetry import trace
    init()
    assert listen() is None
    with cl.call("CA1"), measure_latency_context("speech_to_text", "x") as handle:
        handle.set_provider("a")
    read = [latency_tracker.enabled]
    latency_tracker.enabled = True
    read.append(latency_tracker.enabled)
    listen()
    cl.record(cl.LatencyMetric("speech_to_text", "x", 1, "success"))
    tell(n=len(latency_tracker.metrics), threads=threading.active_count(),
         provider=type(trace.get_tracer_provider()).__name__, read=read)
    """
    done = run_python(code, tmp_path, {"LATENCY_TRACKING_ENABLED": "false"})
    assert facts_of(done) == {"n": 0, "threads": 1, "provider": "ProxyTracerProvider", "read": [False, False]}
    assert done.stderr == "tracking stays off: LATENCY_TRACKING_ENABLED is false; set it to true and start again\n"
    assert not list(tmp_path.iterdir())
