"""A finaliser or a signal handler may measure and read between any two steps of our own code, whatever is locked."""

from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python, written

# What a trace function does, it does where a signal handler or a finaliser would: on the same thread, between two
# lines, while the code that it interrupts holds what it holds. Unlike those it comes to every line that is run.
AT_EACH_LINE = """
from collections import Counter
from callbot_latency import report_manager
from callbot_latency.measuring.active_session import active

OURS = os.path.dirname(cl.__file__)
entered, places, limit = [], Counter(), 0

@measure_latency("rag_inference")
def in_between(): pass

in_between()  # says that measuring has not begun, once

def at_each_line(frame, event, arg):
    place = frame.f_code, frame.f_lineno
    if event == "line" and places[place] < limit:
        places[place] += 1
        entered.append(active.session is not None)
        in_between()
        dropped.by_reason()
        if len(entered) % 7 == 0: latency_tracker.get_stats()
    return at_each_line

def watch(frame, event, arg):
    return at_each_line if frame.f_code.co_filename.startswith(OURS) else None
"""


def lines_of(name: str, folder: Path) -> int:
    """How many lines of the file tell of this operation."""
    return sum(line.get("operation_name") == name for line in written(folder))


@pytest.mark.promise("interrupted-code")
@pytest.mark.timeout(300)
def test_the_main_thread_may_be_interrupted_at_each_line(tmp_path: Path) -> None:
    """Ten times each, in all that an application calls: nothing hangs, each measurement stands in the file once."""
    done = run_python(
        AT_EACH_LINE
        + """
class Kept:
    def report(self, batch): pass

@measure_latency("text_to_speech")
def speak():
    yield b"."
    yield b"."

dropped.add("a_reason")
limit = 10
for _ in range(10):
    sys.settrace(watch)
    init()
    with cl.call("CA1"), cl.turn() as current:
        current.speech_ended()
        listen()
        list(speak())
        with measure_latency_context("rag_inference", "ask") as handle, cl.attempt("google"):
            handle.set_metadata(a=1)
        current.audio_sent()
    cl.record(cl.LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))
    report_manager.add_reporter(kept := Kept())
    cl.add_alert_callback(str)
    latency_tracker.get_stats(), latency_tracker.get_turns(), latency_tracker.get_call("CA1")
    latency_tracker.export_metrics("out.json")
    latency_tracker.metrics.clear()
    report_manager.status(), dropped.by_reason()
    report_manager.remove_reporter(kept, timeout_s=60)
    shutdown(timeout_s=60)
    sys.settrace(None)
tell(entered=len(entered), measured=sum(entered), places=len(places), dropped=dropped.by_reason())
""",
        tmp_path,
        timeout_s=280,
    )
    facts = facts_of(done)
    assert facts["entered"] > 10_000
    # What is handed to a reporter that is just being removed is nobody's fault, and is counted.
    elsewhere = {reason: n for reason, n in facts["dropped"].items() if not reason.startswith("kept_")}
    assert elsewhere == {"a_reason": 1}, done.stderr
    assert facts["places"] > 1_000
    assert lines_of("in_between", tmp_path) == facts["measured"] > 5_000
    assert lines_of("listen", tmp_path) == 10
    assert "Traceback" not in done.stderr


@pytest.mark.promise("interrupted-code")
@pytest.mark.timeout(300)
def test_our_own_threads_may_be_interrupted_at_each_line(tmp_path: Path) -> None:
    """Where finalisers may run: a hundred times each line of worker, lanes and deadlines, whatever they hold."""
    done = run_python(
        AT_EACH_LINE
        + """
dropped.add("a_reason")
threading.settrace(watch)
init()
count, limit, deadline_s = 0, 100, time.monotonic() + 200
while len(entered) < 10_000 and time.monotonic() < deadline_s:
    listen()
    count += 1
    threading.Event().wait(0.001)
limit = 0
ended = cl.runtime.lifecycle._runtime.pipeline.flush(60)
tell(
    entered=len(entered), measured=sum(entered), ended=ended and shutdown(timeout_s=60), count=count,
    places=len(places), dropped=dropped.by_reason(),
)
""",
        tmp_path,
        timeout_s=280,
    )
    facts = facts_of(done)
    assert facts["entered"] >= 10_000
    assert facts["ended"] is True
    assert facts["dropped"] == {"a_reason": 1}
    assert facts["places"] > 100
    assert lines_of("in_between", tmp_path) == facts["measured"] > 9_000
    assert lines_of("listen", tmp_path) == facts["count"]
    ids = [line["span_id"] for line in written(tmp_path)]
    assert len(set(ids)) == len(ids)
    assert "Traceback" not in done.stderr
