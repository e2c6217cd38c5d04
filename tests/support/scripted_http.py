"""The HTTP server of the tests: it answers as a script says, with delays, errors, streams and broken connections."""

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
from time import monotonic, perf_counter
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
    """What the server says to one request.

    Attributes:
        body: sent at once, with its length.
        breaks_off: a longer body is announced than is sent.
        drips: after the body a byte follows every 20 ms without end.
        drips_head: a header comes, byte by byte, that never ends.
        head_after_s: seconds before the status is sent.
        pieces: instead of a body, pieces in chunked encoding, each sent so many seconds after the one before.
        hangs: after the pieces nothing follows until the test ends.

    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    breaks_off: bool = False
    drips: bool = False
    drips_head: bool = False
    head_after_s: float = 0.0
    pieces: tuple[tuple[float, bytes], ...] | None = None
    hangs: bool = False


def streamed(
    *pieces: tuple[float, bytes],
    content_type: str = "application/json",
    head_after_s: float = 0.0,
    hangs: bool = False,
    breaks_off: bool = False,
) -> Answer:
    """A body that comes in pieces, each after its delay in seconds."""
    return Answer(
        headers={"Content-Type": content_type},
        head_after_s=head_after_s,
        pieces=pieces,
        hangs=hangs,
        breaks_off=breaks_off,
    )


def whole(body: bytes, *, after_s: float = 0.0, status: int = 200, content_type: str = "application/json") -> Answer:
    """A body that comes at once, after a while."""
    return Answer(status, headers={"Content-Type": content_type}, head_after_s=after_s, pieces=((0.0, body),))


def events(*pieces: tuple[float, str]) -> Answer:
    """Server-sent events, each after its delay in seconds."""
    sent = [(delay_s, f"data: {data}\n\n".encode()) for delay_s, data in pieces]
    return streamed(*sent, content_type="text/event-stream")


OK = Answer(200, b"ok")
DRIP = Answer(drips=True)
HANG, RESET, ECHO = "hang", "reset", "echo"
"""No answer; a broken connection; 403 with every header of the request."""

Step = Answer | str | Callable[[Request], Answer]


class Server:
    """Where it is, what it was asked, and what it says next.

    Once the script is over, `rest` answers for ever; without one the last step of the script does.
    """

    def __init__(self, root: str, path: str, script: Sequence[Step], rest: Step | None) -> None:
        self.root = root
        self.url = root + path
        self.requests: list[Request] = []
        self.sent_s: list[float] = []
        """When each piece was about to leave, on the clock of perf_counter."""
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
            if self._rest is None:
                return self._script.popleft() if len(self._script) > 1 else self._script[0]
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

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET = do_CONNECT = _answer

    def _say(self, answer: Answer) -> None:
        self.server.told.ending.wait(answer.head_after_s)
        if answer.pieces is not None:
            self._send_pieces(answer, answer.pieces)
            return
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

    def _send_pieces(self, answer: Answer, pieces: Sequence[tuple[float, bytes]]) -> None:
        server = self.server.told
        self.send_response_only(answer.status)
        for name, value in {"Transfer-Encoding": "chunked", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        for delay_s, piece in pieces:
            server.ending.wait(delay_s)
            server.sent_s.append(perf_counter())
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"")
            self.wfile.flush()
        if answer.hangs:
            server.ending.wait()
        if answer.hangs or answer.breaks_off:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

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
def _running(path: str, script: Sequence[Step], rest: Step | None) -> Iterator[Server]:
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


def serving() -> contextlib.AbstractContextManager[Server]:
    """A server whose script the test gives it with `answers()`; the last step answers for ever."""
    return _running("", (), None)


def webhook(*steps: Step) -> contextlib.AbstractContextManager[Server]:
    """The same as an incoming webhook, whose path is a secret; after the script everything is ``ok``."""
    return _running(f"/services/{SECRET}", steps, OK)


def paths(requests: Sequence[Request]) -> list[str]:
    """Method and path of each."""
    return [f"{request.method} {request.path}" for request in requests]
