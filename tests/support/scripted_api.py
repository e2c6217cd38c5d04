"""An HTTP server with scripted answers: it plays the APIs that speak HTTP, with delays, errors, and streams."""

import contextlib
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a request gets: each piece of the body is sent after its delay; `hangs` sends no more until the end."""

    pieces: tuple[tuple[float, bytes], ...]
    status: int = 200
    content_type: str = "application/json"
    headers_after_s: float = 0.0
    encoding: str | None = None
    hangs: bool = False
    breaks_off: bool = False


def whole(body: bytes, *, after_s: float = 0.0, status: int = 200, content_type: str = "application/json") -> Answer:
    """An answer that comes at once, after a while."""
    return Answer(((0.0, body),), status, content_type, after_s)


def events(*pieces: tuple[float, str]) -> Answer:
    """Server-sent events, each after its delay in seconds."""
    return Answer(
        tuple((delay_s, f"data: {data}\n\n".encode()) for delay_s, data in pieces), content_type="text/event-stream"
    )


@dataclass
class Server:
    """Answers each request with the next of its script, and with the last for ever."""

    url: str
    script: deque[Answer] = field(default_factory=deque)
    requests: list[tuple[str, str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    sent_s: list[float] = field(default_factory=list)
    """When each piece was about to leave, on the clock of perf_counter."""

    def answers(self, *answers: Answer) -> None:
        self.script.extend(answers)


class Noted:
    """When the test asked for each item of a stream and when it had it: how late the machine was stands in both.

    Attributes:
        began_s: when this was made, on the clock of perf_counter.

    """

    def __init__(self) -> None:
        self.began_s = perf_counter()
        self._asked_s: list[float] = []
        self._had_s: list[float] = []

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of which is noted."""
        asking = iter(items)
        while True:
            self._asked_s.append(perf_counter())
            try:
                item = next(asking)
            except StopIteration:
                return
            finally:
                self._had_s.append(perf_counter())
            yield item

    async def each_later(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """The same of an async stream."""
        asking = aiter(items)
        while True:
            self._asked_s.append(perf_counter())
            try:
                item = await anext(asking)
            except StopAsyncIteration:
                return
            finally:
                self._had_s.append(perf_counter())
            yield item

    def until_ms(self, number: int, since_s: float | None = None) -> float:
        """How long it took until the test had this item; -1: until it knew that there is none left."""
        return (self._had_s[number] - (self.began_s if since_s is None else since_s)) * 1_000

    def largest_gap_ms(self, sent_s: Sequence[float], reads_s: Sequence[float]) -> tuple[float, float]:
        """The least and the most that the largest gap may be: the first item follows none.

        Args:
            sent_s: when each item was sent.
            reads_s: when the stream read the clock, as it does before it waits for an item.

        """
        waits_s = list(zip(self._asked_s[:-1], self._had_s[:-1], sent_s, strict=False))[1:]
        least_s = max(sent_s - reads_s[bisect_left(reads_s, asked_s)] for asked_s, _, sent_s in waits_s)
        return least_s * 1_000 - 0.001, max(had_s - asked_s for asked_s, had_s, _ in waits_s) * 1_000


def _handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append((self.command, self.path))
            answer = server.script.popleft() if len(server.script) > 1 else server.script[0]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._answer(answer)

        do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

        def _answer(self, answer: Answer) -> None:
            server.closing.wait(answer.headers_after_s)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            if answer.encoding is not None:
                self.send_header("Content-Encoding", answer.encoding)
            self.end_headers()
            self.wfile.flush()
            for delay_s, piece in answer.pieces:
                server.closing.wait(delay_s)
                server.sent_s.append(perf_counter())
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"")
                self.wfile.flush()
            if answer.hangs:
                server.closing.wait(60)
            if answer.hangs or answer.breaks_off:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a port of its own, until the end of the block."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    listening.daemon_threads = True
    listening.block_on_close = False
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    listening.RequestHandlerClass = _handler_of(server)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
