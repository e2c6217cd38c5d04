"""What windows say, against what is computed from all that ever happened."""

from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import LatencyMetric
from callbot_latency.alerting.rules.windows import RELATIVE_ERROR, SLICES, CallWindow, SlidingWindow
from callbot_latency.base.bounded import MAX_CALLS

WINDOW_S = 300.0
SLICE_S = WINDOW_S / SLICES
THRESHOLD_MS = 1000.0

# An operation: how long after the one before it ended, how long it took, in which call.
_OPERATIONS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 10), st.sampled_from([0.0, SLICE_S, WINDOW_S, 2 * WINDOW_S])),
        st.one_of(st.floats(0.1, 3_600_000), st.sampled_from([999.0, THRESHOLD_MS, 1001.0])),
        st.sampled_from("abc"),
    ),
    min_size=1,
    max_size=60,
)
_BEGINS = st.floats(0, 1e6)


def happened(operations: list[tuple[float, float, str]], now_s: float) -> list[tuple[float, LatencyMetric]]:
    events = []
    for later_s, latency_ms, call_sid in operations:
        now_s += later_s
        events.append((now_s, LatencyMetric("rag_inference", "ask", latency_ms, "success", call_sid=call_sid)))  # type: ignore[arg-type]
    return events


def within(events: list[tuple[float, LatencyMetric]], now_s: float) -> list[LatencyMetric]:
    """Those whose slice is one of the newest."""
    return [metric for at_s, metric in events if at_s // SLICE_S > now_s // SLICE_S - SLICES]


def nearest_rank(latencies: list[float], percent: int) -> float:
    return sorted(latencies)[-(-percent * len(latencies) // 100) - 1]


@pytest.mark.promise("percentiles")
@given(_OPERATIONS, _BEGINS, st.floats(0, 400))
def test_a_window_holds_what_a_list_of_everything_would(
    operations: list[tuple[float, float, str]], begins_s: float, later_s: float
) -> None:
    """Counts, mean, percentiles and the slowest; whether a percentile reaches the threshold is exact."""
    window, events = SlidingWindow(WINDOW_S, keep_latencies=True), happened(operations, begins_s)
    for at_s, metric in events:
        window.add(metric, metric.latency_ms >= THRESHOLD_MS, at_s)
    now_s = events[-1][0] + later_s
    counts, held = window.counts(now_s), within(events, now_s)
    latencies = [metric.latency_ms for metric in held]
    assert counts.count == len(held)
    assert counts.bad == sum(latency_ms >= THRESHOLD_MS for latency_ms in latencies)
    if not held:
        return
    assert abs(counts.mean_ms - sum(latencies) / len(latencies)) <= 1e-9 * sum(latencies)
    assert counts.example is not None
    assert counts.example.latency_ms == max(latencies)
    for percent in (50, 95, 99):
        exact_ms = nearest_rank(latencies, percent)
        assert counts.has_percentile_from(percent / 100) == (exact_ms >= THRESHOLD_MS)
        shown_ms = window.percentile_ms(percent / 100, now_s)
        assert abs(shown_ms - exact_ms) <= RELATIVE_ERROR * exact_ms * (1 + 1e-9)


@given(_OPERATIONS, _BEGINS, st.floats(0, 400))
def test_a_window_is_as_long_as_it_says_but_for_a_slice(
    operations: list[tuple[float, float, str]], begins_s: float, later_s: float
) -> None:
    """What is younger than 59/60 of it is in, what is older than all of it is out."""
    window, events = SlidingWindow(WINDOW_S), happened(operations, begins_s)
    for at_s, metric in events:
        window.add(metric, False, at_s)
    now_s = events[-1][0] + later_s
    ages = [now_s - at_s for at_s, _ in events]
    rounding = 1e-6
    least = sum(age < WINDOW_S - SLICE_S - rounding for age in ages)
    most = sum(age <= WINDOW_S + rounding for age in ages)
    assert least <= window.counts(now_s).count <= most


@given(_OPERATIONS, _BEGINS, st.floats(0, 400))
def test_calls_are_counted_once(operations: list[tuple[float, float, str]], begins_s: float, later_s: float) -> None:
    """A call is bad once one of its operations within the window was."""
    window, events = CallWindow(WINDOW_S), happened(operations, begins_s)
    for at_s, metric in events:
        window.add(metric, metric.latency_ms >= THRESHOLD_MS, at_s)
    now_s = events[-1][0] + later_s
    held, counts = within(events, now_s), window.counts(now_s)
    assert counts.count == len({metric.call_sid for metric in held})
    assert counts.bad == len({metric.call_sid for metric in held if metric.latency_ms >= THRESHOLD_MS})


def metric(**fields: Any) -> LatencyMetric:
    return LatencyMetric("rag_inference", "ask", 1.0, "success", **fields)  # type: ignore[arg-type]


@pytest.mark.promise("percentiles")
def test_memory_is_bounded() -> None:
    """Slices, buckets and calls, whatever the traffic."""
    window, calls = SlidingWindow(60.0, keep_latencies=True), CallWindow(60.0)
    for number in range(MAX_CALLS + 100):
        window.add(metric(), False, float(number))
        calls.add(metric(call_sid=f"CA{number}"), False, 1.0)
    assert len(window._slices) == SLICES
    assert len(calls._calls) == MAX_CALLS
    calls.add(metric(), False, 1.0)
    assert len(calls._calls) == MAX_CALLS
    window = SlidingWindow(60.0, keep_latencies=True)
    for exponent in range(-3000, 3000):
        window.add(LatencyMetric("rag_inference", "ask", 2.0 ** (exponent / 10), "success"), False, 0.0)  # type: ignore[arg-type]
    assert len(window._slices[0][1].latencies) < ceil(1000)
