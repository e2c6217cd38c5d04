"""What is counted and logged of deliveries and losses."""

import logging
from collections.abc import Sequence

import pytest

from callbot_latency import LatencyMetric, PermanentError, TransientError
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.delivery.lane import Lane
from tests.support.lanes import (
    SLOW,
    Answering,
    LaneOf,
    OfTurns,
    Reporter,
    metrics,
    new_drops,
    turns,
)


def test_failing_batch_is_counted_once_and_the_next_arrives(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that its reporter fails on is counted under one reason; the lane lives on, even after SystemExit."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    before = dropped.by_reason()
    faults: list[BaseException | None] = [RuntimeError(), SystemExit(), None]
    taken: list[int] = []

    def report(batch: Sequence[LatencyMetric]) -> None:
        if fault := faults.pop(0):
            raise fault
        taken.append(len(batch))

    reporter.report = report  # type: ignore[method-assign]
    lane = Lane("failing", reporter)
    lane.start()
    for amount in (2, 3, 4):
        lane.report(metrics(amount))
    assert lane.close(60)
    assert taken == [4]
    assert new_drops(before) == {"failing_failed": 5}


def test_turns_that_have_no_room_are_counted() -> None:
    """They share the room of measurements."""
    reporter = OfTurns()
    reporter.may_go.clear()
    lane = Lane("turns_full", reporter, capacity=5)
    lane.start()
    lane.report(metrics(1))
    assert reporter.entered.wait(60)
    lane.report(metrics(3))
    lane.report_turns(turns(1, 2, 3, 4))
    status = lane.status()
    assert (status.accepted, status.pending, status.dropped) == (8, 6, {"turns_full_lane_full": 2})
    reporter.may_go.set()
    assert lane.close(60)
    assert reporter.came[-1] == ("turns", [1, 2])


def test_each_delivery_retry_and_drop_stands_in_the_log(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG shows all; one WARNING a minute says what was lost, why, and what to do; a secret never."""
    caplog.set_level(logging.DEBUG, "callbot_latency.reporters.told")
    secret = "https://hooks.slack.com/services/T000/B000/XXXX"
    refused = [PermanentError(f"no_service at {secret} - make a new webhook") for _ in range(3)]
    lane = lane_of(Answering(TransientError(f"503 of {secret}"), None, *refused), "told")
    for _ in range(4):
        lane.report(metrics(1))
    assert lane.flush(60)
    assert lane.close(60)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said[:2] == [("DEBUG", "1 again in 0.0 s: 503 of [slack-webhook]"), ("DEBUG", "delivered 1")]
    drop = "dropped since the last such line: told_refused: 1 (no_service at [slack-webhook] - make a new webhook)"
    assert said[2:] == [("WARNING", drop), ("DEBUG", drop), ("DEBUG", drop)]
    assert lane.status().last_error == "no_service at [slack-webhook] - make a new webhook"


@pytest.mark.promise("secrets")
def test_the_text_of_a_fault_is_nowhere(
    lane_of: LaneOf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may quote what a caller said: its type alone is told."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    caplog.set_level(logging.DEBUG)
    lane = lane_of(Answering(ValueError("my card is 4970")), "faulty")
    lane.report(metrics(1))
    assert lane.close(60)
    assert lane.status().last_error == "ValueError"
    assert lane.status().dropped == {"faulty_failed": 1}
    assert "4970" not in caplog.text


@pytest.mark.promise("overload")
def test_the_log_says_a_loss_once_a_minute(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """Of a thousand refusals there is one line at WARNING, and at the end one for those that it did not know of yet."""
    lane = lane_of(Answering(*[PermanentError("unauthorized, set INFLUXDB_TOKEN") for _ in range(1000)]), "once")
    for _ in range(1000):
        lane.report(metrics(1))
    assert lane.flush(60)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "once_refused: 1 (unauthorized, set INFLUXDB_TOKEN)" in caplog.text
    assert lane.close(60)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "once_refused: 999 " in caplog.text


@pytest.mark.promise("chaos")
def test_the_log_says_at_the_end_what_was_not_confirmed(lane_of: LaneOf, caplog: pytest.LogCaptureFixture) -> None:
    """Also within the minute of the line before; then nothing is counted that no line told."""
    lane = lane_of(Answering(PermanentError("no"), *[TransientError("away") for _ in range(50)]), "away", retry=SLOW)
    lane.report(metrics(1))
    assert lane.flush(60)
    lane.report(metrics(3))
    assert not lane.close(60)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(": ")[2] for line in lines] == ["away_refused: 1 (no)", "away_unconfirmed: 3 (away)"]
