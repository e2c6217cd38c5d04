"""A webhook server with scripted faults: it plays Slack, in the test's own process."""

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

LOCALHOST = "127.0.0.1"
SECRET = "T0HUSH/B0HUSH/xYzHUSHxYz"


@dataclass(frozen=True)
class Answer:
    """What a request gets; of `dripping` the body is followed by a byte now and then, for ever."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    resets: bool = False
    hangs: bool = False
    breaks_off: bool = False
    drips: bool = False


RESET = Answer(resets=True)
HANG = Answer(hangs=True)


@dataclass
class Request:
    """What was sent, and when, on a monotonic clock."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float = field(default_factory=monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Webhook:
    """Answers each request with the next of its script, and with ``ok`` once that is over."""

    def __init__(self, url: str) -> None:
        self.root = url
        self.url = f"{url}/services/{SECRET}"
        self.script: deque[Answer] = deque()
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.sent_bytes = 0

    def answers(self, *answers: Answer) -> None:
        """Play these next."""
        self.script.extend(answers)

    def messages(self) -> list[Any]:
        """The JSON of every request."""
        return [request.json for request in self.requests]


@contextlib.contextmanager
def webhook(*answers: Answer) -> Iterator[Webhook]:
    """A webhook on a port of its own, until the end of the block."""
    server = ThreadingHTTPServer((LOCALHOST, 0), BaseHTTPRequestHandler)
    server.daemon_threads = False
    server.block_on_close = True
    playing = Webhook(f"http://{LOCALHOST}:{server.server_port}")
    playing.answers(*answers)
    server.RequestHandlerClass = _handler_of(playing)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield playing
    finally:
        playing.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(playing: Webhook) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            playing.requests.append(Request(self.path, {k.title(): v for k, v in self.headers.items()}, body))
            answer = playing.script.popleft() if playing.script else Answer()
            with contextlib.suppress(OSError):
                self._play(answer)

        do_GET = do_POST

        def _play(self, answer: Answer) -> None:
            self.close_connection = True
            if answer.hangs:
                playing.closing.wait()
            if answer.hangs or answer.resets:
                # Closed with a reset rather than an end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            self.send_response_only(answer.status)
            longer = answer.breaks_off or answer.drips
            headers = {"Content-Length": str(len(answer.body) + 10_000 * longer), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(0, len(answer.body), 4096):
                playing.sent_bytes += self.connection.send(answer.body[at : at + 4096])
            while answer.drips and not playing.closing.wait(0.02):
                playing.sent_bytes += self.connection.send(b".")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
