"""Which provider answered: the attempts of one operation, one after the other or at the same time.

An attempt is a measurement of its own, `<operation_name>.attempt`, with its own provider. It is no operation: it has
no thresholds and no severity, and stands in instruments of its own, so that no sum over operations counts it again.
The operation around it keeps the latency that the caller waited for, and says who answered.

Attempts of one operation may run in any task or thread. Each is taken out of `_Attempts.open` by whoever ends it, its
own block or the end of the operation, so that each is told exactly once and without a lock.
"""

import itertools
import logging
from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter_ns
from typing import Any, Final

from opentelemetry.context import Context, get_current

from .. import semconv
from ..base.internal_errors import RateLimiter, call_safely
from ..base.text import text_of_any
from ..model.operation import OperationStatus, OperationType
from ..model.units import NS_PER_MS
from ..tracing.context import OPERATION, attach, detach
from ..tracing.span_status import error_message, status_of, type_name
from .active_session import ActiveSession, NotStartedSession
from .measurement import Handle, Measurement, Operation, checked_metadata, checked_text
from .reentrant import ReentrantContext

__all__ = ["AttemptHandle", "attempt"]

_log = logging.getLogger(semconv.LOGGER_ATTEMPTS)
_speak = RateLimiter()


class AttemptHandle(Handle):
    """What an attempt may say of itself; this one, given while nothing is measured, listens to nothing."""

    __slots__ = ()

    def reject(self, reason: str = semconv.REJECTED, /) -> None:
        """Say that what came is no answer, such as an empty transcript, so that another is asked.

        `reason` becomes the operation's `switch_reason`; keep it of low cardinality. The attempt stays a success,
        since its provider did answer, and its latency counts.
        """


@dataclass(slots=True, eq=False)
class _Attempt(AttemptHandle):
    """An open attempt of an operation."""

    attempts: "_Attempts"
    measurement: Measurement
    number: int
    context: Context
    token: "Token[Context]" = field(init=False)
    reason: str | None = None
    """Why it is no answer; None where it is one, or is not over."""
    overtaken: bool = False
    """Whether another one answered while it ran."""
    hedge: str | None = None

    def set_provider(self, provider: str | None, /) -> None:
        self.measurement.set_provider(provider)

    def set_metadata(self, /, **metadata: Any) -> None:
        self.measurement.set_metadata(**metadata)

    def mark_first_output(self) -> None:
        self.measurement.mark_first_output()

    def set_audio(self, *, duration_ms: float | None = None, size_bytes: int | None = None) -> None:
        self.measurement.set_audio(duration_ms=duration_ms, size_bytes=size_bytes)

    def reject(self, reason: str = semconv.REJECTED, /) -> None:
        if self.measurement.is_open:
            self.reason = text_of_any(reason) or semconv.REJECTED

    @property
    def provider(self) -> str | None:
        """Whose it is: its code may have named another one than was asked for."""
        return self.measurement.provider


class _Attempts:
    """What is known of an operation's attempts, a bounded amount however many there are."""

    first: _Attempt

    def __init__(self, session: ActiveSession, operation: Measurement) -> None:
        self._session = session
        self._operation = operation
        self._numbers = itertools.count(1)
        self.requested: str | None = None
        self.open: dict[int, _Attempt] = {}
        self.answered: _Attempt | None = None
        self._tried: set[str | None] = set()
        self._losers: set[str] = set()

    def begin(self, measurement: Measurement) -> _Attempt:
        begun = _Attempt(self, measurement, next(self._numbers), measurement.context)
        if vars(self).setdefault("first", begun) is begun:
            self.requested = measurement.provider
        self.open[begun.number] = begun
        return begun

    def end(self, ended: _Attempt, exc: BaseException | None) -> None:
        """Its block is over."""
        measurement = ended.measurement
        measurement.elapsed_ns = perf_counter_ns() - measurement.start_ns
        detach(ended.token, ended.context, exc)
        if self.open.pop(ended.number, None) is None:
            return  # the operation was over first, and took it as cancelled
        if exc is None and ended.reason is None:
            self._answer(ended)
        elif exc is not None:
            ended.reason = _reason(exc)
        if ended.overtaken:
            self._lose(ended, exc)
            exc = None
        self._end(ended, exc)

    def _answer(self, ended: _Attempt) -> None:
        if ended.overtaken:
            return
        others = list(self.open.values())
        for other in others:
            other.overtaken = True
        if others:
            ended.hedge = semconv.WINNER
        self.answered = ended
        self._operation.set_provider(ended.provider)

    def _lose(self, ended: _Attempt, exc: BaseException | None) -> None:
        """What is left of a loser is nobody's: that it was broken off says nothing about its provider."""
        ended.hedge, ended.reason = semconv.LOSER, semconv.HEDGE
        if ended.provider:
            self._losers.add(ended.provider)
        if exc is not None:
            ended.measurement.status = OperationStatus.CANCELLED
            ended.measurement.error_message = error_message(exc)
            call_safely(ended.measurement.span.set_attribute, semconv.ERROR_TYPE, type_name(exc))

    def _end(self, ended: _Attempt, exc: BaseException | None) -> None:
        measurement = ended.measurement
        self._tried.add(ended.provider)
        measurement.facts = {semconv.ATTEMPT: ended.number}
        if ended.hedge is not None:
            measurement.facts[semconv.HEDGE] = ended.hedge
        measurement.span.set_attributes(measurement.facts)
        self._session.end(measurement, exc)

    def settle(self) -> None:
        """The operation is over: what still runs is abandoned, and what is known of all stands on the operation."""
        now_ns, count, operation = perf_counter_ns(), next(self._numbers) - 1, self._operation
        for number in list(self.open):
            abandoned = self.open.pop(number, None)
            if abandoned is not None:
                abandoned.reason = semconv.HEDGE if count > 1 else OperationStatus.CANCELLED.value
                self._abandon(abandoned, now_ns)
        if self.answered is None and operation.provider is None and len(self._tried) == 1:
            operation.set_provider(*self._tried)
        facts = self._facts(count)
        operation.facts = {**operation.facts, **facts}
        operation.span.set_attributes(facts)
        # What waits for the worker stays small and refers to itself nowhere; attempts refer to this.
        operation.attempts = self.answered = None
        vars(self).pop("first", None)

    def _abandon(self, abandoned: _Attempt, now_ns: int) -> None:
        measurement = abandoned.measurement
        measurement.elapsed_ns = now_ns - measurement.start_ns
        measurement.status = OperationStatus.CANCELLED
        if abandoned.overtaken:
            self._lose(abandoned, None)
        self._end(abandoned, None)

    def _facts(self, count: int) -> dict[str, Any]:
        facts: dict[str, Any] = {semconv.PROVIDER_REQUESTED: self.requested, semconv.ATTEMPTS: count}
        first, answered = self.first, self.answered
        reason = first.reason
        if reason is None and answered is not None and answered.provider != first.provider:
            reason = semconv.REJECTED  # it answered, and yet another provider was asked
        if count > 1 and reason is not None:
            facts[semconv.SWITCH_REASON] = reason
            # Where threads begin some at once, the one that was counted first may have begun later: nothing was lost.
            if answered is not None and answered.measurement.start_ns >= first.measurement.start_ns:
                facts[semconv.LOST_MS] = (answered.measurement.start_ns - first.measurement.start_ns) / NS_PER_MS
        if self._losers:
            facts[semconv.HEDGE_LOSERS] = ", ".join(sorted(self._losers))
        return {name: fact for name, fact in facts.items() if fact is not None}


