"""`check_reporter_contract`: a right reporter passes, and each kind of wrong one is told what is wrong."""

from collections.abc import Callable, Sequence

import pytest

from callbot_latency import LatencyMetric, PermanentError, TransientError
from callbot_latency.testing import Answer, Server, check_reporter_contract


def ids(batch: Sequence[LatencyMetric]) -> list[str]:
    return [metric.call_sid or "" for metric in batch]


class Whole:
    """One request a batch."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def report(self, batch: Sequence[LatencyMetric]) -> None:
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


@pytest.mark.parametrize("make", [Whole, OneByOne])
def test_a_right_reporter_passes(make: Callable[[Server], Whole]) -> None:
    """In every scenario, whether it sends a batch at once or one by one."""
    check_reporter_contract(make)


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
    ],
)
def test_a_wrong_reporter_is_told_what_is_wrong(make: Callable[[Server], Whole], told: str) -> None:
    """One AssertionError that names the scenario and the fault."""
    with pytest.raises(AssertionError, match=told):
        check_reporter_contract(make)
