"""Gunicorn's prefork workers, with and without --preload, by real HTTP and real signals."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.support.collectors import LOCALHOST, free_port
from tests.support.rotated import whole_rows_of
from tests.support.subprocesses import LONG_S, PATIENT, ROOT, clean_environment, metrics_file, until, written

WSGI = (
    PATIENT
    + """
import os
from callbot_latency import init, measure_latency_context

init()

def application(environ, start_response):
    n = environ["PATH_INFO"].strip("/")
    with measure_latency_context("rag_inference", "answer", metadata={"request": n, "pid": os.getpid()}):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{os.getpid()}".encode()]
"""
)

PATCHED = "from gevent import monkey; monkey.patch_all()\n"
"""With --preload gunicorn's own patching comes too late: what `init()` started are threads by then."""

ASGI = """
import os
from callbot_latency import measure_latency_context

async def application(scope, receive, send):
    n = scope["path"].strip("/")
    with measure_latency_context("rag_inference", "answer", metadata={"request": n, "pid": os.getpid()}):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": f"{os.getpid()}".encode()})
"""

INIT = PATIENT + "from callbot_latency import init; init()\n"


def fetch(url: str) -> str:
    """The body of the answer."""
    with urlopen(url, timeout=LONG_S) as answer:
        body: bytes = answer.read()
        return body.decode()


def is_up(url: str) -> bool:
    """Not so either where it takes the connection, and has not yet loaded the application."""
    with contextlib.suppress(OSError):
        return bool(fetch(url))
    return False


def until_another_answers(url: str, pid: str) -> None:
    """A worker of gevent's goes on for up to a second after SIGTERM, and may take all that comes meanwhile."""

    def another_answers() -> bool:
        with contextlib.suppress(URLError, ConnectionError):
            return fetch(f"{url}/up") != pid
        return False

    until(another_answers, "another worker")


PATIENCE = (f"--graceful-timeout={LONG_S:.0f}", "--timeout=110")


