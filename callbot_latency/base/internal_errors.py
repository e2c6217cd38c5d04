"""The one guard: a fault of ours is logged and counted, and never reaches the code that we measure."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from .. import semconv
from .drop_counters import dropped

__all__ = ["RateLimiter", "call_safely", "raise_internal_errors", "try_call"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(semconv.LOGGER_GUARD)


class _Flag:
    """Whether internal errors are raised again. The test suite sets it, so that a swallowed bug fails a test."""

    __slots__ = ("enabled",)

    def __init__(self) -> None:
        self.enabled: bool = False


raise_internal_errors: Final = _Flag()


class RateLimiter:
    """True at the first call, then once per `interval_s` seconds of the monotonic clock."""

    __slots__ = ("_interval_s", "_next_s")

    def __init__(self, interval_s: float = 60.0) -> None:
        self._interval_s = interval_s
        self._next_s = float("-inf")

    def __call__(self) -> bool:
        """Whether this is the time to speak."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._interval_s
        return True


_speak = RateLimiter()


def call_safely(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """Call `function` and return its result, or None after a fault, which is counted and logged at most once a minute.

    Only `Exception` is held: KeyboardInterrupt, SystemExit, CancelledError and GeneratorExit are the application's.
    """
    try:
        return function(*args, **kwargs)
    except Exception as fault:  # noqa: BLE001 - the one place that catches
        _log_error(function, fault, semconv.DROPPED_INTERNAL_ERROR, 1)
        return None


def try_call(
    function: Callable[..., R],
    arguments: Sequence[Any],
    reason: str,
    amount: int,
    answers: tuple[type[Exception], ...] = (),
) -> tuple[R | None, BaseException | None]:
    """Call `function` on an internal thread; a fault of any kind is `amount` dropped for `reason`, and logged.

    Even SystemExit is held: it could only end this thread, never the application.

    Args:
        function: a method of a reporter.
        arguments: what it is given.
        reason: what a fault is counted as.
        amount: how much a fault loses; 0 where the caller counts it.
        answers: exceptions that are no fault but an answer: returned, neither counted nor logged.

    Returns:
        What it returned and what it raised; one of them is None.

    """
    try:
        return function(*arguments), None
    except answers as answer:
        return None, answer
    except BaseException as fault:  # noqa: BLE001 - see above
        _log_error(function, fault, reason, amount)
        return None, fault


def _log_error(function: Callable[..., Any], fault: BaseException, reason: str, amount: int) -> None:
    if raise_internal_errors.enabled:
        raise fault
    if amount:
        dropped.add(reason, amount)
    if _speak():
        # The type and the place alone: a fault's text may quote what the caller said. A handler may raise too.
        with contextlib.suppress(Exception):
            _log.error(
                "callbot_latency failed in %s (%s); the application is unaffected, this telemetry is lost",
                getattr(function, "__qualname__", type(function).__name__),
                type(fault).__name__,
            )
