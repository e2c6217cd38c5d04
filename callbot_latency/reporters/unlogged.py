"""Keeps a library's own log lines about our posts to ourselves: they quote the address, which is the secret."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["unlogged"]

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
    """Within, no line of urllib3 or apprise is logged from here; the warnings among them are in the list given.

    Lines about anybody else's posts, on other threads, are logged as ever.
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
