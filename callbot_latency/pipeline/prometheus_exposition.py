"""Our metrics as Prometheus sees them, with the names, labels and edges that the Collector's exporter gives."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .. import semconv
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from .instruments import (
    BREACHES,
    HISTOGRAMS,
    OBSERVED,
    Instrument,
    NameLabels,
    Sample,
    bucket_bounds_s,
    samples_of,
    samples_of_turn,
)

__all__ = ["Counts"]

MAX_SERIES: Final = 1_000
"""How many triples of type, name and provider have series of their own; later ones are ``other`` of their type."""

Labels = tuple[str, ...]


class Counts(Collector):
    """Counts measurements and turns; what `collect` gives is cumulative, and may be pushed as often as one likes.

    A provider that is unknown is an empty label, which to Prometheus is none. The numbers are kept here and not in
    prometheus_client's own metrics: those move into files that all processes share, once an application sets
    PROMETHEUS_MULTIPROC_DIR.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        edges = bucket_bounds_s(thresholds)
        self._histograms = {instrument: _Histogram(instrument, edges) for instrument in HISTOGRAMS}
        self._breaches: Counter[Labels] = Counter()
        self._names = NameLabels()
        self._providers = NameLabels()
        self._series: set[Labels] = set()

    def count(self, metric: LatencyMetric) -> None:
        """Count one measurement."""
        self._count(samples_of(metric, *self._name_and_provider(metric)))

    def count_turn(self, turn: TurnMetric) -> None:
        """Count one turn; nothing where it could not be measured."""
        self._count(samples_of_turn(turn))

    def collect(self) -> Iterator[Metric]:
        """Every metric, with what runs, what was dropped and what could not be measured as of now."""
        for histogram in self._histograms.values():
            yield histogram.family()
        yield _family(BREACHES, self._breaches)
        for instrument, read in OBSERVED.items():
            yield _family(instrument, {(value,): n for value, n in read().items()})

    def _count(self, samples: Iterable[Sample]) -> None:
        for instrument, value, labels in samples:
            series = tuple(map(_encodable, labels))
            if instrument is BREACHES:
                self._breaches[series] += 1
            else:
                self._histograms[instrument].observe(series, value)

    def _name_and_provider(self, metric: LatencyMetric) -> tuple[str, str]:
        provider = self._providers.of(metric.provider) if metric.provider else ""
        series = metric.operation_type.value, self._names.of(metric.operation_name), provider
        if series not in self._series:
            if len(self._series) >= MAX_SERIES:
                return semconv.OTHER, semconv.OTHER
            self._series.add(series)
        return series[1:]


class _Histogram:
    def __init__(self, instrument: Instrument, edges: Sequence[float]) -> None:
        self._instrument = instrument
        self._edges = edges
        self._written = [*map(floatToGoString, edges), "+Inf"]
        self._buckets: defaultdict[Labels, list[int]] = defaultdict(lambda: [0] * len(self._written))
        self._sums: defaultdict[Labels, float] = defaultdict(float)

    def observe(self, labels: Labels, value_s: float) -> None:
        # An edge is `le`: the value that equals it is below it.
        self._buckets[labels][bisect_left(self._edges, value_s)] += 1
        self._sums[labels] += value_s

    def family(self) -> Metric:
        name = f"{_exposed(self._instrument)}_seconds"
        family = HistogramMetricFamily(name, self._instrument.description, labels=self._instrument.labels)
        for labels, buckets in self._buckets.items():
            cumulative = zip(self._written, map(float, accumulate(buckets)), strict=True)
            family.add_metric(labels, list(cumulative), self._sums[labels])
        return family


def _family(instrument: Instrument, counts: Mapping[Labels, int]) -> Metric:
    kind = GaugeMetricFamily if instrument.kind == "gauge" else CounterMetricFamily
    family = kind(_exposed(instrument), instrument.description, labels=instrument.labels)
    for labels, n in counts.items():
        family.add_metric(tuple(map(_encodable, labels)), n)
    return family


def _exposed(instrument: Instrument) -> str:
    """The name of an instrument in Prometheus, without what the kind of metric adds to it."""
    return instrument.name.replace(".", "_")


def _encodable(text: object) -> str:
    """UTF-8 has no half of a surrogate pair; with one in it, nothing at all could be sent any more."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
