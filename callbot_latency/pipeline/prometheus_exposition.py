"""Our metrics as Prometheus sees them, with the names, labels and edges that the Collector's exporter gives."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .. import semconv
from ..base.drop_counters import dropped, unmeasured
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from .histograms import bucket_bounds_s, response_times_s
from .instruments import NameLabels, running_by_type

__all__ = ["Counts"]

MAX_SERIES: Final = 1_000
"""How many triples of type, name and provider have series of their own; later ones are ``other`` of their type."""

_NAMED: Final = (semconv.OPERATION_TYPE, semconv.OPERATION_NAME, semconv.PROVIDER)
_SEVERE: Final = (semconv.OPERATION_TYPE, semconv.PROVIDER, semconv.SEVERITY)

Labels = tuple[str, ...]


class Counts(Collector):
    """Counts measurements and turns; what `collect` gives is cumulative, and may be pushed as often as one likes.

    A provider that is unknown is an empty label, which to Prometheus is none. The numbers are kept here and not in
    prometheus_client's own metrics: those move into files that all processes share, once an application sets
    PROMETHEUS_MULTIPROC_DIR.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        edges = bucket_bounds_s(thresholds)
        self._duration = _Histogram(
            _exposed(semconv.OPERATION_DURATION, "_seconds"),
            "How long an operation took.",
            (*_NAMED, semconv.STATUS),
            edges,
        )
        self._attempts = _Histogram(
            _exposed(semconv.ATTEMPT_DURATION, "_seconds"),
            "How long one provider's part of an operation took.",
            (*_NAMED, semconv.STATUS),
            edges,
        )
        self._first_output = _Histogram(
            _exposed(semconv.OPERATION_TIME_TO_FIRST_OUTPUT, "_seconds"),
            "From the start of an operation to its first output.",
            _NAMED,
            edges,
        )
        self._response = _Histogram(
            _exposed(semconv.TURN_RESPONSE, "_seconds"),
            "From the end of the caller's speech to the first audio that was heard, or sent.",
            (semconv.ANCHOR, semconv.UNTIL),
            edges,
        )
        self._contribution = _Histogram(
            _exposed(semconv.TURN_CONTRIBUTION, "_seconds"),
            "Parts that sum to the response of a turn.",
            (semconv.PART,),
            edges,
        )
        self._breaches: Counter[Labels] = Counter()
        self._names = NameLabels()
        self._providers = NameLabels()
        self._series: set[Labels] = set()

    def count(self, metric: LatencyMetric) -> None:
        """Count one measurement."""
        kind, _, provider = series = self._labels(metric)
        if metric.attempt is not None:
            self._attempts.observe((*series, metric.status.value), metric.duration_s)
            return
        self._duration.observe((*series, metric.status.value), metric.duration_s)
        if metric.time_to_first_output_ms is not None:
            self._first_output.observe(series, metric.time_to_first_output_ms / 1000.0)
        if metric.severity is not None:
            self._breaches[kind, provider, metric.severity.value] += 1

    def count_turn(self, turn: TurnMetric) -> None:
        """Count one turn; nothing where it could not be measured."""
        if turn.anchor is None:
            return
        for until, value_s in response_times_s(turn):
            self._response.observe((turn.anchor.value, until), value_s)
        for part, ms in turn.parts_ms.items():
            self._contribution.observe((_encodable(part),), ms / 1000.0)

    def collect(self) -> Iterator[Metric]:
        """Every metric, with what runs, what was dropped and what could not be measured as of now."""
        for histogram in (self._duration, self._attempts, self._first_output, self._response, self._contribution):
            yield histogram.family()
        breaches = CounterMetricFamily(
            _exposed(semconv.THRESHOLD_BREACHES), "Operations that reached a threshold.", labels=_SEVERE
        )
        for labels, n in self._breaches.items():
            breaches.add_metric(labels, n)
        yield breaches
        active = GaugeMetricFamily(
            _exposed(semconv.OPERATIONS_ACTIVE), "Operations that are running.", labels=[semconv.OPERATION_TYPE]
        )
        for kind, n in running_by_type().items():
            active.add_metric([kind], n)
        yield active
        yield _by_reason(semconv.TURNS_UNMEASURED, "What could not be measured, by reason.", unmeasured.by_reason())
        yield _by_reason(semconv.TELEMETRY_DROPPED, "What was dropped, by reason.", dropped.by_reason())

    def _labels(self, metric: LatencyMetric) -> tuple[str, str, str]:
        kind = metric.operation_type.value
        name, provider = self._names.of(metric.operation_name), metric.provider
        series = kind, _encodable(name), _encodable(self._providers.of(provider) if provider else "")
        if series not in self._series:
            if len(self._series) >= MAX_SERIES:
                return kind, semconv.OTHER, semconv.OTHER
            self._series.add(series)
        return series


class _Histogram:
    def __init__(self, name: str, what: str, labels: Sequence[str], edges: Sequence[float]) -> None:
        self._name = name
        self._what = what
        self._labels = labels
        self._edges = edges
        self._written = [*map(floatToGoString, edges), "+Inf"]
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, value_s: float) -> None:
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets, self._sums[labels] = [0] * len(self._written), 0.0
            self._buckets[labels] = buckets
        # An edge is `le`: the value that equals it is below it.
        buckets[bisect_left(self._edges, value_s)] += 1
        self._sums[labels] += value_s

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._what, labels=self._labels)
        for labels, buckets in self._buckets.items():
            cumulative = zip(self._written, map(float, accumulate(buckets)), strict=True)
            family.add_metric(labels, list(cumulative), self._sums[labels])
        return family


def _by_reason(instrument: str, what: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_exposed(instrument), what, labels=[semconv.REASON])
    for reason, n in counts.items():
        family.add_metric([_encodable(reason)], n)
    return family


def _exposed(instrument: str, unit: str = "") -> str:
    """The name of an instrument in Prometheus, without what the kind of metric adds to it."""
    return instrument.replace(".", "_") + unit


def _encodable(text: object) -> str:
    """UTF-8 has no half of a surrogate pair; with one in it, nothing at all could be sent any more."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
