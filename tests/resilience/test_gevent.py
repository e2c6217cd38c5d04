"""Monkey-patched by gevent before we are imported: our threads are greenlets then, and hold up none of the others.

With a server, gunicorn's, in test_gunicorn.py.
"""

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

from tests.support.subprocesses import ROOT, facts_of, run_python, written

PATCH = "from gevent import monkey; monkey.patch_all()"


def run_patched(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a process of its own that is patched before anything else."""
    (cwd / "sitecustomize.py").write_text(PATCH)
    paths = {"PYTHONPATH": f"{cwd}{os.pathsep}{ROOT}"}
    return run_python("import gevent, gevent.event\n" + code, cwd, paths, timeout_s=115)


@pytest.mark.promise("workers")
def test_greenlets_measure_each_its_own_call(tmp_path: Path) -> None:
    """100 calls take turns at every operation: each line has its own call's id, none is lost; the end waits for it."""
    done = run_patched(
        """
assert threading.Thread.__module__ == "gevent.threading"
init()
def answers(n):
    with cl.call(f"CA{n:032d}"):
        for _ in range(10):
            with measure_latency_context("rag_inference", "outer", metadata={"call": n}):
                gevent.sleep(0.001)
                with measure_latency_context("rag_inference", "inner", metadata={"call": n}):
                    gevent.sleep(0)
gevent.joinall([gevent.spawn(answers, n) for n in range(100)], raise_error=True)
tell(ended=shutdown())
""",
        tmp_path,
    )
    assert facts_of(done) == {"ended": True}
    assert done.stderr == ""
    lines = written(tmp_path)
    assert Counter(line["operation_name"] for line in lines) == {"outer": 1000, "inner": 1000}
    assert all(line["call_sid"] == f"CA{line['metadata']['call']:032d}" for line in lines)
    assert len({line["trace_id"] for line in lines}) == 100
    assert len({line["span_id"] for line in lines}) == 2000


@pytest.mark.promise("workers")
def test_the_worker_lets_other_greenlets_run(tmp_path: Path) -> None:
    """3,000 measurements wait at once; while they are converted, 100 at a time, another greenlet has its turns."""
    done = run_patched(
        """
init()
turns = 0
def others():
    global turns
    while True:
        turns += 1
        gevent.sleep(0)
gevent.spawn(others)
for _ in range(3000): listen()
before = turns
flushed = cl.runtime.lifecycle._runtime.pipeline.flush(60)
tell(flushed=flushed, turns=turns - before)
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["flushed"]
    assert facts["turns"] >= 29
    assert len(written(tmp_path)) == 3000


@pytest.mark.promise("workers")
def test_a_reporter_that_hangs_holds_up_neither_greenlets_nor_the_end(tmp_path: Path) -> None:
    """It waits for 1,000 s as greenlets do; everything else goes on, and the process ends within its bound."""
    done = run_patched(
        """
hangs = threading.Event()
class Hanging:
    def report(self, batch):
        hangs.set()
        time.sleep(1_000)
init()
cl.report_manager.add_reporter(Hanging())
listen()
assert hangs.wait(60)
for _ in range(100): listen()
until(lambda: has_delivered(101))
keep_the_bound()
tell(last_line_s=time.monotonic())
""",
        tmp_path,
    )
    ended_s = monotonic()
    assert ended_s - facts_of(done)["last_line_s"] < 10
    assert len(written(tmp_path)) == 101


@pytest.mark.promise("workers")
def test_forks_of_a_patched_process(tmp_path: Path) -> None:
    """Greenlets go along with a fork, ours too: all the same parent and children tell each of theirs once."""
    done = run_patched(
        """
init()
codes = []
for n in range(10):
    for _ in range(20): listen()
    child = os.fork()
    if child == 0:
        for k in range(20):
            with measure_latency_context("rag_inference", "in_child"): gevent.sleep(0)
        sys.exit(0 if shutdown(timeout_s=60) else 8)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
tell(codes=codes)
""",
        tmp_path,
    )
    assert facts_of(done) == {"codes": [0] * 10}
    assert done.stderr == ""
    lines = written(tmp_path)
    assert Counter(line["operation_name"] for line in lines) == {"listen": 200, "in_child": 200}
    assert len({line["span_id"] for line in lines}) == 400


@pytest.mark.promise("workers")
def test_a_fork_amid_a_report_leaves_the_child_its_own_counts(tmp_path: Path) -> None:
    """The greenlet goes on in the child, out of its I/O: it settles nothing there, and takes nothing of the child's."""
    done = run_patched(
        """
class Slow:
    def __init__(self):
        self.began, self.may_go, self.seen = threading.Event(), threading.Event(), []
    def report(self, batch):
        self.seen.append((os.getpid(), len(batch)))
        self.thread = self.thread if self.began.is_set() else threading.current_thread()
        self.began.set()
        self.may_go.wait(100)
init()
slow = Slow()
cl.report_manager.add_reporter(slow, name="slow")
for _ in range(7): listen()
assert slow.began.wait(60)
child = os.fork()
slow.may_go.set()
if child == 0:
    slow.thread.join(60)
    alive = slow.thread.is_alive()
for _ in range(3): listen()
flushed = cl.runtime.lifecycle._runtime.pipeline.flush(60)
status = cl.report_manager.status()["slow"]
counts = [status.accepted, status.delivered, status.pending, sum(n for pid, n in slow.seen if pid == os.getpid())]
if child == 0:
    tell(alive=alive, flushed=flushed, counts=counts)
    os._exit(0 if shutdown(60) else 8)
print("PARENT", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flushed, *counts)
""",
        tmp_path,
    )
    assert facts_of(done) == {"alive": False, "flushed": True, "counts": [3, 3, 0, 3]}
    assert "PARENT 0 True 10 10 0 10" in done.stdout
    assert len(written(tmp_path)) == 13


@pytest.mark.promise("workers")
def test_forks_while_the_file_is_written_write_no_line_twice(tmp_path: Path) -> None:
    """The file's greenlet goes along: what it has in hand is the parent's, wherever it is with it."""
    done = run_patched(
        """
init()
def ask(name):
    with measure_latency_context("rag_inference", "ask", metadata={"name": name}): pass
for n in range(1000): ask(f"parent{n}")
children = []
for n in range(6):
    gevent.sleep(0.02)
    child = os.fork()
    if child == 0:
        ask(f"child{n}")
        gevent.sleep(0.3)
        os._exit(0 if shutdown(60) else 8)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
tell(codes=codes, ended=shutdown(60))
""",
        tmp_path,
    )
    assert facts_of(done) == {"codes": [0] * 6, "ended": True}
    names = sorted(row["metadata"]["name"] for row in written(tmp_path))
    assert names == sorted([f"parent{n}" for n in range(1000)] + [f"child{n}" for n in range(6)])


@pytest.mark.promise("workers")
def test_sigterm_writes_what_waits(tmp_path: Path) -> None:
    """The handler runs in gevent's own loop, where nothing may wait: the process ends by the signal all the same."""
    done = run_patched(
        """
init()
for _ in range(100): listen()
gevent.spawn_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(100)
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert len(written(tmp_path)) == 100


@pytest.mark.promise("workers")
def test_the_applications_sigterm_handler_runs(tmp_path: Path) -> None:
    """Its handler was there first; it ends the program as it likes, and nothing is lost."""
    done = run_patched(
        """
over = gevent.event.AsyncResult()
signal.signal(signal.SIGTERM, lambda *_: over.set(7))
init()
for _ in range(100): listen()
gevent.spawn_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
sys.exit(over.get(timeout=100))
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert len(written(tmp_path)) == 100
