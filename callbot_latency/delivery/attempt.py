"""One attempt at a delivery: the work, the calls of the reporter's methods, and the wait before the next."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import semconv
from ..base.internal_errors import try_call
from .errors import PermanentError, TransientError, error_text, seconds_in, whole_in
from .probe import Probe

if TYPE_CHECKING:
    from ..model.alert import Alert

__all__ = ["CloseResult", "ReporterCalls", "Retry", "Work"]


class CloseResult(NamedTuple):
    """What ``close()`` said: what was raised, and how much of what it had taken is lost, counted under `suffix`."""

    error: BaseException | None
    suffix: str
    lost: int


class ReporterCalls:
    """A reporter, with what it has of the methods that are each optional."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def start(self) -> BaseException | None:
        """Call ``start()``; what it raised."""
        return self._call("start")[1]

    def close(self) -> CloseResult:
        """Call ``close()``, which may return how many did not arrive after all, or raise that."""
        result, error = self._call("close")
        if isinstance(error, PermanentError):
            return CloseResult(error, semconv.DROPPED_REFUSED_SUFFIX, whole_in(error.refused) or 0)
        if isinstance(error, TransientError):
            result = whole_in(error.unconfirmed)
        lost = result if isinstance(result, int) and not isinstance(result, bool) else 0
        return CloseResult(error, semconv.DROPPED_UNCONFIRMED_SUFFIX, lost)

    def notify(self, alert: "Alert | Probe") -> None:
        """Hand over an alert or a test; raises what the reporter does."""
        if isinstance(alert, Probe):
            self._probe(alert)
        else:
            self._reporter.notify(alert)

    def _probe(self, probe: Probe) -> None:
        if not probe.begin():
            raise PermanentError("a test alert came too late: nobody waits for it any more")
        try:
            self._reporter.notify(probe.alert)
        except BaseException as error:
            probe.end(error)
            # A test is asked for once: what is away now is said now.
            raise PermanentError(error_text(error)) from error
        probe.end(None)

    def _call(self, method: str) -> tuple[object, BaseException | None]:
        """What it returns, and what it raises; a fault is counted and logged, and ends nothing."""
        function = getattr(self._reporter, method, None)
        if function is None:
            return None, None
        return try_call(function, (), semconv.DROPPED_INTERNAL_ERROR, 1, (TransientError, PermanentError))


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after how long, the same work is handed over again.

    Args:
        attempts: so many in a row that bring nothing forward, the first included; then the work is given up.
        base_s: the first wait is a random part of this, in seconds; each further one of twice as much (full jitter).
        cap_s: and never of more than this.
        asked_cap_s: the longest wait that a server may ask for (``retry_after_s``).

    """

    attempts: int = 16
    base_s: float = 0.5
    cap_s: float = 30.0
    asked_cap_s: float = 600.0

    def wait_s(self, failed: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2 ** min(failed - 1, 32)))  # noqa: S311 # nosec B311 # no secret

    def asked_s(self, error: TransientError) -> float | None:
        """Seconds that the server asked for; None where it asked for nothing that makes sense."""
        asked_s = seconds_in(error.retry_after_s)
        return None if asked_s is None else min(max(0.0, asked_s), self.asked_cap_s)


@dataclass(slots=True, eq=False)
class Work:
    """One alert, or a batch that shrinks as parts of it arrive.

    Args:
        method: of the reporter.
        payload: its one argument.
        remaining: how much of it has neither arrived nor been dropped.
        failed: how many attempts in a row brought nothing forward.

    """

    method: Callable[[Any], Any]
    payload: Any
    remaining: int
    failed: int = 0

    def parts_of(self, error: TransientError) -> tuple[int, int]:
        """How many of the beginning arrived, and how many were refused; the rest is to be tried again."""
        arrived = _within(error.delivered, self.remaining)
        return arrived, _within(error.refused, self.remaining - arrived)

    def shrink(self, done: int) -> None:
        """Keep what is left when so many of the beginning are done."""
        if done:
            self.remaining -= done
            # An alert is one: where it arrived, nothing is left.
            self.payload = self.payload[done:] if self.remaining else None
            self.failed = 0

    def refused_count(self, error: PermanentError) -> int:
        """How many of what is left were refused; the others arrived."""
        return self.remaining if whole_in(error.refused) is None else _within(error.refused, self.remaining)


def _within(number: Any, most: int) -> int:
    return max(0, min(whole_in(number) or 0, most))
