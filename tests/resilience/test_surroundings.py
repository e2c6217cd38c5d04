"""What is broken around us, or runs when nothing should: the application goes on and ends as it would without us."""

import subprocess
from pathlib import Path
from time import monotonic

import pytest

from tests.support.subprocesses import clean_environment, command, facts_of, run_python, written

SLOW = """
from datetime import datetime, timezone
def slow():
    cl.record(cl.LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))
"""


@pytest.mark.promise("internal-fault")
def test_callbacks_that_fail(tmp_path: Path) -> None:
    """Each is told with its traceback; the next callback is called, and the process ends well."""
    done = run_python(
        SLOW
        + """
called = []
def fails(alert): raise ValueError("theirs")
def leaves(alert): sys.exit(9)
def interrupts(alert): raise KeyboardInterrupt
def recurses(alert): recurses(alert)
for function in (fails, leaves, interrupts, recurses, called.append):
    cl.add_alert_callback(function)
init()
for _ in range(3): slow()
shutdown()
tell(called=len(called))
""",
        tmp_path,
    )
    assert facts_of(done) == {"called": 3}
    for name in ("fails", "leaves", "interrupts", "recurses"):
        assert done.stderr.count(f"the alert callback '{name}' raised") == 3
    assert len(written(tmp_path)) == 3


