"""The newest measurements and their statistics."""

import csv
import json
import math
import signal
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import (
    Alert,
    LatencyConfig,
    LatencyMetric,
    LatencyTracker,
    OperationType,
    Severity,
    TurnMetric,
    latency_tracker,
    measure_latency,
    record,
    shutdown,
)
from callbot_latency.pipeline import statistics as statistics_module
from callbot_latency.pipeline.statistics import MAX_KEYS, percentile
from callbot_latency.pipeline.tracker import KEPT
from tests.conftest import Start
from tests.support import measured

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)

metric = partial(measured.metric, timestamp=NOON)


@pytest.fixture
def tracker() -> LatencyTracker:
    return LatencyTracker()


def take_all(tracker: LatencyTracker, metrics: Iterable[LatencyMetric | TurnMetric]) -> None:
    for each in metrics:
        tracker.take(each)


def test_statistics_of_known_numbers(tracker: LatencyTracker) -> None:
    """Every key, its value and its order."""
    take_all(tracker, [metric(float(n)) for n in range(1, 101)])
    take_all(tracker, [metric(200, status="error"), metric(300, status="timeout"), metric(1e9, status="cancelled")])
    assert list(tracker.get_stats()) == ["speech_to_text/f"]
    assert tracker.get_stats()["speech_to_text/f"] == {
        "count": 103,
        "errors": 1,
        "timeouts": 1,
        "cancelled": 1,
        "mean_ms": (5050 + 500) / 102,
        "min_ms": 1.0,
        "max_ms": 300.0,
        "p50_ms": 51.5,
        "p95_ms": pytest.approx(96.95),
        "p99_ms": pytest.approx(199.0),
        "last_seen": "2025-01-01T12:00:00Z",
    }


def test_nothing_has_no_statistics(tracker: LatencyTracker) -> None:
    """None over nothing, never 0."""
    assert tracker.get_stats() == {}
    assert tracker.get_average_latency("speech_to_text") is None
    assert tracker.get_recent_metrics() == []
    assert percentile([], 0.5) is None
    take_all(tracker, [metric(status="cancelled")])
    stats = tracker.get_stats()["speech_to_text/f"]
    assert (stats["count"], stats["cancelled"]) == (1, 1)
    assert {stats[key] for key in ("mean_ms", "min_ms", "max_ms", "p50_ms", "p95_ms", "p99_ms")} == {None}


def test_statistics_of_one_type(tracker: LatencyTracker) -> None:
    """By enum or value; an unknown type is an error."""
    take_all(tracker, [metric(), metric(operation_type="rag_inference"), metric(operation_name="g")])
    assert list(tracker.get_stats(OperationType.STT)) == ["speech_to_text/f", "speech_to_text/g"]
    assert list(tracker.get_stats("rag_inference")) == ["rag_inference/f"]
    assert tracker.get_stats("text_to_speech") == {}
    with pytest.raises(ValueError, match="unknown 'stt'"):
        tracker.get_stats("stt")


