"""Connections of urllib3's on which the whole head of an answer has one deadline, however slowly it drips."""

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from time import monotonic
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["deadline", "timed"]

_deadline_s: Final[ContextVar[float]] = ContextVar("callbot_latency_deadline_s", default=float("inf"))


class _Reading(io.RawIOBase):
    """Reads from a socket, whose own time-out would begin anew with each byte."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left_s)
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """A server's answer, or that of a proxy that is asked for a tunnel."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if (until_s := _deadline_s.get()) < float("inf"):
            self.fp.close()
            self.fp = io.BufferedReader(_Reading(sock, until_s))


class _Plain(HTTPConnection):
    response_class = _Response


class _Tls(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _Tls


def timed(pool: PoolManager) -> PoolManager:
    """`pool`, whose connections keep to `deadline`."""
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return pool


@contextmanager
def deadline(until_s: float) -> Iterator[None]:
    """Within, what is read ends at `until_s` of the monotonic clock with a TimeoutError."""
    before = _deadline_s.set(until_s)
    try:
        yield
    finally:
        _deadline_s.reset(before)
