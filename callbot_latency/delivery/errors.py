"""What a reporter says of a batch that did not arrive."""

import math
from contextlib import suppress
from typing import Any

from ..base.scrubbing import MAX_MESSAGE_CHARS, scrub
from ..base.text import one_line

__all__ = ["PermanentError", "TransientError", "error_text", "seconds_in", "whole_in"]


class TransientError(Exception):
    """Not now: the server is away, busy or too slow. What it did not take is handed over again.

    A number that is none (a header as it came may be) is as if it had not been given.

    Args:
        message: what happened and, where somebody can do something, what to do; without secrets.
        retry_after_s: how long the server asks us to wait, in seconds; where None, the wait grows with each try.
        delivered: how many of the batch, from its beginning, arrived all the same.
        refused: how many more of that beginning were refused for good: all after the first ``delivered + refused``
            is handed over again.
        unconfirmed: of ``close()`` alone: how many that the reporter had taken before did not arrive after all.

    """

    # Also those of a class of somebody's own that does not call this __init__.
    retry_after_s: float | None = None
    delivered: int = 0
    refused: int = 0
    unconfirmed: int = 0

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        delivered: int = 0,
        refused: int = 0,
        unconfirmed: int = 0,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = seconds_in(retry_after_s)
        self.delivered = whole_in(delivered) or 0
        self.refused = whole_in(refused) or 0
        self.unconfirmed = whole_in(unconfirmed) or 0


class PermanentError(Exception):
    """Never: the server refuses it, and would again.

    Args:
        message: what was refused and what to do; without secrets.
        refused: how many of the batch were refused, the others having arrived; None for all of it. Of ``close()``:
            how many that the reporter had taken before.

    """

    refused: int | None = None

    def __init__(self, message: str, *, refused: int | None = None) -> None:
        super().__init__(message)
        self.refused = whole_in(refused)


def seconds_in(value: Any) -> float | None:
    """A number of seconds, also one that is written as text; None where it is none."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(seconds) else seconds


def whole_in(value: Any) -> int | None:
    """A whole number, also one that is written as text; None where it is none."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def error_text(error: BaseException) -> str:
    """What may be shown: an answer's text; of any other exception, which may quote what the caller said, its type."""
    if isinstance(error, (TransientError, PermanentError)):
        with suppress(Exception):  # a class of somebody's own, whose text fails
            return one_line(scrub(str(error)), MAX_MESSAGE_CHARS + 1)
    return type(error).__name__
