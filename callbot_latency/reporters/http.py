"""How everything here speaks HTTP: one attempt, no redirect, a bounded answer, no secret in what is said of it."""

import base64
import codecs
import io
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..base.scrubbing import scrub
from ..delivery.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from urllib3 import HTTPResponse, PoolManager

__all__ = [
    "MAX_RESPONSE_BYTES",
    "Address",
    "Basic",
    "HttpClient",
    "HttpResponse",
    "HttpStatusError",
    "address_of",
    "unlogged",
]

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""How many bytes of an answer are read."""
MAX_SAID: Final = 200
"""How many characters of an answer are shown."""
_BUSY: Final = frozenset({408, 425, 429})
_SECONDS: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")

Basic = tuple[str, str]
"""User and password."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server said.

    Attributes:
        status: of HTTP.
        headers: of the answer; their names in any case.
        body: its first 64 kB, as they stand: nothing of it may be shown unseen.

    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def as_error(self, where: str, said: str, advice: str | None) -> TransientError | PermanentError:
        """What a lane is told: 408, 425, 429 and 5xx pass, everything else is final; `advice` says what to do."""
        what = f"{where} answers {self.status}" + (f" ({said})" if said else "")
        if self.status in _BUSY or self.status >= 500:
            return TransientError(what, retry_after_s=_retry_after_s(self.headers))
        if 300 <= self.status < 400:
            what += ": redirects are not followed; give the address that it leads to"
        return PermanentError(f"{what}: {advice}" if advice else what)


class HttpStatusError(Exception):
    """The server answered, and not with 2xx.

    Attributes:
        answer: what it said.
        said: what may be shown of that.

    """

    def __init__(self, answer: HttpResponse, said: str) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer
        self.said = said

    def as_delivery(self, where: str, advice: Mapping[int, str]) -> TransientError | PermanentError:
        """What a lane is told; `advice` says what to do, by status."""
        return self.answer.as_error(where, self.said, advice.get(self.answer.status))


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

    Raises:
        ValueError: the proxy is none that urllib3 speaks to.

    """

    def __init__(self, where: str, url: str, timeout_s: float, secrets: Iterable[str] = ()) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._secrets = _written(secrets)
        self._pool = _opened_pool(url)

    def request_once(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """One attempt, and the answer whatever its status.

        Raises:
            TransientError: nobody answers, or not in time.

        """
        from urllib3.exceptions import HTTPError

        before = sys.exception()
        with unlogged():
            try:
                return self._attempt(method, url, body, headers)
            except (HTTPError, OSError) as error:
                reason = _reason(error)
                _let_go(error, before)
        # Raised out here, so that not even the context of what is raised holds the address.
        raise TransientError(f"{self._where}: {reason}")

    def _attempt(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        from urllib3 import Timeout

        from .timed import deadline

        deadline_s = monotonic() + self._timeout_s
        # Nothing that would have to be unpacked: 64 kB are 64 kB.
        sent = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
        with deadline(deadline_s):
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
        if is_whole:
            response.release_conn()
        else:
            # Not drained: what was not read is none of our business.
            response.close()
        if headers.get("Connection") == "close":
            # A server that does not say that it closes would have us use a connection that is gone.
            self._pool.clear()
        return HttpResponse(response.status, response.headers, answer)

    def request(self, method: str, url: str, *, body: bytes, headers: Mapping[str, str], **_: Any) -> "HTTPResponse":
        """One attempt, for prometheus_client and influxdb-client, which take this for a pool of urllib3's.

        Whatever they say of retries, redirects, time-outs and of reading the answer is not looked at.

        Raises:
            TransientError: nobody answers, or not in time.
            AnswerError: the answer is not 2xx.

        """
        from urllib3 import HTTPResponse

        answer = self.request_once(method, url, body, headers)
        if not 200 <= answer.status < 300:
            raise HttpStatusError(answer, self._shown(answer.body.decode(errors="replace")))
        return HTTPResponse(io.BytesIO(answer.body), status=answer.status)

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
    from urllib3.exceptions import HTTPError

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


def _let_go(error: BaseException, before: BaseException | None) -> None:
    """Of all that urllib3 was in the middle of: its frames hold the error, and beneath them what was to be sent.

    Not of what was handled `before`, whose frames are somebody else's.
    """
    seen = [before]
    link: BaseException | None = error
    while link is not None and not any(link is each for each in seen):
        seen.append(link)
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _reason(error: Exception) -> str:
    """What happened, in words of ours: those of the error quote host and path."""
    from urllib3 import exceptions as of

    cause = error.__cause__ or error.__context__
    why = f" ({cause.strerror})" if isinstance(cause, OSError) else ""
    for kind, words in (
        (of.ProxyError, "the proxy of the environment cannot be reached, or refuses"),
        (of.NameResolutionError, "no such host"),
        (of.NewConnectionError, f"cannot be reached{why}"),
        (of.SSLError, "no TLS connection; is its certificate valid?"),
        (of.ConnectTimeoutError, "cannot be reached in time"),
        (of.TimeoutError, "did not answer in time"),
    ):
        if isinstance(error, kind):
            return words
    return f"broke the connection off ({type(error).__name__})"


def _opened_pool(url: str) -> "PoolManager":
    """What opens connections to `url`: through the environment's proxy, unless ``NO_PROXY`` names the host."""
    import urllib3

    from .timed import timed

    # Imported by the first host name that is looked up: on the lane, where a fork would find the import half done.
    codecs.lookup("idna")
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.netloc.rpartition("@")[2]):
        return timed(urllib3.PoolManager(num_pools=1, maxsize=1))
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        address = urlsplit(proxy)
        known = f"{unquote(address.username)}:{unquote(address.password or '')}" if address.username else None
        return timed(
            urllib3.ProxyManager(
                address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),
                num_pools=1,
                maxsize=1,
                proxy_headers=urllib3.make_headers(proxy_basic_auth=known) if known else None,
            )
        )
    except (ValueError, urllib3.exceptions.HTTPError):
        pass
    # Its text would quote the proxy's password.
    raise ValueError(f"{target.scheme.upper()}_PROXY: expected a proxy such as http://host:port; SOCKS is not spoken")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks us to wait, in seconds, from ``Retry-After``; None where it says nothing of sense.

    A date is measured against the server's own clock, which stands in ``Date``, else against ours.
    """
    asked = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(asked):
        return float(asked)
    until = _date(asked)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address, its credentials apart from it.

    Attributes:
        url: without credentials and without a slash at its end.
        basic: the credentials that stood in it.

    """

    url: str
    basic: Basic | None


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


_LOGGERS: Final = (
    "urllib3.connectionpool",
    "urllib3.connection",
    "urllib3.poolmanager",
    "urllib3.util.retry",
    "apprise",
)
_heard: Final[ContextVar[list[str] | None]] = ContextVar("callbot_latency_heard", default=None)


def _keep(record: logging.LogRecord) -> bool:
    heard = _heard.get()
    if heard is None:
        return True
    if record.levelno >= logging.WARNING:
        heard.append(record.getMessage())
    return False


@contextmanager
def unlogged() -> Iterator[list[str]]:
    """Within, no line of urllib3 or apprise is logged from here: they quote addresses, which may be secrets.

    The warnings among them are in the list given. Lines about anybody else's posts, on other threads, are logged as
    ever.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _keep not in logger.filters:
            logger.addFilter(_keep)
    heard: list[str] = []
    before = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(before)
