"""The one guard."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from callbot_latency.base import internal_errors as guard
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import RateLimiter, call_safely, raise_internal_errors, try_call


@pytest.fixture
def contained_for_real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Faults are held, as in production, and the guard may speak."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    monkeypatch.setattr(guard, "_speak", RateLimiter())
    return


class Busy(Exception):
    """An answer of a reporter."""


def _fail(_: object = None) -> None:
    raise RuntimeError("what the caller said: +33612345678")


def _count(reason: str) -> int:
    return dropped.by_reason().get(reason, 0)


def test_result_passes() -> None:
    """What the function returns is returned."""
    assert call_safely(max, 1, 2) == 2


@pytest.mark.promise("internal-fault")
@pytest.mark.usefixtures("contained_for_real")
@pytest.mark.parametrize("fault", [RuntimeError, RecursionError, MemoryError, UnicodeError])
def test_fault_is_counted_and_logged_once(fault: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    """A fault becomes None, a count each and one line without the fault's own text."""
    before = _count("internal_error")

    def fail() -> None:
        raise fault("secret")

    assert [call_safely(fail) for _ in range(3)] == [None, None, None]
    assert _count("internal_error") - before == 3
    assert len(caplog.records) == 1
    assert fault.__name__ in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.promise("callers-exception")
@pytest.mark.usefixtures("contained_for_real")
@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_is_the_applications_passes(passing: type[BaseException]) -> None:
    """Interrupts, exits and cancellations go through."""

    def fail() -> None:
        raise passing

    with pytest.raises(passing):
        call_safely(fail)


def test_reraises_under_the_switch() -> None:
    """With the switch on, as in this suite, a fault is raised."""
    with pytest.raises(RuntimeError):
        call_safely(_fail)
    with pytest.raises(RuntimeError):
        try_call(_fail, (None,), "x", 1)


@pytest.mark.usefixtures("contained_for_real")
@pytest.mark.parametrize("fault", [ValueError, SystemExit, asyncio.CancelledError])
def test_failed_delivery_counts_its_amount_once(fault: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """On our threads every fault is held, and counted under the one reason that was given."""

    def fail(_: object) -> None:
        raise fault("secret")

    before = dropped.by_reason()
    try_call(fail, (None,), "guard_test_failed", 7)
    after = dropped.by_reason()
    assert {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)} == {
        "guard_test_failed": 7
    }
    assert caplog.records[0].levelno == logging.ERROR


def test_an_answer_is_given_back_as_it_was_raised() -> None:
    """With its cause, which is the reporter's own; it is neither counted nor logged."""

    def fail() -> None:
        try:
            _fail()
        except RuntimeError as cause:
            raise Busy(429) from cause

    result, answer = try_call(fail, (), "x", 1, (Busy,))
    assert (result, str(answer)) == (None, "429")
    assert isinstance(answer, Busy)
    assert isinstance(answer.__cause__, RuntimeError)


def test_at_most_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """It speaks at once, then again only after its interval."""
    now_s = 100.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: now_s)
    speak = RateLimiter(60)
    assert [speak(), speak()] == [True, False]
    now_s += 60
    assert [speak(), speak()] == [True, False]
