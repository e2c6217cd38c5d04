"""A lane and reporters for the tests of deliveries."""

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import pytest

from callbot_latency import Alert, LatencyMetric, ReporterStatus, Severity, TurnMetric
from callbot_latency.base.drop_counters import dropped
from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.lane import Lane
from tests.support import measured


def metrics(amount: int) -> list[LatencyMetric]:
    return [LatencyMetric("speech_to_text", "f", float(n), "success") for n in range(amount)]  # type: ignore[arg-type]


def turns(*numbers: int) -> list[TurnMetric]:
    return [measured.turn(n) for n in numbers]


def an_alert(**fields: Any) -> Alert:
    return Alert(metrics(1)[0], Severity.CRITICAL, 5000, **fields)


class Reporter:
    def __init__(self) -> None:
        self.batches: list[Sequence[LatencyMetric]] = []
        self.alerts: list[Any] = []
        self.events: list[str] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def start(self) -> None:
        self.events.append("start")

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.entered.set()
        self.may_go.wait(100)
        self.batches.append(batch)

    def notify(self, alert: Any) -> None:
        self.alerts.append(alert)

    def close(self) -> None:
        self.events.append("close")


class Intervals:
    """The clock by which batches are due, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr("callbot_latency.delivery.buffer.monotonic", self)

    def __call__(self) -> float:
        return self.now_s

    def reach(self, now_s: float, lane: Lane) -> None:
        """It is so late now, and the thread of `lane` looks what is due."""
        self.now_s = now_s
        lane.report([])


def new_drops(before: dict[str, int]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in dropped.by_reason().items() if n != before.get(name, 0)}


class OfTurns(Reporter):
    """Notes what comes in the order in which it comes: turns by their number, measurements by their latency."""

    def __init__(self, *answers: BaseException | None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.came: list[tuple[str, list[float]]] = []
        self.clock: Callable[[], float] = monotonic
        self.at_s: list[float] = []
        self.measurements_came = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        super().report(batch)
        self.at_s.append(self.clock())
        self.came.append(("measurements", [metric.latency_ms for metric in batch]))
        self.measurements_came.set()

    def report_turns(self, batch: Sequence[TurnMetric]) -> None:
        self.at_s.append(self.clock())
        self.came.append(("turns", [turn.turn for turn in batch]))
        if self.answers and (answer := self.answers.pop(0)):
            raise answer


QUICK = Retry(base_s=0.0, cap_s=0.0, asked_cap_s=60.0)


SLOW = Retry(base_s=1e9, cap_s=1e9, asked_cap_s=1e9)


class Answering:
    """Answers one attempt after the other as told, then takes everything."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)
        self.attempts: list[list[float]] = []
        self.clock: Callable[[], float] = monotonic
        self.attempted_s: list[float] = []
        self.attempted = threading.Event()
        self.enough = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.attempted_s.append(self.clock())
        self.attempts.append([metric.latency_ms for metric in batch])
        self.attempted.set()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Alerted(Answering):
    def notify(self, alert: Alert) -> None:
        self.report([alert.metric])


LaneOf = Callable[..., Lane]


def law_holds(status: ReporterStatus) -> bool:
    return status.accepted == status.delivered + sum(status.dropped.values()) + status.pending
