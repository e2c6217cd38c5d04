"""Gunicorn's prefork workers, with and without --preload, by real HTTP and a real SIGTERM."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.faults.servers import LOCALHOST, free_port
from tests.subprocesses import ROOT, clean_environment, written

APP = """
import os
from callbot_latency import init, measure_latency_context

init()

def application(environ, start_response):
    n = environ["PATH_INFO"].strip("/")
    with measure_latency_context("rag_inference", "answer", metadata={"request": n, "pid": os.getpid()}):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{os.getpid()}".encode()]
"""


def fetch(url: str) -> str:
    """The body of the answer."""
    with urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Gunicorn with three workers serves the measured application of `folder`."""
    (folder / "app.py").write_text(APP)
    address = f"{LOCALHOST}:{free_port()}"
    line = [sys.executable, "-m", "gunicorn", "--workers=3", f"--bind={address}", "--graceful-timeout=5", *options]
    environment = clean_environment({"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"})
    log = folder / "gunicorn.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*line, "app:application"], cwd=folder, env=environment, stdout=file, stderr=file, text=True
        ) as process,
    ):
        try:
            for _ in range(500):
                with contextlib.suppress(URLError, ConnectionError):
                    fetch(f"http://{address}/up")
                    break
                threading.Event().wait(0.05)
            yield process, f"http://{address}"
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each worker starts it", "preload"])
def test_every_request_stands_in_the_file_once(options: tuple[str, ...], tmp_path: Path) -> None:
    """300 requests over three workers, one of which is ended by a signal; then SIGTERM to the master."""
    with serving(tmp_path, *options) as (process, url):
        with ThreadPoolExecutor(8) as pool:
            pids = set(pool.map(lambda n: fetch(f"{url}/{n}"), range(200)))
            os.kill(int(next(iter(pids))), signal.SIGTERM)

            # A request that meets the worker in its last moment is refused; the next worker takes it.
            def insist(n: int) -> str:
                for _ in range(50):
                    with contextlib.suppress(URLError, ConnectionError):
                        return fetch(f"{url}/{n}")
                    threading.Event().wait(0.02)
                raise AssertionError("nobody answers")

            pids |= set(pool.map(insist, range(200, 300)))
        process.terminate()
        code = process.wait(20)
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
