"""What the author of a reporter needs to prove it: `check_reporter_contract`."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import cycle
from typing import Any, Final, NamedTuple

from .base.internal_errors import raise_internal_errors
from .delivery.accounting import ReporterStatus
from .delivery.attempt import Retry
from .delivery.lane import Lane
from .delivery.protocols import LatencyReporter, Notifier
from .model.alert import Alert
from .model.metric import LatencyMetric
from .model.operation import OperationStatus, OperationType, Severity
from .model.turn_metric import TurnMetric
from .semconv import DROPPED_FAILED_SUFFIX, DROPPED_REFUSED_SUFFIX, DROPPED_UNCONFIRMED_SUFFIX
from .timeline import Anchor

__all__ = ["Answer", "Server", "check_reporter_contract"]

MEASUREMENTS: Final = 60
BATCH_SIZE: Final = 10
LATE_S: Final = 0.01
TIMEOUT_S: Final = 30.0


class Answer(StrEnum):
    """What the server of the test does with a request."""

    TAKE = "take"
    """Takes all of it, and says so."""
    BUSY = "busy"
    """Takes nothing, and asks to come again: HTTP 429 or 503, a reset connection."""
    REFUSE = "refuse"
    """Takes nothing, and never will: HTTP 400, 401, 404."""


_PLANS: Final[dict[str, Sequence[Answer]]] = {
    "ok": [Answer.TAKE],
    "transient": [Answer.BUSY, Answer.TAKE, Answer.TAKE, Answer.BUSY, Answer.BUSY],
    "permanent": [Answer.REFUSE],
    "mixed": [Answer.TAKE, Answer.BUSY, Answer.REFUSE, Answer.TAKE, Answer.TAKE, Answer.REFUSE, Answer.BUSY],
    "slow": [Answer.TAKE],
}


@dataclass
class Server:
    """The server that a reporter under test talks to: it keeps what it took, and answers as the scenario says.

    Safe from any thread.

    Attributes:
        scenario: ``ok``, ``transient``, ``permanent``, ``mixed`` or ``slow``.
        requests: how many requests there were.
        taken: the ids (`LatencyMetric.call_sid`, `TurnMetric.call_sid`, `Alert.metric.call_sid`) that it took, each as
            often as it came.

    """

    scenario: str
    requests: int = 0
    taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = cycle(_PLANS[self.scenario])

    def request(self, ids: Iterable[str]) -> Answer:
        """Say what becomes of a request that carries these ids; they are kept where the answer is `Answer.TAKE`."""
        if self.scenario == "slow":
            time.sleep(LATE_S)  # a server that takes its time, not a wait for something
        with self._lock:
            self.requests += 1
            answer = next(self._answers)
            if answer is Answer.TAKE:
                self.taken += ids
            return answer


def check_reporter_contract(
    make: Callable[[Server], LatencyReporter | Notifier],
    *,
    scenarios: Sequence[str] = tuple(_PLANS),
    knows_refusals: bool = True,
) -> None:
    """Prove that a reporter tells the truth of what it was given: nothing lost unsaid, nothing sent twice.

    For each scenario, `make(server)` gives a new reporter whose requests end at `server`: the fake behind your
    reporter (an HTTP handler, a patched client) calls ``server.request(ids)`` with the ``call_sid`` of each
    measurement in the request, and does what the `Answer` says. 60 measurements then go through a real `Lane` in
    batches of 10, and afterwards ``accepted == delivered + dropped(reason) + pending`` must hold, and agree with what
    the server took:

    - ``ok`` and ``slow`` (10 ms a request): everything arrived, once;
    - ``transient`` (busy, then takes it): everything arrived, once, after `TransientError`;
    - ``permanent``: everything is counted as refused, after `PermanentError`, and was not tried again;
    - ``mixed``: what was refused is counted as refused, everything else arrived, once.

    Where the reporter has ``report_turns``, another one of `make` is handed 60 turns the same way; where it has
    ``notify``, 60 critical alerts, one at a time.

    Args:
        make: gives a reporter that talks to the server.
        scenarios: which of them to play.
        knows_refusals: False for a reporter that cannot tell a refusal from a server that is busy, as with a file that
            may not be written: what is refused is then tried again too, and counted where all attempts were in vain.

    Raises:
        AssertionError: the reporter breaks the contract; the message says in which scenario, and how.

    """
    for scenario in scenarios:
        reporter = make(server := Server(scenario))
        first, *others = _kinds_of(reporter)
        _prove(server, reporter, first, knows_refusals=knows_refusals)
        for kind in others:
            reporter = make(server := Server(scenario))
            _prove(server, reporter, kind, knows_refusals=knows_refusals)


class _Kind(NamedTuple):
    """What goes through the lane: by which method of both, what a message calls it, and how the lane is handed one."""

    method: str
    what: str
    given: Callable[[int], Any]


def _prove(server: Server, reporter: LatencyReporter | Notifier, kind: _Kind, *, knows_refusals: bool) -> None:
    status = _play(reporter, kind)
    for wrong in _findings(server, status, kind, knows_refusals=knows_refusals):
        raise AssertionError(f"scenario {server.scenario}: {wrong}; {status}")


def _play(reporter: LatencyReporter | Notifier, kind: _Kind) -> ReporterStatus:
    """Send everything through a lane that waits for no back-off."""
    retry = Retry(base_s=0.001, cap_s=0.001, asked_cap_s=0.001)
    lane = Lane("contract", reporter, batch_size=BATCH_SIZE, interval_s=TIMEOUT_S, retry=retry)
    before, raise_internal_errors.enabled = raise_internal_errors.enabled, False
    try:
        lane.start()
        for n in range(MEASUREMENTS):
            getattr(lane, kind.method)(kind.given(n))
        lane.flush(TIMEOUT_S)
        lane.close(TIMEOUT_S)
    finally:
        raise_internal_errors.enabled = before
    return lane.status()


def _call_sid(n: int) -> str:
    return f"CA{n:032x}"


def _measurement(n: int) -> LatencyMetric:
    return LatencyMetric(
        OperationType.STT, "contract", 100.0 + n, OperationStatus.SUCCESS, call_sid=_call_sid(n), provider="test"
    )


def _turn(n: int) -> TurnMetric:
    return TurnMetric(_call_sid(n), 1, datetime.now(UTC), response_ms=1000.0 + n, anchor=Anchor.STT_FINAL)


def _alert(n: int) -> Alert:
    return Alert(_measurement(n), Severity.CRITICAL, 100.0)


_KINDS: Final = (
    _Kind("report", "measurements", lambda n: [_measurement(n)]),
    _Kind("report_turns", "turns", lambda n: [_turn(n)]),
    _Kind("notify", "alerts", _alert),
)


def _kinds_of(reporter: LatencyReporter | Notifier) -> list[_Kind]:
    kinds = [kind for kind in _KINDS if hasattr(reporter, kind.method)]
    if not kinds:
        raise AssertionError("neither report() nor report_turns() nor notify(): there is nothing to prove")
    return kinds


def _findings(server: Server, status: ReporterStatus, kind: _Kind, *, knows_refusals: bool) -> Iterable[str]:
    """What is wrong, the most telling first."""
    lost = {reason.removeprefix("contract"): n for reason, n in status.dropped.items()}
    if failed := lost.get(DROPPED_FAILED_SUFFIX):
        yield (
            f"{kind.method}() raised {status.last_error}, neither TransientError nor PermanentError: "
            f"{failed} {kind.what} are lost without being tried again"
        )
    if hanging := lost.get(DROPPED_UNCONFIRMED_SUFFIX):
        said = f"{hanging} {kind.what} were not confirmed in {TIMEOUT_S:.0f} s"
        yield f"{said}: {kind.method}() needs a time-out of its own"
    if knows_refusals:
        yield from _wrong_answers(server, status, kind, lost.get(DROPPED_REFUSED_SUFFIX, 0))
    elif server.scenario != "permanent" and status.dropped:
        yield f"{kind.what} were lost though the server took what was tried again: {dict(status.dropped)}"
    yield from _wrong_deliveries(server.taken, status.delivered, kind)
    if status.accepted != MEASUREMENTS:
        yield f"{status.accepted} of {MEASUREMENTS} {kind.what} were accepted"
    if status.pending or status.accepted != status.delivered + sum(status.dropped.values()):
        yield "accepted is not delivered + dropped + pending"


def _wrong_answers(server: Server, status: ReporterStatus, kind: _Kind, refused: int) -> Iterable[str]:
    if server.scenario == "permanent" and status.retried:
        yield "what the server refuses was tried again: raise PermanentError for it"
    if server.scenario == "transient" and refused:
        yield f"{refused} {kind.what} count as refused though the server was only busy: raise TransientError for it"


def _wrong_deliveries(taken: Sequence[str], delivered: int, kind: _Kind) -> Iterable[str]:
    if unknown := set(taken) - {_call_sid(n) for n in range(MEASUREMENTS)}:
        yield f"the server took what was never handed over, such as {min(unknown)!r}: are these call_sids?"
    if twice := [each for each, n in Counter(taken).items() if n > 1]:
        yield (
            f"{len(twice)} {kind.what} were delivered twice: a TransientError must say how many of the batch "
            "had arrived (delivered=)"
        )
    if len(taken) < delivered:
        yield (
            f"the server took {len(taken)}, but {kind.method}() answered as if {delivered} had arrived: "
            "an error was swallowed, or the rest of a batch was forgotten"
        )
    if len(taken) > delivered:
        yield f"the server took {len(taken)}, of which only {delivered} count as delivered"
