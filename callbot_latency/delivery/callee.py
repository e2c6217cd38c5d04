"""How a lane calls its reporter's methods, other than for batches."""

from typing import TYPE_CHECKING, Any, NamedTuple

from .. import semconv
from ..base.internal_errors import try_call
from .errors import PermanentError, TransientError, error_text, whole_in
from .probe import Probe

if TYPE_CHECKING:
    from ..model.alert import Alert

__all__ = ["CloseResult", "ReporterCalls"]


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
        results: list[object] = []

        def call(_: None) -> None:
            results.append(function())

        call.__qualname__ = getattr(function, "__qualname__", method)
        answers = (TransientError, PermanentError)
        error = try_call(call, None, semconv.DROPPED_INTERNAL_ERROR, 1, answers)
        return (results[0] if results else None), error
