"""The queue and its worker."""

import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import pytest

from callbot_latency import LatencyMetric, OperationType, Severity, latency_tracker, measure_latency, record
from callbot_latency.base.drop_counters import dropped
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.delivery.lane import Lane
from callbot_latency.model.thresholds import Thresholds
from callbot_latency.pipeline import worker as pipeline_module
from callbot_latency.pipeline.tracker import KEPT, LatencyTracker
from callbot_latency.pipeline.worker import CAPACITY, Pipeline
from tests.support.lanes import new_drops

Make = Callable[..., Pipeline]


def metric(latency_ms: float = 1.0, name: str = "f") -> LatencyMetric:
    return LatencyMetric("speech_to_text", name, latency_ms, "success")  # type: ignore[arg-type]


class Collector:
    def __init__(self) -> None:
        self.metrics: list[LatencyMetric] = []
        self.batches = 0

    def start(self) -> None: ...

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.batches += 1
        self.metrics += batch

    def close(self) -> None: ...


class Raising(Collector):
    def report(self, batch: Sequence[LatencyMetric]) -> None:
        raise RuntimeError


class Hanging(Collector):
    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()
        self.entered = threading.Event()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.entered.set()
        self.may_go.wait(60)
        super().report(batch)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Pipeline] = []

    def build(*reporters: Any, tracker: LatencyTracker | None = None, **kwargs: Any) -> Pipeline:
        pipeline = Pipeline(tracker or LatencyTracker(), reporters, Thresholds(), **kwargs)
        made.append(pipeline)
        return pipeline

    yield build
    for pipeline in made:
        if pipeline._thread.is_alive():
            pipeline.end_worker(5)
            pipeline.close_reporters(5)


def stuck(make: Make, waiting: int, **kwargs: Any) -> tuple[Pipeline, Hanging]:
    """A pipeline to which so many were handed, and whose worker is with a reporter that hangs."""
    pipeline = make(hanging := Hanging(), **kwargs)
    for n in range(waiting):
        pipeline.submit(metric(n))
    pipeline.start()
    assert hanging.entered.wait(60)
    return pipeline, hanging


def test_every_reporter_gets_everything_in_order(make: Make) -> None:
    """Tracker and reporters see the same measurements in the order in which they finished."""
    one, two, tracker = Collector(), Collector(), LatencyTracker()
    pipeline = make(one, two, tracker=tracker)
    pipeline.start()
    for n in range(1000):
        pipeline.submit(metric(n))
    assert pipeline.flush(60)
    wanted = [float(n) for n in range(1000)]
    for seen in (one.metrics, two.metrics, list(tracker.metrics)):
        assert [m.latency_ms for m in seen] == wanted


@pytest.mark.promise("overload")
def test_full_queue_drops_and_counts_exactly(make: Make) -> None:
    """Accepted plus dropped is submitted: what does not fit is counted as queue_full."""
    before, seen = dropped.by_reason(), Collector()
    pipeline = make(seen, capacity=100)
    for n in range(150):
        pipeline.submit(metric(n))
    assert new_drops(before) == {"queue_full": 50}
    pipeline.start()
    assert pipeline.flush(60)
    assert [m.latency_ms for m in seen.metrics] == [float(n) for n in range(100)]


@pytest.mark.promise("busy-servers")
def test_threads_that_overrun_the_queue_lose_no_count(make: Make) -> None:
    """Whatever threads submit is either delivered or counted, also at the very end."""
    before, seen = dropped.by_reason(), Collector()
    pipeline = make(seen, capacity=500)
    pipeline.start()
    stop, submitted = threading.Event(), [0] * 6
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(n: int) -> None:
        while not stop.is_set():
            pipeline.submit(metric())
            submitted[n] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    try:
        for thread in threads:
            thread.start()
        while sum(submitted) < 5000:
            pipeline.flush(60)
        assert pipeline.end_worker(60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval_s)
    assert len(seen.metrics) + sum(new_drops(before).values()) == sum(submitted)
    assert set(new_drops(before)) <= {"queue_full", "after_shutdown"}


