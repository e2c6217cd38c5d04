"""`check_reporter_contract`: a right reporter passes, and each kind of wrong one is told what is wrong."""

from collections.abc import Callable, Sequence

import pytest

from callbot_latency import LatencyMetric, LatencyReporter, PermanentError, TransientError, TurnMetric
from callbot_latency.testing import Answer, Server, check_reporter_contract


def ids(batch: Sequence[LatencyMetric | TurnMetric]) -> list[str]:
    return [metric.call_sid or "" for metric in batch]


class Whole:
    """One request a batch."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def report(self, batch: Sequence[LatencyMetric | TurnMetric]) -> None:
        answer = self.server.request(ids(batch))
        if answer is Answer.BUSY:
            raise TransientError("503: busy")
        if answer is Answer.REFUSE:
            raise PermanentError("400: refused")


class OneByOne(Whole):
    """One request a measurement: it says how far it came, and how many were refused."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        refused = 0
        for n, metric in enumerate(batch):
            answer = self.server.request(ids([metric]))
            if answer is Answer.BUSY:
                raise TransientError("503", delivered=n - refused, refused=refused)
            refused += answer is Answer.REFUSE
        if refused:
            raise PermanentError("400", refused=refused)


class OfTurnsToo(Whole):
    """The same request for turns."""

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.report(turns)


class KeepingTurns:
    """Turns go with the next batch, which is empty where nothing was measured, or with the last request."""

    reports_when_idle = True

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kept: list[TurnMetric] = []

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.kept += turns

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        answer = self.server.request(ids([*self.kept, *batch]))
        if answer is Answer.BUSY:
            raise TransientError("503: busy")
        if answer is Answer.REFUSE:
            raise PermanentError("400: refused")
        self.kept.clear()

    def close(self) -> None:
        lost = len(self.kept)
        if lost:
            try:
                self.report([])
            except PermanentError:
                raise PermanentError("400: refused", refused=lost) from None


@pytest.mark.parametrize("make", [Whole, OneByOne, OfTurnsToo, KeepingTurns])
def test_a_right_reporter_passes(make: Callable[[Server], LatencyReporter]) -> None:
    """In every scenario, whether it sends a batch at once or one by one."""
    check_reporter_contract(make)


def test_turns_are_played_where_the_reporter_takes_them() -> None:
    """Each scenario twice, with a reporter and a server for each kind."""
    servers: list[Server] = []

    def make(server: Server) -> OfTurnsToo:
        servers.append(server)
        return OfTurnsToo(server)

    check_reporter_contract(make, scenarios=["ok", "transient"])
    assert [(server.scenario, len(server.taken)) for server in servers] == [
        ("ok", 60),
        ("ok", 60),
        ("transient", 60),
        ("transient", 60),
    ]


class SwallowingTurns(Whole):
    """Right, but for turns."""

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.server.request(ids(turns))


class FailingOnTurns(Whole):
    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        raise TypeError


class Swallowing(Whole):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.server.request(ids(batch))


class Twice(Whole):
    """Forgets to say how far it came."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        for metric in batch:
            super().report([metric])


class LosingTheRest(Whole):
    """Says that one was refused, and forgets those behind it."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        for n, metric in enumerate(batch):
            answer = self.server.request(ids([metric]))
            if answer is Answer.BUSY:
                raise TransientError("503", delivered=n)
            if answer is Answer.REFUSE:
                raise PermanentError("400", refused=1)


class RaisingAnything(Whole):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        if self.server.request(ids(batch)) is not Answer.TAKE:
            raise ConnectionError


class NeverGivingUp(Whole):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        if self.server.request(ids(batch)) is not Answer.TAKE:
            raise TransientError("again")


class GivingUpAtOnce(Whole):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        if self.server.request(ids(batch)) is not Answer.TAKE:
            raise PermanentError("no")


class Modest(Whole):
    """Says that it was refused what had arrived."""

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        super().report(batch)
        raise PermanentError("no", refused=1)


class OtherIds(Whole):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.server.request([metric.operation_name for metric in batch])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Swallowing, "scenario transient: .* an error was swallowed"),
        (Twice, "scenario transient: .* delivered twice"),
        (LosingTheRest, "scenario permanent: .* the rest of a batch was forgotten"),
        (RaisingAnything, "scenario transient: report.* raised ConnectionError, neither"),
        (NeverGivingUp, "scenario permanent: .* raise PermanentError"),
        (GivingUpAtOnce, "scenario transient: .* raise TransientError"),
        (Modest, "scenario ok: the server took 60, of which only 54 count"),
        (OtherIds, "scenario ok: .* are these call_sids"),
        (SwallowingTurns, r"scenario transient: .* report_turns\(\) answered as if .* an error was swallowed"),
        (FailingOnTurns, r"scenario ok: report_turns\(\) raised TypeError, .* 60 turns are lost"),
    ],
)
def test_a_wrong_reporter_is_told_what_is_wrong(make: Callable[[Server], Whole], told: str) -> None:
    """One AssertionError that names the scenario and the fault."""
    with pytest.raises(AssertionError, match=told):
        check_reporter_contract(make)
