"""A web server that answers as a script says: what Slack, Pushgateway and InfluxDB do on a bad day."""

import contextlib
import gzip
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

LOCALHOST = "127.0.0.1"
SECRET = "T0HUSH/B0HUSH/xYzHUSHxYz"


@dataclass(frozen=True)
class Request:
    """What was asked, and when, on a monotonic clock; headers by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float = field(default_factory=monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is said; more than the body is announced where it breaks off, and where a byte a moment follows it.

    Where the head drips, a header comes that never ends.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    breaks_off: bool = False
    drips: bool = False
    drips_head: bool = False


OK = Answer(200, b"ok")
DRIP = Answer(drips=True)
HANG, RESET, ECHO = "hang", "reset", "echo"
"""No answer; a broken connection; 403 with every header of the request."""

Step = Answer | str | Callable[[Request], Answer]


class Server:
    """Where it is, what it was asked, and what it says next; once the script is over, its `rest` for ever."""

    def __init__(self, root: str, path: str, script: Sequence[Step], rest: Step) -> None:
        self.root = root
        self.url = root + path
        self.requests: list[Request] = []
        self.ending = threading.Event()
        self._script = deque(script)
        self._rest = rest
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """Host and port."""
        return self.root.removeprefix("http://")

    def answers(self, *steps: Step) -> None:
        """Take these next."""
        self._script.extend(steps)

    def messages(self) -> list[Any]:
        """The JSON of every request."""
        return [request.json for request in self.requests]

    def next_step(self, request: Request) -> Step:
        """One step a request."""
        with self._lock:
            self.requests.append(request)
            return self._script.popleft() if self._script else self._rest


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer waits 40 ms for the client's acknowledgement
    server: "_Http"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        step = self.server.told.next_step(request)
        step = step(request) if callable(step) else step
        with contextlib.suppress(OSError):
            if isinstance(step, Answer):
                self._say(step)
            else:
                {HANG: self._hang, RESET: self._reset, ECHO: self._echo}[step](request)

    do_POST = do_PUT = do_DELETE = do_GET = do_CONNECT = _answer

    def _say(self, answer: Answer) -> None:
        if answer.drips_head:
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        more = answer.drips or answer.breaks_off
        self.close_connection = self.close_connection or more
        # Without Date, unless the script has one.
        self.send_response_only(answer.status)
        for name, value in {"Content-Length": str(len(answer.body) + 1_000_000 * more), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        if answer.drips:
            self._drip()

    def _drip(self, head: bytes = b"") -> None:
        self.close_connection = True
        for byte in head:
            self._drop(bytes([byte]))
        while not self.server.told.ending.is_set():
            self._drop(b"x")

    def _drop(self, byte: bytes) -> None:
        self.server.told.ending.wait(0.02)
        self.wfile.write(byte)

    def _echo(self, request: Request) -> None:
        self._say(Answer(403, repr(request.headers).encode()))

    def _hang(self, request: Request) -> None:
        self.server.told.ending.wait()
        self._reset(request)

    def _reset(self, _: Request) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    told: Server

    def handle_error(self, *_: Any) -> None:
        """The client broke off."""


@contextlib.contextmanager
def _running(path: str, script: Sequence[Step], rest: Step) -> Iterator[Server]:
    http = _Http((LOCALHOST, 0), _Handler)
    http.told = Server(f"http://{LOCALHOST}:{http.server_port}", path, script, rest)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield http.told
    finally:
        http.told.ending.set()
        http.shutdown()
        http.server_close()
        thread.join()


def scripted(*steps: Step) -> contextlib.AbstractContextManager[Server]:
    """A server that takes one step a request, and the last of them for all that follow."""
    return _running("", steps[:-1], steps[-1])


def webhook(*steps: Step) -> contextlib.AbstractContextManager[Server]:
    """The same as an incoming webhook, whose path is a secret; after the script everything is ``ok``."""
    return _running(f"/services/{SECRET}", steps, OK)


def paths(requests: Sequence[Request]) -> list[str]:
    """Method and path of each."""
    return [f"{request.method} {request.path}" for request in requests]
