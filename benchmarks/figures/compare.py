"""Ours against others that do the same work: each over the bare span in its own process, and then over the other.

The processes live beside each other and take turns, a round each, so that what slows the machine slows all of them.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any, Final

from ..tools.harness import ROUNDS, Figure, run_alone, say
from ..tools.rivals import RIVALS

MODULES: Final = {
    "logfire": "logfire",
    "ddtrace": "ddtrace",
    "sentry-sdk": "sentry_sdk",
    "autometrics + OpenTelemetry's span": "autometrics",
}


class _Yes(BaseHTTPRequestHandler):
    """An agent that takes whatever comes."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """Read it, and answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET = do_PUT  # noqa: N815 - the names that the server looks for

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def agent() -> Iterator[str]:
    """The address of one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Yes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def started(name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """A process of one, which waits to be asked."""
    command = [sys.executable, "-m", "benchmarks.tools.rivals", name]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def round_of(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """Microseconds of its call, and of the bare span."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = next((line for line in process.stdout if line.startswith("[")), None)
    if line is None:
        raise RuntimeError(f"{process.args!r} ended")
    its, bare = json.loads(line)
    return its, bare


def figures() -> Sequence[Figure]:
    """Whoever is installed."""
    names = [name for name in RIVALS if name not in MODULES or find_spec(MODULES[name]) is not None]
    if len(names) < len(RIVALS):
        say("  not installed, so not compared (make bench installs the extra): " + ", ".join(RIVALS.keys() - names))
    with agent() as url:
        processes = {name: started(name, {**os.environ, "DD_TRACE_AGENT_URL": url}) for name in names}
        try:
            for process in processes.values():
                round_of(process)
            values: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(ROUNDS):
                for name, process in processes.items():
                    its, bare = round_of(process)
                    values[name].append(its / bare)
        finally:
            for process in processes.values():
                process.kill()
                process.communicate()
    return [against(name, values["ours"], values[name]) for name in names if name != "ours"]


def against(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Both over the bare span of their own process."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Figure(f"ours / {name}", "x", ratios, 1.0, ours=min(ours), theirs=min(theirs), base_unit="x bare span")


if __name__ == "__main__":
    run_alone(figures)
