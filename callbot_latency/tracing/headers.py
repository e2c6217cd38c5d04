"""The headers that carry a call to the team's own services: what may stand in them, and which hosts may see them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from .. import semconv

__all__ = ["CallIds", "Hosts", "checked_host", "read_headers"]

_SID: Final = re.compile(r"[A-Za-z0-9._:~@=+/-]{1,128}")
_TURN: Final = re.compile(r"[1-9][0-9]{0,5}")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*|[0-9a-f]*(:[0-9a-f.]*){{2,}}")
_PLAIN: Final = re.compile(r"[a-z0-9._:-]+")
_AMBIGUOUS: Final = re.compile(r"[\\\s\x00-\x20\x7f]")
"""What one parser of URLs takes for a part of the host and another does not."""

_TRACEPARENT: Final = "traceparent"
_TRACESTATE: Final = "tracestate"
_READ: Final = (semconv.HEADER_CALL_SID, semconv.HEADER_STREAM_SID, semconv.HEADER_TURN, _TRACEPARENT, _TRACESTATE)
# WSGI and CGI name a header so (PEP 3333); elsewhere an underscore is another name, which a proxy may let through.
_NAMES: Final = {name: name for name in _READ} | {f"HTTP_{name.upper().replace('-', '_')}": name for name in _READ}


@dataclass(frozen=True, slots=True)
class CallIds:
    """What headers say of a call; what is missing or malformed there is None here."""

    call_sid: str | None = None
    stream_sid: str | None = None
    turn: int | None = None

    def to_headers(self) -> dict[str, str]:
        """The headers; none for what may not stand in one, and none at all without a call_sid."""
        if not _is_sid(self.call_sid):
            return {}
        headers = {semconv.HEADER_CALL_SID: str(self.call_sid)}
        if _is_sid(self.stream_sid):
            headers[semconv.HEADER_STREAM_SID] = str(self.stream_sid)
        if self.turn is not None and _TURN.fullmatch(str(self.turn)):
            headers[semconv.HEADER_TURN] = str(self.turn)
        return headers


def _is_sid(text: str | None) -> bool:
    return text is not None and _SID.fullmatch(text) is not None


def read_headers(headers: Any) -> tuple[CallIds, dict[str, str]]:
    """The ids of a call in `headers`, and what they have of W3C trace context; never raises for what stands in them.

    A header that comes twice with different values says nothing: of two, one is not the sender's.

    Args:
        headers: a mapping in any case of letters, an ASGI scope or its list of pairs of bytes, or a WSGI environ.

    """
    found: dict[str, str] = {}
    for name, value in _pairs(headers):
        known = _NAMES.get(name) or _NAMES.get(name.lower())
        if known is not None:
            found[known] = value if found.get(known, value) == value else ""
    trace_context = {name: found[name] for name in (_TRACEPARENT, _TRACESTATE) if found.get(name)}
    call_sid = found.get(semconv.HEADER_CALL_SID)
    if not _is_sid(call_sid):
        return CallIds(), trace_context
    stream_sid, number = found.get(semconv.HEADER_STREAM_SID), found.get(semconv.HEADER_TURN, "")
    turn = int(number) if _TURN.fullmatch(number) else None
    return CallIds(call_sid, stream_sid if _is_sid(stream_sid) else None, turn), trace_context


def _pairs(headers: Any) -> Iterable[tuple[str, str]]:
    if isinstance(headers, Mapping) and headers.get("type") in ("http", "websocket"):
        headers = headers.get("headers")  # an ASGI scope
    items = headers.items() if hasattr(headers, "items") else headers
    for pair in items or ():
        # Names and values alone: a WSGI environ has streams and tuples too.
        if isinstance(pair, tuple | list) and len(pair) == 2:
            name, value = _text(pair[0]), _text(pair[1])
            if name is not None and value is not None:
                yield name, value


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def checked_host(text: str) -> str:
    """A host name, ``*.example.com``, or an address, as `Hosts` compares it.

    Raises:
        ValueError: it is a URL, has a port, or is no host.

    """
    host = text.strip().strip("[]").rstrip(".").lower()
    if not _HOST.fullmatch(host):
        raise ValueError("expected hosts such as rag.internal or *.example.com, separated by commas")
    return host


class Hosts:
    """The hosts that a call's headers go to.

    Args:
        hosts: names and addresses; ``*.example.com`` stands for every name beneath example.com, and not for itself.

    """

    def __init__(self, hosts: Iterable[str]) -> None:
        checked = [checked_host(host) for host in hosts]
        self._exact = frozenset(host for host in checked if not host.startswith("*."))
        self._beneath = tuple(host[1:] for host in checked if host.startswith("*."))

    def __call__(self, url: str) -> bool:
        """Whether `url` leads to one of them; not where parsers could disagree about its host."""
        if not (self._exact or self._beneath) or _AMBIGUOUS.search(url):
            return False
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            return False
        return host in self._exact or (host.endswith(self._beneath) and _PLAIN.fullmatch(host) is not None)
