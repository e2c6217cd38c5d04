"""A web server that answers as a script says: what Pushgateway and InfluxDB do on a bad day."""

import contextlib
import gzip
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is said, in one piece."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


HANG, RESET, DRIP, ECHO = "hang", "reset", "drip", "echo"
"""No answer; a broken connection; a byte a moment; 403 with every header of the request."""

Step = Answer | str | Callable[[Request], Answer]


@dataclass
class Server:
    """Where it is, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def where(self) -> str:
        return self.url.removeprefix("http://")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Http"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        step = self.server.next_step(request)
        step = step(request) if callable(step) else step
        if isinstance(step, Answer):
            self._say(step)
        else:
            self.close_connection = True
            {HANG: self._hang, RESET: self._reset, DRIP: self._drip, ECHO: self._echo}[step](request)

    do_POST = do_PUT = do_DELETE = do_GET = _answer

    def _say(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(answer.body)

    def _echo(self, request: Request) -> None:
        self._say(Answer(403, body=repr(request.headers).encode()))

    def _reset(self, _: Request) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _hang(self, _: Request) -> None:
        self.server.told.ending.wait()

    def _drip(self, _: Request) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while not self.server.told.ending.wait(0.05):
                self.wfile.write(b"x")

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__((LOCALHOST, 0), _Handler)
        self.told = Server(f"http://{LOCALHOST}:{self.server_port}")
        self._script, self._last = iter(steps), steps[-1]
        self._lock = threading.Lock()

    def next_step(self, request: Request) -> Step:
        with self._lock:
            self.told.requests.append(request)
            return next(self._script, self._last)

    def handle_error(self, *_: Any) -> None:
        """The client broke off."""


@contextlib.contextmanager
def scripted(*steps: Step) -> Iterator[Server]:
    """A server that takes one step a request, and the last of them for all that follow."""
    http = _Http(steps)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield http.told
    finally:
        http.told.ending.set()
        http.shutdown()
        http.server_close()
        thread.join()


def paths(requests: Sequence[Request]) -> list[str]:
    """Method and path of each."""
    return [f"{request.method} {request.path}" for request in requests]
