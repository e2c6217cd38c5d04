"""Our metrics as prometheus_client keeps them, with the names, labels and edges that the Collector's exporter gives."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .. import semconv
from ..drops import dropped
from ..histograms import edges_s
from ..labels import NameLabels, running_by_type
from ..metric import LatencyMetric
from ..thresholds import Thresholds

__all__ = ["Registry"]

MAX_SERIES: Final = 1_000
"""How many triples of type, name and provider have series of their own; later ones are ``other`` of their type."""

_NAMED: Final = (semconv.OPERATION_TYPE, semconv.OPERATION_NAME, semconv.PROVIDER)
_SEVERE: Final = (semconv.OPERATION_TYPE, semconv.PROVIDER, semconv.SEVERITY)


def exposed(instrument: str, unit: str = "") -> str:
    """The name of an instrument in Prometheus, without what the kind of metric adds to it."""
    return instrument.replace(".", "_") + unit


class Registry:
    """Counts measurements. What `collect` gives is cumulative: it may be sent as often as one likes.

    A provider that is unknown is an empty label, which to Prometheus is none.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        edges = edges_s(thresholds)
        self._registry = CollectorRegistry(auto_describe=False)
        self._duration = Histogram(
            exposed(semconv.OPERATION_DURATION, "_seconds"),
            "How long an operation took.",
            (*_NAMED, semconv.STATUS),
            buckets=edges,
            registry=self._registry,
        )
        self._first_output = Histogram(
            exposed(semconv.OPERATION_TIME_TO_FIRST_OUTPUT, "_seconds"),
            "From the start of an operation to its first output.",
            _NAMED,
            buckets=edges,
            registry=self._registry,
        )
        self._breaches = Counter(
            exposed(semconv.THRESHOLD_BREACHES),
            "Operations that reached a threshold.",
            _SEVERE,
            registry=self._registry,
        )
        self._names = NameLabels(counted=False)
        self._series: set[tuple[str, str, str]] = set()

    def count(self, metric: LatencyMetric) -> None:
        """Count one measurement."""
        kind, _, provider = series = self._labels(metric)
        self._duration.labels(*series, metric.status.value).observe(metric.duration_s)
        if metric.time_to_first_output_ms is not None:
            self._first_output.labels(*series).observe(metric.time_to_first_output_ms / 1000.0)
        if metric.severity is not None:
            self._breaches.labels(kind, provider, metric.severity.value).inc()

    def collect(self) -> Iterator[Metric]:
        """Every metric, as prometheus_client writes them out."""
        for metric in self._registry.collect():
            # When a series began is a series more for each; the Collector's exporter tells none.
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
        yield from _live()

    def _labels(self, metric: LatencyMetric) -> tuple[str, str, str]:
        kind = metric.operation_type.value
        series = kind, _encodable(self._names.of(metric.operation_name)), _encodable(metric.provider or "")
        if series not in self._series:
            if len(self._series) >= MAX_SERIES:
                return kind, semconv.OTHER, semconv.OTHER
            self._series.add(series)
        return series


def _encodable(text: object) -> str:
    """UTF-8 has no half of a surrogate pair; with one in it, nothing at all could be sent any more."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _live() -> Iterable[Metric]:
    active = GaugeMetricFamily(
        exposed(semconv.OPERATIONS_ACTIVE), "Operations that are running.", labels=[semconv.OPERATION_TYPE]
    )
    for kind, n in running_by_type().items():
        active.add_metric([kind], n)
    drops = CounterMetricFamily(
        exposed(semconv.TELEMETRY_DROPPED), "What was dropped, by reason.", labels=[semconv.REASON]
    )
    for reason, n in dropped.by_reason().items():
        drops.add_metric([reason], n)
    return active, drops
