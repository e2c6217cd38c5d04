"""How the direct reporters speak HTTP: one attempt, no redirect, a bounded answer, no secret in what is said of it."""

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    SSLError,
    TimeoutError,  # noqa: A004 - urllib3's own
)

from ..scrub import scrub
from .delivery import PermanentError, TransientError

__all__ = ["Address", "AnswerError", "Attempts", "Basic", "address_of"]

MAX_ANSWER: Final = 64 * 1024
"""How many bytes of an answer are read."""
MAX_SAID: Final = 200
"""How many characters of an answer are shown."""
_BUSY: Final = frozenset({408, 425, 429})

Basic = tuple[str, str]
"""User and password."""


class AnswerError(Exception):
    """The server answered, and not with 2xx.

    Attributes:
        status: of HTTP.
        retry_after_s: how long it asks us to wait, in seconds; None where it does not.
        text: the first 64 kB of what it says, as it stands: `said` is what may be shown.

    """

    def __init__(self, status: int, retry_after_s: float | None, text: str, said: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.retry_after_s = retry_after_s
        self.text = text
        self.said = said

    def as_delivery(self, where: str, advice: Mapping[int, str]) -> TransientError | PermanentError:
        """What a lane is told: 429 and 5xx pass, everything else is final; `advice` says what to do, by status."""
        what = f"{where} answers {self.status}"
        if self.said:
            what += f" ({self.said})"
        if self.status in advice:
            what += f": {advice[self.status]}"
        elif 300 <= self.status < 400:
            what += ": redirects are not followed; give the address that it leads to"
        if self.status in _BUSY or self.status >= 500:
            return TransientError(what, retry_after_s=self.retry_after_s)
        return PermanentError(what)


class Attempts:
    """What prometheus_client and influxdb-client take for urllib3's pool of connections: each request is one attempt.

    Redirects are not followed, an answer is read up to 64 kB, and one attempt takes little more than `timeout_s`.

    Args:
        where: the server's name in what is said, without credentials.
        timeout_s: for connecting and for each part of the answer, in seconds; what is left of the answer then is not
            read.
        secrets: never shown, even where the server repeats them.

    """

    def __init__(self, where: str, timeout_s: float, secrets: Iterable[str] = ()) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._secrets = _written(secrets)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1)

    def request(
        self, method: str, url: str, *, body: bytes, headers: Mapping[str, str], **_: Any
    ) -> urllib3.HTTPResponse:
        """One attempt, whatever else the caller says of retries, redirects, time-outs and of reading the answer.

        Raises:
            TransientError: nobody answers, or not in time.
            AnswerError: the answer is not 2xx.

        """
        deadline_s = monotonic() + self._timeout_s
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(total=self._timeout_s),
            )
            answer = _read(response, deadline_s)
        except (HTTPError, OSError) as error:
            raise TransientError(f"{self._where}: {_reason(error)}") from None
        if not 200 <= response.status < 300:
            text = answer.decode(errors="replace")
            raise AnswerError(response.status, _retry_after_s(response), text, self._shown(text))
        return urllib3.HTTPResponse(io.BytesIO(answer), status=response.status, reason=response.reason)

    def clear(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = " ".join(scrub(text).split())
        return text if len(text) <= MAX_SAID else text[:MAX_SAID] + "…"


def _read(response: Any, deadline_s: float) -> bytes:
    """The beginning of the answer; the connection is kept only where that was all of it."""
    body = bytearray()
    while len(body) < MAX_ANSWER and monotonic() < deadline_s:
        part = response.read1(MAX_ANSWER - len(body), decode_content=True)
        if not part:
            response.release_conn()
            return bytes(body)
        body += part
    response.close()
    return bytes(body[:MAX_ANSWER])


def _written(secrets: Iterable[str]) -> list[str]:
    """Each way in which a server might repeat them, the longest first."""
    every = {way for secret in secrets if secret for way in (secret, quote(secret, safe=""))}
    every |= {base64.b64encode(secret.encode()).decode() for secret in every}
    return sorted(every, key=len, reverse=True)


def _reason(error: Exception) -> str:
    if isinstance(error, NameResolutionError):
        return "no such host"
    if isinstance(error, NewConnectionError):
        cause = error.__cause__ or error.__context__
        return f"cannot be reached ({cause.strerror})" if isinstance(cause, OSError) else "cannot be reached"
    if isinstance(error, SSLError):
        return "no TLS connection; is its certificate valid?"
    if isinstance(error, ConnectTimeoutError):
        return "cannot be reached in time"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    return f"broke the connection off ({type(error).__name__})"


def _retry_after_s(response: Any) -> float | None:
    """Seconds, or a date, as HTTP says."""
    given = response.headers.get("Retry-After")
    if given is None:
        return None
    try:
        wait_s = float(urllib3.Retry().parse_retry_after(given))
    except (InvalidHeader, ValueError, OverflowError):
        return None
    return wait_s if math.isfinite(wait_s) else None


class Address:
    """A server's address, its credentials apart from it.

    Attributes:
        url: without credentials and without a slash at its end.
        basic: the credentials that stood in it.

    """

    def __init__(self, url: str, basic: Basic | None) -> None:
        self.url = url
        self.basic = basic


_HOST: Final = re.compile(r"[^\s/@]+")


def address_of(what: str, url: object) -> Address:
    """The parts of ``https://user:password@host:port/path``.

    Raises:
        ValueError: it is no such address; the message starts with `what` and shows nothing of it.

    """
    try:
        parts = urlsplit(str(url).strip())
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        host = parts.netloc.rpartition("@")[2]
        fits = fits and _HOST.fullmatch(host) is not None and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{what}: expected an address such as http://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Address(f"{parts.scheme}://{host}{parts.path}".rstrip("/"), (user, password) if user or password else None)
