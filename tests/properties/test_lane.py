"""Whatever a reporter answers: accepted = delivered + dropped + pending, nothing twice, nothing out of order."""

import threading
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import LatencyMetric, PermanentError, ReporterStatus, TransientError, TurnMetric
from callbot_latency.delivery.attempt import Retry
from callbot_latency.delivery.lane import Lane
from tests.support import measured

PARTS = st.integers(min_value=-1, max_value=12)
ANSWERS = {
    "ok": st.none(),
    "transient": st.builds(
        TransientError,
        st.just("busy"),
        delivered=PARTS,
        refused=st.just(0),
        retry_after_s=st.none() | st.floats(max_value=0.001),
    ),
    "permanent": st.builds(PermanentError, st.just("never"), refused=st.none() | PARTS),
}
SCENARIOS = {
    **ANSWERS,
    "mixed": st.one_of(*ANSWERS.values(), st.builds(TransientError, st.just("both"), delivered=PARTS, refused=PARTS)),
}
QUICK = Retry(attempts=4, base_s=0.001, cap_s=0.001, asked_cap_s=0.001)


class Scripted:
    """Answers as the plan says, takes what its answers say arrived, and checks the lane's numbers at each step."""

    def __init__(self, plan: list[Exception | None], *, slow: bool) -> None:
        self.plan = plan
        self.slow = slow
        self.lane: Lane | None = None
        self.arrived: list[float] = []
        self.arrived_turns: list[float] = []
        self.refused: list[float] = []
        self.wrong: list[ReporterStatus] = []
        self.nothing = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.take([metric.latency_ms for metric in batch], self.arrived)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self.take([turn.turn for turn in turns], self.arrived_turns)

    def take(self, batch: Sequence[float], arrived: list[float]) -> None:
        assert self.lane is not None
        if self.slow:
            self.nothing.wait(0.002)
        status = self.lane.status()
        if not law_holds(status) or status.pending < len(batch):
            self.wrong.append(status)
        self.answer(batch, arrived, self.plan.pop(0) if self.plan else None)

    def answer(self, batch: Sequence[float], taken: list[float], answer: Exception | None) -> None:
        if isinstance(answer, TransientError):
            arrived = max(0, min(answer.delivered, len(batch)))
            refused = max(0, min(answer.refused, len(batch) - arrived))
        elif isinstance(answer, PermanentError):
            refused = len(batch) if answer.refused is None else max(0, min(answer.refused, len(batch)))
            arrived = len(batch) - refused
        else:
            arrived, refused = len(batch), 0
        taken += batch[:arrived]
        self.refused += batch[arrived : arrived + refused]
        if answer is not None:
            raise answer


def law_holds(status: ReporterStatus) -> bool:
    return status.accepted == status.delivered + sum(status.dropped.values()) + status.pending


@given(
    scenario=st.sampled_from(sorted(SCENARIOS)),
    slow=st.booleans(),
    batches=st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=10)), max_size=20),
    batch_size=st.none() | st.integers(min_value=1, max_value=12),
    interval_s=st.sampled_from([0.0, 0.001, 60.0]),
    capacity=st.integers(min_value=1, max_value=40),
    flushed=st.booleans(),
    data=st.data(),
)
def test_accepted_is_delivered_and_dropped_and_pending(
    scenario: str,
    slow: bool,
    batches: list[tuple[bool, int]],
    batch_size: int | None,
    interval_s: float,
    capacity: int,
    flushed: bool,
    data: st.DataObject,
) -> None:
    """At every step, and at the end with nothing pending; what is told as delivered is what arrived, once, in order.

    Of turns as of measurements, which share the room and the batches.
    """
    reporter = Scripted(data.draw(st.lists(SCENARIOS[scenario], max_size=40)), slow=slow)
    lane = Lane("law", reporter, capacity, batch_size=batch_size, interval_s=interval_s, retry=QUICK)
    reporter.lane = lane
    lane.start()
    n = 0
    for are_turns, size in batches:
        if are_turns:
            lane.report_turns([measured.turn(n + m) for m in range(size)])
        else:
            lane.report([measured.metric(float(n + m)) for m in range(size)])
        n += size
        assert law_holds(lane.status())
    if flushed:
        assert lane.flush(60)
        assert lane.status().pending == 0
    lane.close(60)
    status = lane.status()
    assert reporter.wrong == []
    assert law_holds(status)
    assert (status.accepted, status.pending) == (n, 0)
    assert status.delivered == len(reporter.arrived) + len(reporter.arrived_turns)
    assert status.dropped.get("law_refused", 0) == len(reporter.refused)
    for arrived in (reporter.arrived, reporter.arrived_turns):
        assert arrived == sorted(set(arrived))
    if flushed:
        assert "law_unconfirmed" not in status.dropped
