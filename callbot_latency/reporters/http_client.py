"""One HTTP request to one server: one attempt with one deadline, no redirect, a bounded answer, no secret in errors."""

import base64
import codecs
import io
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from http.client import HTTPResponse as StandardResponse
from time import monotonic
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import (
    HTTPConnectionPool,
    HTTPSConnectionPool,
    PoolManager,
    ProxyManager,
    Timeout,
    exceptions,
    make_headers,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from ..base.scrubbing import scrub
from ..delivery.errors import TransientError
from .http import HttpResponse, unlogged

__all__ = ["MAX_RESPONSE_BYTES", "HttpClient"]

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""How many bytes of an answer are read."""
MAX_SAID: Final = 200
"""How many characters of an answer are shown."""


class HttpClient:
    """Requests to one server, each of which is one attempt.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are honoured. Redirects are not followed, an answer is read up to
    64 kB, and no line of urllib3 about these requests is logged, since it would quote the address. Opens nothing yet.

    Args:
        where: the server's name in what is said, without credentials.
        url: of the server.
        timeout_s: for connecting and the head of the answer, in seconds; what has not come of the rest by then is not
            read.
        secrets: never shown, even where the server repeats them.
        advice: what to do about a refusal, by status.

    Raises:
        ValueError: the proxy is none that urllib3 speaks to.

    """

    def __init__(
        self,
        where: str,
        url: str,
        timeout_s: float,
        secrets: Iterable[str] = (),
        advice: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._secrets = _written(secrets)
        self._advice = advice
        self._pool = _opened_pool(url)
        self._pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def request_once(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """One attempt, and the answer whatever its status.

        Raises:
            TransientError: nobody answers, or not in time.

        """
        with unlogged():
            try:
                return self._attempt(method, url, body, headers)
            except (HTTPError, OSError) as error:
                reason = _reason(error)
        # Outside of the except block, so that the error has no context that quotes the address.
        raise TransientError(f"{self._where}: {reason}")

    def _attempt(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        deadline_s = monotonic() + self._timeout_s
        # Nothing that would have to be unpacked: 64 kB are 64 kB.
        sent = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
        before = _deadline_s.set(deadline_s)
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers={**sent, "Accept-Encoding": "identity"},
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=Timeout(total=self._timeout_s),
            )
            answer, is_whole = _read(response, deadline_s)
        finally:
            _deadline_s.reset(before)
        if is_whole:
            response.release_conn()
        else:
            # Not drained: what was not read is none of our business.
            response.close()
        if headers.get("Connection") == "close":
            # A server that does not say that it closes would have us use a connection that is gone.
            self._pool.clear()
        return HttpResponse(response.status, response.headers, answer)

    def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """One attempt, which the server must answer with 2xx.

        Raises:
            TransientError: the server does not answer, not in time, or is busy.
            HttpRefusedError: it refuses; the message says what to do.

        """
        answer = self.request_once(method, url, body, headers)
        if not 200 <= answer.status < 300:
            said = self._shown(answer.body.decode(errors="replace"))
            raise answer.as_error(self._where, said, self._advice.get(answer.status))

    def clear(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = " ".join(scrub(text).split())
        return text if len(text) <= MAX_SAID else text[:MAX_SAID] + "…"


def _read(response: Any, deadline_s: float) -> tuple[bytes, bool]:
    """The beginning of the answer, however slowly it drips, and whether that was all of it."""
    body = bytearray()
    # The status has come: an answer that breaks off after it changes nothing, and must not have us ask again.
    with suppress(HTTPError, OSError):
        while len(body) < MAX_RESPONSE_BYTES and monotonic() < deadline_s:
            part = response.read1(MAX_RESPONSE_BYTES - len(body), decode_content=False)
            if not part:
                return bytes(body), True
            body += part
    return bytes(body), False


def _written(secrets: Iterable[str]) -> list[str]:
    """Each way in which a server might repeat them, the longest first."""
    every = {way for secret in secrets if secret for way in (secret, quote(secret, safe=""))}
    every |= {base64.b64encode(secret.encode()).decode() for secret in every}
    return sorted(every, key=len, reverse=True)


def _reason(error: Exception) -> str:
    """What happened, in words of ours: those of the error quote host and path."""
    cause = error.__cause__ or error.__context__
    why = f" ({cause.strerror})" if isinstance(cause, OSError) else ""
    for kind, words in (
        (exceptions.ProxyError, "the proxy of the environment cannot be reached, or refuses"),
        (exceptions.NameResolutionError, "no such host"),
        (exceptions.NewConnectionError, f"cannot be reached{why}"),
        (exceptions.SSLError, "no TLS connection; is its certificate valid?"),
        (exceptions.ConnectTimeoutError, "cannot be reached in time"),
        (exceptions.TimeoutError, "did not answer in time"),
    ):
        if isinstance(error, kind):
            return words
    return f"broke the connection off ({type(error).__name__})"


def _opened_pool(url: str) -> PoolManager:
    """What opens connections to `url`: through the environment's proxy, unless ``NO_PROXY`` names the host."""
    # Imported by the first host name that is looked up: on the lane, where a fork would find the import half done.
    codecs.lookup("idna")
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.netloc.rpartition("@")[2]):
        return PoolManager(num_pools=1, maxsize=1)
    with suppress(ValueError, HTTPError):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        known = f"{unquote(address.username)}:{unquote(address.password or '')}" if address.username else None
        headers = make_headers(proxy_basic_auth=known) if known else None
        server = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        return ProxyManager(server, num_pools=1, maxsize=1, proxy_headers=headers)
    # Outside of the block, so that the error has no context that quotes the proxy's password.
    raise ValueError(f"{target.scheme.upper()}_PROXY: expected a proxy such as http://host:port; SOCKS is not spoken")


_deadline_s: Final[ContextVar[float]] = ContextVar("callbot_latency_deadline_s", default=float("inf"))
"""When reading from a connection ends with a TimeoutError, by the monotonic clock."""


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
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(StandardResponse):
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