class Sizes(Collector):
    """Notes how many came at once."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.has_all = threading.Event()
        self._expected = expected

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self.sizes.append(len(batch))
        if sum(self.sizes) == self._expected:
            self.has_all.set()


@pytest.mark.promise("busy-threads")
def test_the_worker_gives_way_after_every_few(make: Make, sleeps: list[float]) -> None:
    """An event loop that wakes while the worker is busy waits for a small part of the work alone."""
    pipeline = make(sizes := Sizes(205))
    for n in range(205):
        pipeline.submit(metric(n))
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert sizes.sizes == [3] * 68 + [1]
    assert sleeps == [0.0002] * 68


@pytest.mark.parametrize(("waiting", "at_once"), [(1, 1), (127, 1), (128, 2), (639, 9), (640, 10), (3_000, 10)])
def test_the_more_waits_the_more_the_worker_does_at_once(
    make: Make, sleeps: list[float], waiting: int, at_once: int
) -> None:
    """It keeps up with what comes, and a loop waits for half a millisecond's work at most."""
    pipeline = make(sizes := Sizes(waiting))
    for n in range(waiting):
        pipeline.submit(metric(n))
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert max(sizes.sizes) == sizes.sizes[0] == at_once


def test_a_breach_hurries_what_waits_before_it(make: Make, sleeps: list[float]) -> None:
    """Somebody is to be told: parts are as large as they may be beside an event loop."""
    pipeline = make(sizes := Sizes(101))
    for n in range(100):
        pipeline.submit(metric(n))
    pipeline.submit(replace(metric(100), severity=Severity.CRITICAL))
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert sizes.sizes == [10] * 10 + [1]


def test_a_breach_in_the_middle_hurries_what_is_left(make: Make, sleeps: list[float]) -> None:
    pipeline = make(sizes := Sizes(105))
    report = sizes.report

    def breach(batch: Sequence[LatencyMetric]) -> None:
        if not sizes.sizes:
            pipeline._wake.put(None)
        report(batch)

    sizes.report = breach  # type: ignore[method-assign]
    for n in range(105):
        pipeline.submit(metric(n))
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert sizes.sizes == [1, *[10] * 10, 4]


