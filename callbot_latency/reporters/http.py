"""What the reporters that speak HTTP share: addresses, answers and their errors, and silence of the log."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from ..delivery.errors import PermanentError, TransientError

__all__ = [
    "Basic",
    "HttpRefusedError",
    "HttpResponse",
    "address_of",
    "checked_name",
    "checked_number",
    "unlogged",
]

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

    def as_error(self, where: str, said: str, advice: str | None) -> "TransientError | HttpRefusedError":
        """The error for the lane: 408, 425, 429 and 5xx pass, all others are final; `advice` says what to do."""
        what = f"{where} answers {self.status}" + (f" ({said})" if said else "")
        if self.status in _BUSY or self.status >= 500:
            return TransientError(what, retry_after_s=_retry_after_s(self.headers))
        if 300 <= self.status < 400:
            what += ": redirects are not followed; give the address that it leads to"
        return HttpRefusedError(f"{what}: {advice}" if advice else what, self)


class HttpRefusedError(PermanentError):
    """The server refused the request.

    Attributes:
        answer: the whole answer; its body may hold secrets.

    """

    def __init__(self, message: str, answer: HttpResponse) -> None:
        super().__init__(message)
        self.answer = answer


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


_HOST: Final = re.compile(r"[^\s/@]+")


def address_of(what: str, url: object) -> tuple[str, Basic | None]:
    """The parts of ``https://user:password@host:port/path``: address without a slash at its end, and credentials.

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
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/"), (user, password) if user or password else None


def checked_name(what: str, name: object) -> str:
    """`name`, a non-empty printable text.

    Raises:
        ValueError: it is none; the message starts with `what`.

    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"{what}: expected a non-empty name, got {name!r}")
    return name


def checked_number(what: str, value: object, unit: str = "seconds") -> float:
    """`value`, a number above 0 that is small enough for a time-out.

    Raises:
        ValueError: it is none; the message starts with `what`.

    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{what}: expected a number of {unit} above 0, got {value!r}")
    return float(value)


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