def _reason(exc: BaseException) -> str:
    status = status_of(exc)
    return type_name(exc) if status is OperationStatus.ERROR else status.value


@lru_cache(maxsize=1024)
def _attempt_of(
    kind: OperationType, name: str, is_awaited: bool, provider: str, audio_bytes_per_s: float | None
) -> Operation:
    return Operation(kind, name, provider, is_awaited=is_awaited, is_attempt=True, audio_bytes_per_s=audio_bytes_per_s)


class attempt(ReentrantContext[AttemptHandle, _Attempt]):  # noqa: N801 - used as a verb, like contextlib.suppress
    """Try one provider for the measured operation around it, with ``with`` or ``async with``; yields a handle.

    The attempt that ends without an exception, and was not rejected by ``handle.reject(reason)``, is the answer, and
    names the operation's provider; of several one after the other, the last. Where attempts overlap in time (a hedged
    request), the first to answer is the winner, and whatever still runs then is a loser, ``cancelled`` also where the
    application simply leaves it behind. In a thread of an executor, hand the function over by `bind()`.

    Outside of a measured operation, and once that has ended, nothing is measured: an attempt has no type of its own.
    Outside of one, the log says so, at most once a minute. An attempt within an attempt is an attempt of the outer one.

    Args:
        provider: who is asked, such as ``google`` or ``openai``.
        metadata: facts for this attempt, such as ``{"model": "latest_long"}``.

    Raises:
        TypeError, ValueError: `provider` is no string or empty, or metadata no mapping.

    """

    __slots__ = ("_metadata", "_provider")

    def __init__(self, provider: str, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._provider = checked_text("provider", provider) or ""
        if not self._provider:
            raise ValueError(f"provider: expected a name such as 'google', got {provider!r}")
        self._metadata = checked_metadata(metadata)
        super().__init__()

    def _yielded(self, state: _Attempt | None) -> AttemptHandle:
        return _NOOP_HANDLE if state is None else state

    def _close(self, state: _Attempt, exc: BaseException | None) -> None:
        state.attempts.end(state, exc)

    def _open(self, session: ActiveSession) -> _Attempt | None:
        around: Any = get_current().get(OPERATION)
        if around is None:
            if not isinstance(session, NotStartedSession) and _speak():
                _log.warning(
                    "attempt(%r) is within no measured operation, and is not measured; "
                    "in a thread of an executor, hand the function over by callbot_latency.bind()",
                    self._provider,
                )
            return None
        if not around.is_open:
            return None
        attempts: _Attempts = vars(around).setdefault("attempts", _Attempts(session, around))
        # An operation's own metadata has no hash: only what an attempt takes of it is looked up.
        of = around.operation
        name = of.name if of.is_attempt else of.name + semconv.ATTEMPT_SUFFIX
        operation = _attempt_of(of.type, name, of.is_awaited, self._provider, of.audio_bytes_per_s)
        measurement = session.start(operation, None, around.call_sid, around.stream_sid, self._metadata)
        begun = attempts.begin(measurement)
        begun.token = attach(measurement.context)
        return begun


_NOOP_HANDLE: Final = AttemptHandle()