@contextlib.contextmanager
def serving(folder: Path, app: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Gunicorn with three workers serves the measured application `app`, with `folder` as its own."""
    (folder / "app.py").write_text(app)
    address = f"{LOCALHOST}:{free_port()}"
    line = [sys.executable, "-m", "gunicorn", "--workers=3", f"--bind={address}", *PATIENCE, *options]
    environment = clean_environment({"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"})
    log = folder / "gunicorn.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*line, "app:application"], cwd=folder, env=environment, stdout=file, stderr=file, text=True
        ) as process,
    ):
        try:
            until(lambda: is_up(f"http://{address}/up"), "gunicorn")
            yield process, f"http://{address}"
        finally:
            if process.poll() is None:
                process.kill()


GEVENT = "--worker-class=gevent"


@pytest.mark.promise("workers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [(), ("--preload",), (GEVENT,), (GEVENT, "--preload")],
    ids=["each worker starts it", "preload", "gevent", "gevent, preload"],
)
def test_every_request_stands_in_the_file_once(options: tuple[str, ...], tmp_path: Path) -> None:
    """300 requests over three workers, one of which is ended by a signal; then SIGTERM to the master."""
    app = PATCHED + WSGI if {GEVENT, "--preload"} <= set(options) else WSGI
    with serving(tmp_path, app, *options) as (process, url):
        with ThreadPoolExecutor(8) as pool:
            pids = set(pool.map(lambda n: fetch(f"{url}/{n}"), range(200)))
            ended = next(iter(pids))
            os.kill(int(ended), signal.SIGTERM)
            until_another_answers(url, ended)

            # A request that meets the worker in its last moment is refused; the next worker takes it.
            def insist(n: int) -> str:
                answers: list[str] = []

                def is_answered() -> bool:
                    with contextlib.suppress(URLError, ConnectionError):
                        answers.append(fetch(f"{url}/{n}"))
                    return bool(answers)

                until(is_answered, "an answer")
                return answers[0]

            pids |= set(pool.map(insist, range(200, 300)))
        process.terminate()
        code = process.wait(LONG_S)
    said = (tmp_path / "gunicorn.log").read_text()
    assert code == 0, said
    assert "Traceback" not in said
    assert "callbot_latency" not in said
    lines = written(tmp_path)
    requests = [line["metadata"]["request"] for line in lines if line["metadata"]["request"] != "up"]
    assert sorted(requests, key=int) == [str(n) for n in range(300)]
    assert {str(line["metadata"]["pid"]) for line in lines} >= pids
    assert len(pids) >= 2
    assert str(process.pid) not in pids
    assert len({line["span_id"] for line in lines}) == len(lines)


class Load:
    """Six threads that ask for one number after the other; what is not answered is not asked for again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self._over = threading.Event()
        self._news = threading.Condition()
        self._pool = ThreadPoolExecutor(6)
        self.answers: dict[int, int] = {}
        """Who answered."""
        self.pids: set[int] = set()
        for _ in range(6):
            self._pool.submit(self._ask)

    def _ask(self) -> None:
        while not self._over.is_set():
            self._over.wait(0.01)  # the workers that start need the processors too
            n = next(self._numbers)
            try:
                pid = int(fetch(f"{self._url}/{n}"))
            except (OSError, HTTPException):
                continue  # it met a worker in its last moment
            with self._news:
                self.answers[n] = pid
                self.pids.add(pid)
                self._news.notify_all()

    def until_there_are(self, pids: int) -> set[int]:
        """Wait until so many workers have answered; who they are."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.pids) >= pids, 2 * LONG_S), "a worker hangs, or none follows"
            return set(self.pids)

    def answered_by(self, pid: int) -> set[int]:
        with self._news:
            return {n for n, by in self.answers.items() if by == pid}

    def end(self) -> None:
        self._over.set()
        self._pool.shutdown()


def numbers_in(file: Path) -> set[int]:
    """The requests that stand in the file."""
    rows = whole_rows_of(file) if file.exists() else []
    numbers = [row["metadata"]["request"] for row in rows]
    return {int(number) for number in numbers if number != "up"}


@pytest.mark.promise("workers")
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("where", "options", "rounds"),
    [("app.py", (), 4), ("app.py", ("--preload",), 4), ("gunicorn.conf.py", (), 2)],
    ids=["each worker starts it", "preload", "its configuration starts it"],
)
def test_twenty_workers_are_killed_and_replaced(
    where: str, options: tuple[str, ...], rounds: int, tmp_path: Path
) -> None:
    """Uvicorn's workers under load, ended by SIGTERM or SIGINT and SIGKILL in turn: each request is written once.

    In all twenty by the three ways to start it. The one exception is what a worker answered since the last look
    before SIGKILL: until then it goes on, and what it had answered is in the file.
    """
    killed: set[int] = set()
    seen: set[int] = set()
    file = metrics_file(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text(INIT if where == "gunicorn.conf.py" else "")
    app = INIT + ASGI if where == "app.py" else ASGI
    with serving(tmp_path, app, "--worker-class=uvicorn_worker.UvicornWorker", *options) as (process, url):
        load = Load(url)
        gone: set[int] = set()
        for how in [signal.SIGTERM, signal.SIGINT] * (rounds // 2):
            politely, brutally = sorted(load.until_there_are(3 + len(gone)) - gone)[:2]
            os.kill(politely, how)
            answered = load.answered_by(brutally)
            until(lambda answered=answered: answered <= numbers_in(file), "what was answered")  # type: ignore[misc]
            os.kill(brutally, signal.SIGKILL)
            killed.add(brutally)
            seen |= answered
            gone |= {politely, brutally}
        pids = load.until_there_are(3 + len(gone))
        load.end()
        process.terminate()
        assert process.wait(LONG_S) == 0
    said = (tmp_path / "gunicorn.log").read_text()
    assert "Traceback" not in said
    assert "callbot_latency" not in said
    assert "TIMEOUT" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    rows = [row["metadata"] for row in whole_rows_of(file)]
    written_of = Counter(int(row["request"]) for row in rows if row["request"] != "up")
    assert set(written_of.values()) == {1}
    missing = load.answers.keys() - written_of.keys()
    assert {load.answers[n] for n in missing} <= killed, "a worker that ended by itself lost something"
    sys.stdout.write(f"{len(load.answers)} answers of {len(pids)} workers; {len(missing)} lost\n")
    assert not missing & seen
