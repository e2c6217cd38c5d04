"""`check_reporter_contract`: a right reporter passes, ours are such, and each wrong one is told what is wrong."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from callbot_latency import Alert, LatencyMetric, LatencyReporter, PermanentError, TransientError, TurnMetric
from callbot_latency.reporters.apprise import AppriseReporter
from callbot_latency.reporters.slack import SlackReporter
from callbot_latency.testing import Answer, Server, check_reporter_contract
from tests.support import scripted_http as scripted
from tests.support.subprocesses import facts_of, run_python

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine has minutes for a scenario, and one for an answer."""
    monkeypatch.setattr("callbot_latency.testing.TIMEOUT_S", 200.0)
    monkeypatch.setitem(SlackReporter.__init__.__kwdefaults__, "timeout_s", 60.0)


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


class OfAlerts:
    """A channel: no measurements."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def notify(self, alert: Alert) -> None:
        Whole(self.server).report([alert.metric])


class OfAll(OfTurnsToo):
    def notify(self, alert: Alert) -> None:
        self.report([alert.metric])


@pytest.mark.promise("busy-servers")
@pytest.mark.parametrize("make", [Whole, OneByOne, OfTurnsToo, KeepingTurns, OfAlerts, OfAll])
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


def test_a_reporter_that_cannot_tell_a_refusal_is_asked_for_the_law_alone() -> None:
    """What is refused is tried again, gets through where it can, and is counted where it never does."""
    servers: list[Server] = []

    def make(server: Server) -> NeverGivingUp:
        servers.append(server)
        return NeverGivingUp(server)

    check_reporter_contract(make, knows_refusals=False)
    assert {server.scenario: len(set(server.taken)) for server in servers} == {
        "ok": 60,
        "transient": 60,
        "permanent": 0,
        "mixed": 60,
        "slow": 60,
    }


ANSWERS = {
    Answer.TAKE: scripted.Answer(200, b"ok"),
    Answer.BUSY: scripted.Answer(503),
    Answer.REFUSE: scripted.Answer(404, b"no_service"),
}


class Channels:
    """The fake behind a channel: a web server that finds the call_sid in each message."""

    def __init__(self, servers: ExitStack) -> None:
        self._servers = servers

    def url_of(self, server: Server) -> str:
        def answer(request: scripted.Request) -> scripted.Answer:
            return ANSWERS[server.request(set(re.findall(r"CA[0-9a-f]{32}", request.body.decode())))]

        return self._servers.enter_context(scripted.scripted(answer)).url

    def slack(self, server: Server) -> SlackReporter:
        return SlackReporter(f"{self.url_of(server)}/services/T/B/x")

    def apprise(self, server: Server) -> AppriseReporter:
        return AppriseReporter(self.url_of(server).replace("http://", "json://") + "/?cto=60&rto=60")


@pytest.mark.promise("busy-servers")
def test_slack_keeps_the_contract() -> None:
    """60 alerts a scenario, with real requests: none lost unsaid, none posted twice."""
    with ExitStack() as servers:
        check_reporter_contract(Channels(servers).slack)


@pytest.mark.promise("busy-servers")
def test_apprise_keeps_the_contract() -> None:
    """It does not tell a refusal, so what is refused for ever is given up after all its attempts, and counted."""
    with ExitStack() as servers:
        check_reporter_contract(Channels(servers).apprise, knows_refusals=False)


@pytest.mark.promise("busy-servers")
def test_the_file_keeps_the_contract(tmp_path: Path) -> None:
    """Measurements and turns, on a disk that is full, in a folder that is closed, with a folder in the file's place.

    The system refuses for real: half a batch is written before the limit, and whole lines are left. In a process of
    its own, since the limit is the whole process's.
    """
    done = run_python(
        """
from tests.support.faulty_file import FaultyFile
from callbot_latency import testing
from callbot_latency.testing import check_reporter_contract

testing.TIMEOUT_S = 60.0
played = []
def make(server):
    played.append(FaultyFile(server))
    return played[-1]

check_reporter_contract(make, knows_refusals=False)
tell(
    taken=[[file.server.scenario, len(file.server.taken)] for file in played],
    refused=sorted({error for file in played for error in file.refused}),
    torn=sum(file.halves for file in played),
)
""",
        tmp_path,
    )
    facts = facts_of(done)
    arriving = [[scenario, 60] for scenario in ("ok", "transient", "mixed", "slow") for _ in range(2)]
    assert sorted(facts["taken"]) == sorted([*arriving, ["permanent", 0], ["permanent", 0]])
    assert facts["refused"] == ["EACCES", "EISDIR", "ENOSPC"]
    assert facts["torn"] > 10


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


class SwallowingAlerts(OfAlerts):
    def notify(self, alert: Alert) -> None:
        self.server.request(ids([alert.metric]))


class AlertsTwice(OfAlerts):
    """Two services, the first of which gets it again when the second one ails."""

    def notify(self, alert: Alert) -> None:
        super().notify(alert)
        if self.server.requests % 5 == 0:
            raise TransientError("the other one ails")


class Deaf:
    """Takes nothing at all."""

    def __init__(self, server: Server) -> None:
        pass


@pytest.mark.promise("busy-servers")
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
        (SwallowingAlerts, r"scenario transient: .* notify\(\) answered as if .* an error was swallowed"),
        (AlertsTwice, "scenario ok: .* alerts were delivered twice"),
        (Deaf, r"neither report\(\) nor report_turns\(\) nor notify\(\)"),
        (FailingOnTurns, r"scenario ok: report_turns\(\) raised TypeError, .* 60 turns are lost"),
    ],
)
def test_a_wrong_reporter_is_told_what_is_wrong(make: Callable[[Server], Whole], told: str) -> None:
    """One AssertionError that names the scenario and the fault."""
    with pytest.raises(AssertionError, match=told):
        check_reporter_contract(make)


def test_what_is_lost_is_told_also_of_a_reporter_that_cannot_tell_a_refusal() -> None:
    """A busy server takes it the next time: nobody may give up before."""
    with pytest.raises(AssertionError, match="scenario transient: measurements were lost though the server took"):
        check_reporter_contract(GivingUpAtOnce, knows_refusals=False)