def test_a_callback_that_hangs(tmp_path: Path) -> None:
    """The file is written all the same, the exit keeps its bound, and what is unconfirmed is counted."""
    done = run_python(
        SLOW
        + """
cl.add_alert_callback(lambda alert: threading.Event().wait())
init()
for _ in range(10): slow()
until(lambda: has_delivered(10))
began_s = time.monotonic()
on_time = shutdown(timeout_s=0.5)
tell(on_time=on_time, took_s=time.monotonic() - began_s, dropped=dropped.by_reason())
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["on_time"] is False
    assert facts["took_s"] < 10, "it waits for the callback, which hangs for ever"
    assert sum(facts["dropped"].values()) >= 10
    assert len(written(tmp_path)) == 10
    assert "Fatal" not in done.stderr


def test_a_callback_that_measures_starts_and_ends(tmp_path: Path) -> None:
    """`listen()`, `get_stats()`, `init()` and `shutdown()` inside of a callback hang nowhere."""
    done = run_python(
        SLOW
        + """
def busy(alert):
    listen()
    latency_tracker.get_stats()
    init()
    called.set()
called = threading.Event()
cl.add_alert_callback(busy)
cl.add_alert_callback(lambda alert: shutdown())
init()
slow()
called.wait(60)
began_s = time.monotonic()
shutdown()
tell(called=called.is_set(), took_s=time.monotonic() - began_s)
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["called"] is True
    assert facts["took_s"] < 20, "it hangs for the 60 s that it has"
    assert {line["operation_name"] for line in written(tmp_path)} >= {"slow"}


@pytest.mark.promise("internal-fault")
def test_a_logging_handler_that_raises(tmp_path: Path) -> None:
    """A handler of the application fails on every line of ours: measurements and file are complete."""
    done = run_python(
        SLOW
        + """
import logging
class Bad(logging.Handler):
    def emit(self, record): raise RuntimeError("broken handler")
logging.getLogger().addHandler(Bad())
logging.getLogger().setLevel(logging.DEBUG)
listen()
init()
for _ in range(10): slow()
dropped.add("a reason to speak")
latency_tracker.snapshot()
cl.runtime.lifecycle._runtime.pipeline.flush(60)
listen()
shutdown()
tell(seen=len(latency_tracker.metrics))
""",
        tmp_path,
    )
    assert facts_of(done) == {"seen": 11}
    assert len(written(tmp_path)) == 11


@pytest.mark.parametrize("closed", ["stdout", "all three"])
def test_closed_standard_streams(closed: str, tmp_path: Path) -> None:
    """A daemon without standard streams measures as any other."""
    numbers = {"stdout": [1], "all three": [0, 1, 2]}[closed]
    code = f"""
for n in {numbers}: os.close(n)
init()
for _ in range(10): slow()
shutdown()
os._exit(len(latency_tracker.metrics))
"""
    done = subprocess.run(
        command(SLOW + code), cwd=tmp_path, env=clean_environment(), capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 10
    assert len(written(tmp_path)) == 10


def test_exit_while_threads_still_measure(tmp_path: Path) -> None:
    """8 daemon threads measure while the interpreter ends: no traceback, no crash, whole lines."""
    done = run_python(
        """
        def for_ever():
            while True: listen()
        init()
        for _ in range(8): threading.Thread(target=for_ever, daemon=True).start()
        until(lambda: has_delivered(1))
        keep_the_bound()
        print(time.monotonic(), flush=True)
        sys.exit(3)
        """,
        tmp_path,
    )
    assert monotonic() - float(done.stdout) < 30, "it waits for threads that never end"
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr
    assert written(tmp_path)


def test_exit_waits_for_the_applications_own_threads(tmp_path: Path) -> None:
    """What threads that are no daemons measure after the end of the main thread is complete."""
    done = run_python(
        """
        def work():
            main.join()
            for _ in range(100): listen()
        main = threading.main_thread()
        init()
        for _ in range(8): threading.Thread(target=work).start()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(written(tmp_path)) == 800


@pytest.mark.promise("callers-exception")
def test_sys_exit_and_endless_recursion_inside_a_measured_function(tmp_path: Path) -> None:
    """They are the application's own, come through unchanged, and each run that failed is told as an error."""
    done = run_python(
        """
        @measure_latency("rag_inference")
        def deep(n): return deep(n + 1)
        @measure_latency("rag_inference")
        def leave(): sys.exit(12)
        init()
        try:
            deep(0)
        except RecursionError as error:
            tell(said=str(error))
        listen()
        leave()
        """,
        tmp_path,
    )
    assert done.returncode == 12
    assert "maximum recursion depth" in done.stdout
    assert "Traceback" not in done.stderr
    lines = written(tmp_path)
    by_status = {
        name: {line["status"] for line in lines if line["operation_name"] == name} for name in ("listen", "leave")
    }
    assert by_status == {"listen": {"success"}, "leave": {"error"}}


@pytest.mark.promise("interrupted-code")
def test_measuring_from_finalizers_signals_and_exit_handlers(tmp_path: Path) -> None:
    """From a signal handler and an exit handler that runs before ours it counts; later it runs as if bare."""
    done = run_python(
        """
        ran = []
        @measure_latency("rag_inference")
        def early_handler(): ran.append("registered before")
        @measure_latency("rag_inference")
        def late_handler(): ran.append("registered after")
        @measure_latency("rag_inference")
        def in_signal(): ran.append("signal")
        @measure_latency("rag_inference")
        def in_finalizer(): ran.append("finalizer")
        class Dying:
            def __del__(self): in_finalizer()

        atexit.register(lambda: tell(ran=ran))
        atexit.register(early_handler)
        init()
        atexit.register(late_handler)
        signal.signal(signal.SIGUSR1, lambda *_: in_signal())
        for _ in range(50): os.kill(os.getpid(), signal.SIGUSR1)
        circle = Dying(); circle.itself = circle
        del circle
        import gc; gc.collect()
        kept_to_the_end = Dying()
        sys.kept_to_the_end = Dying()
        """,
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["ran"] == ["signal"] * 50 + ["finalizer", "registered after", "registered before"]
    assert done.stderr == ""
    names = [line["operation_name"] for line in written(tmp_path)]
    assert sorted(names) == ["in_finalizer"] + ["in_signal"] * 50 + ["late_handler"]


@pytest.mark.promise("interrupted-code")
def test_signals_rain_while_everything_runs(tmp_path: Path) -> None:
    """A handler that measures meets the main thread in every place, reads included: nothing hangs, nothing is lost."""
    done = run_python(
        """
        hits = []
        @measure_latency("rag_inference")
        def in_signal(): hits.append(1)
        signal.signal(signal.SIGALRM, lambda *_: in_signal())
        init()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for n in range(3_000):
            listen()
            if n % 100 == 0: latency_tracker.get_stats()
        signal.setitimer(signal.ITIMER_REAL, 0)
        on_time = shutdown()
        tell(on_time=on_time, hits=len(hits), dropped=dropped.by_reason())
        """,
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["on_time"] is True
    assert facts["dropped"] == {}
    assert facts["hits"] > 0
    assert len(written(tmp_path)) == 3_000 + facts["hits"]
