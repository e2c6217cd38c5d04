"""While a reporter hangs, a measured call waits for nobody and does no I/O: shown without a clock.

What it costs is in `make bench ARGS="--only tail"`.
"""

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from callbot_latency import LatencyMetric, attempt, call, measure_latency_context, record, report_manager, turn
from tests.conftest import Start
from tests.measuring.test_hot_path import RUNS

LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Semaphore)
OWNERS = ("callbot_latency", "opentelemetry", "logging")
IO = ("open", "os", "socket", "subprocess", "shutil", "tempfile", "fcntl", "time")
ROUNDS = 500


watched: set[int] = set()
asked: list[str] = []


def audit(event: str, _: object) -> None:
    """Python calls it before each system call that it tells of."""
    if watched and threading.get_ident() in watched and event.partition(".")[0] in IO:
        asked.append(event)


sys.addaudithook(audit)


class Hanging:
    """Has a batch in hand, and does not return before it may."""

    def __init__(self) -> None:
        self.entered, self.may_return = threading.Event(), threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.entered.set()
        self.may_return.wait()


@pytest.fixture
def hanging(start: Start) -> Iterator[Hanging]:
    start()
    reporter = Hanging()
    report_manager.add_reporter(reporter)
    RUNS["a function"]()
    assert reporter.entered.wait(60)
    try:
        yield reporter
    finally:
        reporter.may_return.set()
        report_manager.remove_reporter(reporter)


def locks_there() -> list[Any]:
    """Every lock that something of ours, of OpenTelemetry or of logging has; those of one call are made within it."""
    found = {}
    for thing in gc.get_objects():
        if str(type(thing).__module__).partition(".")[0] in OWNERS:  # a class written in C may have no text there
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            names = {*getattr(thing, "__dict__", ()), *slots}
            values = (getattr(thing, name, None) for name in names if isinstance(name, str))
            found.update({id(value): value for value in values if isinstance(value, LOCKS)})
    return list(found.values())


class Held:
    """Another thread holds these; what somebody else has is held already."""

    def __init__(self, locks: Sequence[Any]) -> None:
        self._holding, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(locks,), daemon=True)

    def _hold(self, locks: Sequence[Any]) -> None:
        mine = [lock for lock in locks if lock.acquire(timeout=0.05)]
        self._holding.set()
        self._leave.wait()
        for lock in mine:
            lock.release()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._holding.wait(60)

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(60)


def a_turn() -> None:
    with turn() as current:
        current.speech_ended()
        with measure_latency_context("rag_inference", "ask") as handle, attempt("google"):
            handle.set_metadata(a=1)
        current.audio_sent()


def a_metric() -> None:
    record(LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))  # type: ignore[arg-type]


KINDS: dict[str, Callable[[], object]] = {**RUNS, "a turn": a_turn, "a metric": a_metric}


@pytest.mark.promise("hanging-consumer")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("hanging")
def test_a_measured_call_waits_for_nobody(kind: str) -> None:
    """Every lock there is is held by another thread meanwhile: 500 calls end, and did no I/O."""
    ended: list[str] = []
    asked.clear()

    def caller() -> None:
        with call("CA1", stream_sid="MZ1"):
            KINDS[kind]()
            watched.add(threading.get_ident())
            for _ in range(ROUNDS):
                KINDS[kind]()
            watched.clear()
        ended.append(kind)

    calling = threading.Thread(target=caller, daemon=True)
    locks = locks_there()
    assert len(locks) > 20
    with Held(locks):
        calling.start()
        calling.join(60)
        assert ended == [kind], "it waits for a lock"
    assert asked == []


def test_a_lock_that_is_waited_for_would_be_found() -> None:
    """The counter-check: what takes a lock of ours does not end while that is held."""
    lock = threading.Lock()
    waiting = threading.Thread(target=lambda: lock.acquire() and lock.release(), daemon=True)
    with Held([lock]):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(60)
    assert not waiting.is_alive()