def test_statistics_are_computed_once_until_something_arrives(
    tracker: LatencyTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dashboard may ask often; what it changes in an answer is its own."""
    computed: list[int] = []
    compute = statistics_module._statistics
    monkeypatch.setattr(statistics_module, "_statistics", lambda *of: (computed.append(1), compute(*of))[1])
    take_all(tracker, [metric()])
    tracker.get_stats()["speech_to_text/f"]["count"] = 99
    for _ in range(3):
        assert tracker.get_stats()["speech_to_text/f"]["count"] == 1
    assert len(computed) == 1
    take_all(tracker, [metric()])
    assert tracker.get_stats()["speech_to_text/f"]["count"] == 2
    assert len(computed) == 2


@pytest.mark.promise("percentiles")
def test_counts_outlive_what_is_kept(tracker: LatencyTracker) -> None:
    """Counts are since the reset, percentiles over the newest 10,000."""
    take_all(tracker, [metric(float(n)) for n in range(KEPT + 500)])
    stats = tracker.get_stats()["speech_to_text/f"]
    assert (stats["count"], stats["min_ms"], stats["max_ms"]) == (KEPT + 500, 500.0, KEPT + 499.0)


def test_last_seen_is_the_latest_timestamp(tracker: LatencyTracker) -> None:
    """Whatever order they arrive in."""
    take_all(tracker, [metric(timestamp=NOON + timedelta(seconds=1)), metric()])
    assert tracker.get_stats()["speech_to_text/f"]["last_seen"] == "2025-01-01T12:00:01Z"


@pytest.mark.promise("cardinality")
def test_too_many_operations_share_other(tracker: LatencyTracker) -> None:
    """A name that is different each time does not fill the memory."""
    take_all(tracker, [metric(float(n), operation_name=f"n{n}") for n in range(MAX_KEYS + 10)])
    take_all(tracker, [metric(operation_name="n0")])
    stats = tracker.get_stats()
    assert len(stats) == MAX_KEYS + 1
    assert stats["speech_to_text/other"]["count"] == 10
    assert stats["speech_to_text/other"]["min_ms"] == MAX_KEYS
    assert stats["speech_to_text/n0"]["count"] == 2


def test_recent_metrics_are_the_newest_oldest_first(tracker: LatencyTracker) -> None:
    """Filtered before the limit."""
    kinds = ["speech_to_text", "rag_inference"]
    take_all(tracker, [metric(float(n), operation_type=kinds[n % 2]) for n in range(200)])

    def latencies(*args: Any, **kwargs: Any) -> list[float]:
        return [m.latency_ms for m in tracker.get_recent_metrics(*args, **kwargs)]

    assert latencies() == [float(n) for n in range(150, 200)]
    assert latencies(3) == [197, 198, 199]
    assert latencies(3, "speech_to_text") == [194, 196, 198]
    assert latencies(limit=2, operation_type=OperationType.RAG) == [197, 199]
    assert latencies(0) == []
    assert len(latencies(10_000)) == 200
    assert latencies(5, "text_to_speech") == []
    with pytest.raises(ValueError, match="limit: expected a number >= 0, got -1"):
        tracker.get_recent_metrics(-1)
    with pytest.raises(ValueError, match="unknown 'stt'"):
        tracker.get_recent_metrics(1, "stt")


def test_average_of_the_last_minutes(tracker: LatencyTracker) -> None:
    """Of one type, of what ended in time, without what was cancelled."""
    now = datetime.now(UTC)
    take_all(
        tracker,
        [
            metric(100, timestamp=now),
            metric(300, timestamp=now - timedelta(minutes=2)),
            metric(5000, timestamp=now - timedelta(minutes=7)),
            metric(9000, timestamp=now, status="cancelled"),
            metric(7000, timestamp=now, operation_type="rag_inference"),
        ],
    )
    assert tracker.get_average_latency(OperationType.STT) == 200
    assert tracker.get_average_latency("speech_to_text", minutes=1) == 100
    assert tracker.get_average_latency("speech_to_text", minutes=10) == 1800
    assert tracker.get_average_latency("text_to_speech") is None


# -- deque-like -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-1, math.inf, math.nan, 1e12])
def test_minutes_that_are_none_are_an_error(minutes: float, tracker: LatencyTracker) -> None:
    """It names the argument."""
    with pytest.raises(ValueError, match="^minutes: expected a number from 0 to"):
        tracker.get_average_latency("speech_to_text", minutes)


def test_metrics_read_like_a_deque(tracker: LatencyTracker) -> None:
    """Length, index, slice, iteration, membership, truth, maxlen, clear."""
    told = [metric(float(n)) for n in range(5)]
    assert not tracker.metrics
    take_all(tracker, told)
    metrics = tracker.metrics
    assert len(metrics) == 5
    assert metrics.maxlen == 10_000
    assert (metrics[0], metrics[-1], metrics[1:3]) == (told[0], told[-1], told[1:3])
    assert list(metrics) == told
    assert list(reversed(metrics)) == told[::-1]
    assert told[2] in metrics
    assert metrics.index(told[2]) == 2
    assert "5 of at most 10000" in repr(metrics)
    with pytest.raises(IndexError):
        metrics[5]
    metrics.clear()
    assert not metrics
    assert tracker.get_stats()["speech_to_text/f"]["count"] == 5
    assert tracker.get_stats()["speech_to_text/f"]["p50_ms"] is None


def test_metrics_may_be_iterated_while_more_arrive(tracker: LatencyTracker) -> None:
    """Unlike a bare deque."""
    take_all(tracker, [metric(float(n)) for n in range(3)])
    seen = 0
    for _ in tracker.metrics:
        take_all(tracker, [metric()])
        seen += 1
    assert seen == 3
    assert len(tracker.metrics) == 6


def test_readers_and_writers_at_once_see_whole_states(tracker: LatencyTracker) -> None:
    """Counts, statistics and exports agree while threads report."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            tracker.take(metric(2))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    before = 0
    try:
        for _ in range(30):
            stats = tracker.get_stats().get("speech_to_text/f")
            if stats:
                assert before <= stats["count"]
                assert stats["mean_ms"] == stats["min_ms"] == stats["max_ms"] == 2
                assert len(tracker.metrics) >= min(stats["count"], KEPT)
                before = stats["count"]
    finally:
        stop.set()
        for writer in writers:
            writer.join()


# -- reset ----------------------------------------------------------------------------------------------------------


@measure_latency("speech_to_text")
def listen() -> None: ...


def test_reset_forgets_everything_also_what_is_queued(measuring: LatencyConfig) -> None:
    """What finished before the reset never comes back."""
    for _ in range(100):
        listen()
    latency_tracker.reset_stats()
    assert not latency_tracker.metrics
    assert latency_tracker.get_stats() == {}
    listen()
    assert latency_tracker.get_stats()["speech_to_text/listen"]["count"] == 1


def test_a_reset_takes_nothing_from_the_file(start: Start) -> None:
    """What was forgotten here is still reported elsewhere."""
    config = start()
    for _ in range(100):
        listen()
    latency_tracker.reset_stats()
    shutdown(60)
    assert len(config.metrics_file_path.read_text().splitlines()) == 100


def test_clear_sees_what_is_queued(measuring: LatencyConfig) -> None:
    """`metrics.clear()` forgets all that finished before; counts stay."""
    for _ in range(10):
        listen()
    latency_tracker.metrics.clear()
    assert not latency_tracker.metrics
    assert latency_tracker.get_stats()["speech_to_text/listen"]["count"] == 10


def test_what_is_kept_stays_readable_after_shutdown(measuring: LatencyConfig) -> None:
    """With all that finished before it."""
    for _ in range(10):
        listen()
    shutdown(60)
    assert len(latency_tracker.metrics) == 10


# -- export ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[LatencyMetric]:
    return [
        metric(1.5, call_sid="CA1", provider="google", metadata={"a": [1, None], "text": 'é "quoted", \n line'}),
        metric(2, status="error", error_message="multi\nline, with comma", severity="critical", trace_id="a" * 32),
        metric(0, operation_type="rag_inference", time_to_first_output_ms=0.5, items=3),
    ]


def test_export_as_json(tracker: LatencyTracker, told: list[LatencyMetric], tmp_path: Path) -> None:
    """An array of `to_dict()`, oldest first; folders are made; json is the default."""
    take_all(tracker, told)
    target = tmp_path / "new" / "folder" / "m.json"
    tracker.export_metrics(str(target))
    assert [LatencyMetric.from_dict(row) for row in json.loads(target.read_text())] == told
    assert json.loads(target.read_text()) == [m.to_dict() for m in told]


def test_export_as_jsonl(tracker: LatencyTracker, told: list[LatencyMetric], tmp_path: Path) -> None:
    """A line each."""
    take_all(tracker, told)
    tracker.export_metrics(tmp_path / "m.jsonl", format="jsonl")
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [LatencyMetric.from_dict(json.loads(line)) for line in lines] == told


def test_export_as_csv(tracker: LatencyTracker, told: list[LatencyMetric], tmp_path: Path) -> None:
    """A column each; metadata is JSON; an empty cell is absent."""
    take_all(tracker, told)
    tracker.export_metrics(tmp_path / "m.csv", "csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:10] == list(told[0].to_dict())[:10]
    numbers = {"latency_ms": float, "time_to_first_output_ms": float, "items": int, "metadata": json.loads}
    read = [{k: numbers.get(k, str)(v) for k, v in row.items() if v != ""} for row in rows]
    assert [LatencyMetric.from_dict(row) for row in read] == told


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_export_of_nothing(tracker: LatencyTracker, format: str, tmp_path: Path) -> None:
    """A file that says so."""
    tracker.export_metrics(tmp_path / "m", format)
    text = (tmp_path / "m").read_text()
    assert {"json": text == "[]\n", "jsonl": text == "", "csv": len(text.splitlines()) == 1}[format]


def test_an_unknown_format_is_an_error_and_touches_nothing(tracker: LatencyTracker, tmp_path: Path) -> None:
    """The message lists the known ones."""
    with pytest.raises(ValueError, match="format: expected one of json, jsonl, csv, got 'xml'"):
        tracker.export_metrics(tmp_path / "new" / "m.xml", "xml")
    assert not list(tmp_path.iterdir())


# -- callbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_callbacks")
def test_callbacks_hear_every_breach_in_order(start: Start) -> None:
    """Each of its severity; the threshold is the one that was reached."""
    start()
    everything: list[Alert] = []
    critical: list[Alert] = []
    latency_tracker.add_alert_callback(everything.append)
    latency_tracker.add_alert_callback(critical.append, Severity.CRITICAL)
    for latency_ms in (1, 2000, 5000, 1999, 4999, 6000):
        record(metric(latency_ms, call_sid="CA1"))
    shutdown(60)
    assert [(a.metric.latency_ms, a.severity.value, a.threshold_ms) for a in everything] == [
        (2000, "warning", 2000),
        (5000, "critical", 5000),
        (4999, "warning", 2000),
        (6000, "critical", 5000),
    ]
    assert [a.metric.latency_ms for a in critical] == [5000, 6000]
    assert everything[0].metric.call_sid == "CA1"


@pytest.mark.promise("interrupted-code")
def test_a_signal_handler_may_read_in_the_middle_of_a_read(measuring: LatencyConfig) -> None:
    """It sees what is there, and hangs nowhere."""
    seen: list[int] = []

    def handler(*_: object) -> None:
        seen.append(len(latency_tracker.get_stats()))
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        for _ in range(500):
            record(metric())
            latency_tracker.get_stats()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    (stats,) = latency_tracker.get_stats().values()
    assert stats["count"] == 500


@pytest.mark.parametrize("wrong", ["false", 0, None])
def test_switching_it_off_wants_a_bool(wrong: Any, tracker: LatencyTracker) -> None:
    """The word "false" is true."""
    with pytest.raises(TypeError, match="^enabled: expected True or False"):
        tracker.enabled = wrong
