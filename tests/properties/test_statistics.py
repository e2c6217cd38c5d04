"""What holds for every set of latencies."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from callbot_latency import LatencyMetric, LatencyTracker, Severity, Thresholds
from callbot_latency.model.operation import ThresholdsMs
from callbot_latency.pipeline.histograms import Histograms, views
from callbot_latency.pipeline.instruments import bucket_bounds_s
from callbot_latency.pipeline.statistics import percentile

latencies = st.floats(0, 1e9, allow_nan=False)
thresholds_ms = (
    st.tuples(st.integers(1, 10**8), st.integers(1, 10**8))
    .map(sorted)
    .map(lambda pair: ThresholdsMs(pair[0] / 1000, pair[1] / 1000))
)


def metric(latency_ms: float, status: str = "success") -> LatencyMetric:
    return LatencyMetric("speech_to_text", "f", latency_ms, status)  # type: ignore[arg-type]


@pytest.mark.promise("percentiles")
@given(st.lists(latencies, min_size=1, max_size=200), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    """Linear interpolation between the closest ranks."""
    assert percentile(sorted(values), share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-9)


@pytest.mark.promise("percentiles")
@given(st.lists(latencies, min_size=2, max_size=200))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    """`statistics.quantiles(method="inclusive")`."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for percent in (50, 95, 99):
        assert percentile(sorted(values), percent / 100) == pytest.approx(cuts[percent - 1], rel=1e-9, abs=1e-6)


@given(
    st.lists(
        st.tuples(latencies, st.sampled_from(["success", "error", "timeout", "cancelled"])), min_size=1, max_size=100
    )
)
def test_statistics_agree_with_themselves(measured: list[tuple[float, str]]) -> None:
    """Counts add up; min <= p50 <= p95 <= p99 <= max; cancelled are counted and nothing more."""
    tracker = LatencyTracker()
    for one in measured:
        tracker.take(metric(*one))
    stats = tracker.get_stats()["speech_to_text/f"]
    words = [status for _, status in measured]
    assert (stats["count"], stats["errors"], stats["timeouts"], stats["cancelled"]) == (
        len(words),
        words.count("error"),
        words.count("timeout"),
        words.count("cancelled"),
    )
    kept = [latency_ms for latency_ms, status in measured if status != "cancelled"]
    if not kept:
        assert stats["p50_ms"] is stats["mean_ms"] is None
        return
    ordered = [stats[key] for key in ("min_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")]
    assert (ordered[0], ordered[-1]) == (min(kept), max(kept))
    assert all(low <= high or math.isclose(low, high) for low, high in pairwise(ordered))
    assert stats["mean_ms"] == pytest.approx(sum(kept) / len(kept))


@given(thresholds_ms, latencies)
def test_severity_is_from_the_threshold_on(limits: ThresholdsMs, latency_ms: float) -> None:
    """For every threshold and latency, the threshold itself included."""
    thresholds = Thresholds({"speech_to_text": limits})
    for value in (latency_ms, *limits, math.nextafter(limits.warning_ms, 0), math.nextafter(limits.critical_ms, 0)):
        expected = (
            Severity.CRITICAL if value >= limits.critical_ms
            else Severity.WARNING if value >= limits.warning_ms
            else None
        )  # fmt: skip
        assert thresholds.severity("speech_to_text", value) is expected


@pytest.mark.promise("percentiles")
@given(thresholds_ms, st.lists(latencies, max_size=5))
def test_every_value_is_in_the_bucket_up_to_its_edge(limits: ThresholdsMs, others: list[float]) -> None:
    """`le`: an edge is the last value of its bucket. Each threshold is one, so breaches can be read off it."""
    thresholds = Thresholds({"speech_to_text": limits})
    edges = bucket_bounds_s(thresholds)
    assert {limits.warning_ms / 1000, limits.critical_ms / 1000} <= set(edges)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], views=views(thresholds), shutdown_on_exit=False)
    histograms = Histograms(provider.get_meter("callbot_latency"), thresholds)
    values = [*limits, *others]
    histograms.report([metric(value) for value in values])
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = next(
        m.data.data_points for s in data.resource_metrics[0].scope_metrics for m in s.metrics if "duration" in m.name
    )
    expected = [0] * (len(edges) + 1)
    for value in values:
        expected[sum(value / 1000 > edge for edge in edges)] += 1
    assert list(point.bucket_counts) == expected  # type: ignore[union-attr]