@pytest.mark.promise("busy-threads")
def test_the_worker_does_more_at_once_where_it_has_to_wait(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are busy keep the interpreter's lock for long, and would never let it catch up."""
    now_s = 0.0

    def wait_long(_: float) -> None:
        nonlocal now_s
        now_s += 0.02

    monkeypatch.setattr("callbot_latency.base.pacing.sleep", wait_long)
    monkeypatch.setattr("callbot_latency.base.pacing.monotonic", lambda: now_s)
    pipeline = make(sizes := Sizes(3_000))
    for n in range(3_000):
        pipeline.submit(metric(n))
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert sizes.sizes == [10, 20, 40, 80, 160, 320, 640, 1_000, 730]


def test_the_worker_does_more_at_once_where_somebody_waits_for_it(make: Make, sleeps: list[float]) -> None:
    """`flush()` and the end."""
    pipeline = make(sizes := Sizes(1_500))
    for n in range(1_500):
        pipeline.submit(metric(n))
    pipeline._closing = True
    pipeline.start()
    assert sizes.has_all.wait(60)
    assert sizes.sizes == [1_000, 500]
    assert set(sleeps) == {0.0}


@pytest.mark.promise("busy-threads")
def test_busy_threads_do_not_keep_the_worker_from_its_end(make: Make) -> None:
    """Four of them compute for as long as it takes."""
    stop, counted = threading.Event(), [0] * 4

    def compute(n: int) -> None:
        while not stop.is_set():
            counted[n] += 1

    threads = [threading.Thread(target=compute, args=(n,)) for n in range(4)]
    pipeline = make(seen := Collector())
    pipeline.start()
    try:
        for thread in threads:
            thread.start()
        for n in range(1_000):
            pipeline.submit(metric(n))
        assert pipeline.end_worker(60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(seen.metrics) == 1_000


@pytest.mark.promise("busy-threads")
def test_what_the_worker_has_taken_counts_as_waiting(make: Make) -> None:
    """The bound holds over all that is not reported yet."""
    before = dropped.by_reason()
    pipeline, hanging = stuck(make, 50, capacity=100)
    for n in range(200):
        pipeline.submit(metric(n))
    # The worker was woken, so ten are with the reporter; forty are taken: there is room for sixty.
    assert new_drops(before) == {"queue_full": 140}
    hanging.may_go.set()
    assert pipeline.flush(60)
    assert len(hanging.metrics) == 110


@pytest.mark.promise("busy-threads")
def test_what_the_end_has_no_time_for_is_counted(make: Make) -> None:
    before = dropped.by_reason()
    pipeline, hanging = stuck(make, 50)
    for n in range(7):
        pipeline.submit(metric(n))
    assert not pipeline.end_worker(0.05)
    assert new_drops(before) == {"no_time": 56}
    hanging.may_go.set()
    pipeline._thread.join(60)
    assert len(hanging.metrics) == 1


@pytest.mark.promise("busy-threads")
def test_what_the_end_has_no_time_for_is_counted_amid_a_conversion(make: Make, monkeypatch: Any) -> None:
    """The worker, which has the lock while it converts a thousand at once, gives it up after the one it has in hand."""
    before, entered, may_go = dropped.by_reason(), threading.Event(), threading.Event()
    convert = pipeline_module.to_metric

    def slow(*args: Any) -> Any:
        entered.set()
        may_go.wait(0.05)
        return convert(*args)

    monkeypatch.setattr("callbot_latency.pipeline.worker.to_metric", slow)
    pipeline = make(seen := Collector())
    for n in range(1_000):
        pipeline.submit(metric(n))
    pipeline.start()
    assert entered.wait(60)
    assert not pipeline.end_worker(0.01)
    may_go.set()
    pipeline._thread.join(60)
    assert len(seen.metrics) + new_drops(before)["no_time"] == 1_000
    assert len(seen.metrics) < 1_000


@pytest.mark.promise("busy-threads")
def test_what_comes_after_the_end_had_no_time_is_counted(make: Make) -> None:
    """The worker is still with a reporter that hangs, and ends without another look at what it was to report."""
    before = dropped.by_reason()
    pipeline, hanging = stuck(make, 1)
    assert not pipeline.end_worker(0.05)
    for n in range(7):
        pipeline.submit(metric(n))
    hanging.may_go.set()
    pipeline._thread.join(60)
    assert new_drops(before) == {"no_time": 7}


@pytest.mark.promise("busy-threads")
def test_what_the_end_cannot_take_the_worker_counts(make: Make) -> None:
    """Whoever reads keeps the lock for longer than the end may wait."""
    before = dropped.by_reason()
    pipeline, hanging = stuck(make, 50)
    held, may_go = threading.Event(), threading.Event()

    def read() -> None:
        with pipeline._lock:
            held.set()
            may_go.wait(60)

    reader = threading.Thread(target=read)
    reader.start()
    assert held.wait(60)
    assert not pipeline.end_worker(0.05)
    may_go.set()
    reader.join(60)
    hanging.may_go.set()
    pipeline._thread.join(60)
    assert len(hanging.metrics) + new_drops(before)["no_time"] == 50


def test_holds_a_burst_before_the_worker_wakes(make: Make) -> None:
    """A burst of 10,500 that no worker has seen yet is kept whole; the tracker has exactly the newest 10,000."""
    before, tracker = dropped.by_reason(), LatencyTracker()
    pipeline = make(tracker=tracker)
    assert CAPACITY >= 16_384
    for n in range(10_500):
        pipeline.submit(metric(n))
    pipeline.drain()
    assert [m.latency_ms for m in tracker.metrics] == [float(n) for n in range(500, 10_500)]
    assert len(tracker.metrics) == KEPT
    assert new_drops(before) == {}


@pytest.mark.usefixtures("measuring")
def test_burst_through_the_decorator_keeps_the_newest() -> None:
    """The same for what is measured: 10,500 calls in one go, the newest 10,000 kept, all counted."""

    @measure_latency(OperationType.STT)
    def work() -> None: ...

    for _ in range(10_500):
        work()
    assert latency_tracker.get_stats()["speech_to_text/work"]["count"] == 10_500
    assert len(latency_tracker.metrics) == KEPT


@pytest.mark.usefixtures("measuring")
def test_a_read_sees_everything_that_finished_before() -> None:
    """Each of many reads right after a measurement counts it, whatever the worker does."""

    @measure_latency(OperationType.STT)
    def work() -> None: ...

    for n in range(1, 300):
        work()
        assert latency_tracker.get_stats()["speech_to_text/work"]["count"] == n
        assert len(latency_tracker.get_recent_metrics(limit=1000)) == n


@pytest.mark.promise("internal-fault")
def test_a_raising_reporter_takes_nothing_from_the_others(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get 100 %, and each fault is counted."""
    monkeypatch.setattr(raise_internal_errors, "enabled", False)
    before, seen = dropped.by_reason(), Collector()
    pipeline = make(Raising(), seen)
    pipeline.start()
    for n in range(10):
        pipeline.submit(metric(n))
        assert pipeline.flush(60)
    assert len(seen.metrics) == 10
    assert new_drops(before) == {"internal_error": seen.batches}


@pytest.mark.promise("hostile-values")
def test_what_is_no_measurement_is_counted_and_its_batch_arrives(make: Make) -> None:
    """Nonsense is counted as invalid, also where looking at it raises anything; its neighbours arrive."""

    class Hostile:
        severity = None

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    before, seen = dropped.by_reason(), Collector()
    pipeline = make(seen)
    for item in (metric(1), object(), None, "text", Hostile(), metric(2)):
        pipeline.submit(item)
    pipeline.start()
    assert pipeline.flush(60)
    assert [m.latency_ms for m in seen.metrics] == [1.0, 2.0]
    assert new_drops(before) == {"invalid": 4}


@pytest.mark.usefixtures("measuring")
def test_record_takes_the_same_way() -> None:
    """A metric measured elsewhere gets its severity and is counted like every other; nonsense is counted as dropped."""
    before = dropped.by_reason()
    record(metric(2000, "elsewhere"))
    record("nonsense")  # type: ignore[arg-type]
    (kept,) = latency_tracker.get_recent_metrics()
    assert kept.severity is not None
    assert kept.severity.value == "warning"
    assert latency_tracker.get_stats()["speech_to_text/elsewhere"]["count"] == 1
    assert new_drops(before) == {"invalid": 1}


@pytest.mark.promise("hanging-consumer")
def test_a_hanging_lane_never_delays_submit_or_others(make: Make) -> None:
    """While one lane hangs, submitting stays quick and the other lane gets everything."""
    hanging, seen = Hanging(), Collector()
    pipeline = make(Lane("hangs", hanging), Lane("flows", seen))
    pipeline.start()
    pipeline.submit(metric())
    assert hanging.entered.wait(60)
    started_s = monotonic()
    for n in range(5000):
        pipeline.submit(metric(n))
    assert monotonic() - started_s < 10
    deadline_s = monotonic() + 40
    while len(seen.metrics) < 5001:
        assert monotonic() < deadline_s
        sleep(0.005)
    assert not hanging.metrics, "the other one hung all the time"
    assert not pipeline.flush(0.1)
    assert len(seen.metrics) == 5001
    hanging.may_go.set()
    assert pipeline.flush(60)


def test_a_flush_during_the_end_is_answered(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that was asked for while the worker ends is answered at once, not after its time-out."""
    # It waits for the answer alone, and does not look meanwhile whether the worker is alive.
    monkeypatch.setattr(pipeline_module, "INTERVAL_S", 100)
    hanging = Hanging()
    pipeline = make(hanging)
    pipeline.start()
    pipeline.submit(metric())
    assert hanging.entered.wait(60)
    answers: list[bool] = []
    flushing = threading.Thread(target=lambda: answers.append(pipeline.flush(90)))
    flushing.start()
    while not pipeline._wake.qsize():
        sleep(0.001)
    pipeline._closing = True
    hanging.may_go.set()
    flushing.join(30)
    assert answers == [True]
    pipeline._thread.join(60)
    assert pipeline.flush(60) is False, "an ended worker is not waited for"


def test_end_is_bounded_by_its_time_out(make: Make) -> None:
    """A reporter that hangs on the worker costs the time-out and no more."""
    hanging = Hanging()
    pipeline = make(hanging)
    pipeline.start()
    pipeline.submit(metric())
    assert hanging.entered.wait(60)
    started_s = monotonic()
    assert not pipeline.end_worker(0.2)
    assert monotonic() - started_s < 10
    hanging.may_go.set()


def test_what_finishes_after_the_end_is_counted(make: Make) -> None:
    """An operation that is still running at shutdown is counted as dropped when it ends."""
    pipeline = make()
    pipeline.start()
    assert pipeline.end_worker(60)
    before = dropped.by_reason()
    pipeline.submit(metric())
    assert new_drops(before) == {"after_shutdown": 1}
    assert not pipeline._queue


@pytest.mark.promise("interrupted-code")
def test_a_finaliser_inside_our_locked_regions_does_not_hang(make: Make) -> None:
    """Submitting takes no lock: a `__del__` that measures while the queue and a lane are locked goes through."""
    seen = Collector()
    lane = Lane("gc", seen)
    pipeline = make(lane)

    class Finalised:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            pipeline.submit(metric(7000))

    for _ in range(100):
        Finalised()
    with pipeline._lock, lane._changed:
        gc.collect()
    pipeline.start()
    assert pipeline.flush(60)
    assert len(seen.metrics) == 100


@pytest.mark.promise("interrupted-code")
def test_collections_at_every_allocation_lose_nothing(make: Make) -> None:
    """With garbage collected all the time, finalisers that measure run inside all of our code, and nothing hangs."""
    seen = Collector()
    pipeline = make(Lane("gc_stress", seen))
    pipeline.start()
    submitted = 0

    class Finalised:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            nonlocal submitted
            submitted += 1
            pipeline.submit(metric())

    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            Finalised()
            pipeline.submit(metric())
            submitted += 1
        gc.collect()
        assert pipeline.flush(60)
    finally:
        gc.set_threshold(*threshold)
    assert len(seen.metrics) == submitted


@pytest.mark.promise("overload")
def test_drops_are_told_at_most_once_a_minute(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once how much was dropped and why."""
    pipeline = make(capacity=10)
    with caplog.at_level(logging.WARNING, "callbot_latency.pipeline"):
        for _ in range(30):
            pipeline.submit(metric())
        pipeline.start()
        assert pipeline.flush(60)
        for _ in range(30):
            pipeline.submit(metric())
        assert pipeline.flush(60)
    told = [r.getMessage() for r in caplog.records if r.name == "callbot_latency.pipeline"]
    assert told == ["telemetry dropped since the last such line: queue_full: 20"]


@pytest.mark.promise("chaos")
def test_the_end_tells_the_drops_that_no_line_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Also within the minute, and what a lane drops as it ends: the lines add up to all that was dropped."""
    pipeline = make(capacity=10)
    before = dropped.by_reason()
    with caplog.at_level(logging.WARNING, "callbot_latency.pipeline"):
        for _ in range(30):
            pipeline.submit(metric())
        pipeline.start()
        assert pipeline.flush(60)
        dropped.add("away_unconfirmed", 7)
        assert pipeline.end_worker(60)
        dropped.add("away_unconfirmed", 2)
        pipeline.close_reporters(60)
        pipeline.close_reporters(60)
    told = [r.getMessage().partition(": ")[2] for r in caplog.records if r.name == "callbot_latency.pipeline"]
    assert told == ["queue_full: 20", "away_unconfirmed: 9"]
    assert dropped.by_reason()["away_unconfirmed"] - before.get("away_unconfirmed", 0) == 9


def test_the_last_line_is_not_waited_for(make: Make) -> None:
    """A handler of the log that hangs holds the end up no longer than allowed."""
    leave, tellers = threading.Event(), []

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tellers.append(threading.current_thread())
            leave.wait(60)

    logger, handler = logging.getLogger("callbot_latency.pipeline"), Hanging()
    pipeline = make(capacity=10)
    pipeline.start()
    assert pipeline.end_worker(60)
    dropped.add("away_unconfirmed")
    logger.addHandler(handler)
    try:
        began_s = monotonic()
        pipeline.close_reporters(0.2)
        assert monotonic() - began_s < 10
    finally:
        leave.set()
        logger.removeHandler(handler)
        for teller in tellers:
            teller.join(60)


def test_in_a_child_without_room_for_the_worker_all_that_comes_is_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pipeline = make()
    before = dropped.by_reason()
    pipeline.restart_after_fork()
    monkeypatch.setattr(threading.Thread, "start", no_room)
    pipeline.submit(metric())
    assert not pipeline.resume()
    assert not pipeline.end_worker(0.0)
    pipeline.submit(metric())
    assert new_drops(before) == {"no_time": 1, "after_shutdown": 1}


def test_a_restart_after_fork_forgets_what_is_the_parents(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A forked child reports nothing that waited in its parent, works anew, and tells no drop of the parent."""
    seen = Collector()
    pipeline = make(seen)
    pipeline.submit(metric())
    dropped.add("queue_full")
    held = pipeline._lock
    held.acquire()
    pipeline.restart_after_fork()
    pipeline.resume()
    pipeline.submit(metric(5))
    assert pipeline.flush(60)
    assert [m.latency_ms for m in seen.metrics] == [5.0]
    assert "telemetry dropped" not in caplog.text
    held.release()
