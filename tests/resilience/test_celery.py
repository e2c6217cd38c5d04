"""A real Celery worker with its prefork pool: each task's measurement stands in the file, once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.support.subprocesses import LONG_S, PATIENT, ROOT, clean_environment, metrics_file, written

TASKS = """
import os, time
from pathlib import Path
from celery import Celery
from callbot_latency import init, measure_latency_context
%s
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(Path("queue").absolute()),
    "data_folder_out": str(Path("sent").absolute()),
    "control_folder": str(Path("control").absolute()),
    "polling_interval": 0.02,
}
app.conf.broker_connection_retry_on_startup = True
init()

@app.task
def stay():
    with open("staying", "w") as staying:
        staying.write(f"{os.getpid()}\\n")
    time.sleep(60)

@app.task
def answer(n):
    with measure_latency_context("rag_inference", "answer", metadata={"task": n, "pid": os.getpid()}):
        pass
    with open("done", "a") as done:
        done.write(f"{n}\\n")
"""
SEND = """
import os, tasks
def put_aside(name):
    os.mkdir(name)
    for message in os.listdir("sent"): os.rename(f"sent/{message}", f"{name}/{message}")
for n in range(30): tasks.answer.delay(n)
put_aside("first")
tasks.stay.delay()
put_aside("second")
for n in range(30, 110): tasks.answer.delay(n)
put_aside("third")
"""
WORKER = "-m celery -A tasks worker --pool=prefork --concurrency=3 --max-tasks-per-child=25 --loglevel=INFO"
QUIET = "--without-gossip --without-mingle --without-heartbeat"


class Worker:
    """Celery's, in `folder`, and its queue."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.process = process
        self._folder = folder
        self._environment = environment

    def work(self, messages: str, after: int) -> None:
        """Have these tasks done, and return at once when the last is."""
        self._take(messages)
        self._until_there_are(after, self._folder / "done")

    def children(self) -> list[int]:
        """The processes of the pool."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")  # whichever forked it
        return [int(child) for thread in threads for child in thread.read_text().split()]

    def replace_a_child(self) -> None:
        """Kill one in the middle of a task, and wait for the one that takes its place.

        One that waits for a task may hold the lock of Celery's queue, which its death would leave held for ever.
        """
        before = self.children()
        self._take("second")
        self._until_there_are(1, self._folder / "staying")
        # What SIGKILL finds finished in the last 0.15 s would be lost.
        self._until_there_are(30, metrics_file(self._folder))
        killed = int((self._folder / "staying").read_text())
        os.kill(killed, signal.SIGKILL)
        deadline_s = monotonic() + LONG_S
        while killed in (now := self.children()) or len(now) < len(before):
            assert monotonic() < deadline_s, "none follows"
            threading.Event().wait(0.01)

    def send(self) -> None:
        """Write all messages, while the worker starts; it gets them part by part."""
        line = [sys.executable, "-c", SEND]
        subprocess.run(line, cwd=self._folder, env=self._environment, check=True)

    def _take(self, messages: str) -> None:
        # The broker that is a folder may be read in the middle of a message: each is put there as a whole.
        for message in (self._folder / messages).iterdir():
            message.rename(self._folder / "queue" / message.name)

    def _until_there_are(self, lines: int, file: Path) -> None:
        deadline_s = monotonic() + LONG_S
        while not file.exists() or file.read_text().count("\n") < lines:
            assert monotonic() < deadline_s, "a child hangs, or none follows"
            threading.Event().wait(0.01)


@contextlib.contextmanager
def working(folder: Path) -> Iterator[Worker]:
    """A worker with three children, each of which is replaced after 25 tasks."""
    for name in ("queue", "sent", "control"):
        (folder / name).mkdir()
    (folder / "tasks.py").write_text(TASKS % PATIENT)
    environment = clean_environment({"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"})
    line = [sys.executable, *WORKER.split(), *QUIET.split()]
    with (
        (folder / "celery.log").open("w") as log,
        subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield Worker(folder, process, environment)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.promise("workers")
def test_every_task_stands_in_the_file_once(tmp_path: Path) -> None:
    """One child is killed, the others are replaced after 25 tasks; then the worker ends, and tells its children to."""
    with working(tmp_path) as worker:
        worker.send()
        worker.work("first", 30)
        worker.replace_a_child()
        worker.work("third", 110)
        worker.process.terminate()
        assert worker.process.wait(LONG_S) == 0
    said = (tmp_path / "celery.log").read_text()
    assert "Warm shutdown" in said
    assert "callbot_latency" not in said
    lines = written(tmp_path)
    assert sorted(line["metadata"]["task"] for line in lines) == list(range(110))
    assert len({line["span_id"] for line in lines}) == 110
    assert all(count <= 25 for count in Counter(line["metadata"]["pid"] for line in lines).values())
