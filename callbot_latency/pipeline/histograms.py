"""The OpenTelemetry instruments, and the Views that give their histograms exact edges."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from .. import semconv
from ..base.internal_errors import call_safely
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from ..tracing.sdk_internals import reset_instruments_after_fork
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

__all__ = ["Histograms", "views"]


def views(thresholds: Thresholds) -> list[View]:
    """One View for each histogram, for a MeterProvider that `init()` makes.

    On the application's provider the instruments' bucket advisory does the same.
    """
    return [
        View(
            instrument_name=instrument.name,
            meter_name=semconv.SCOPE,
            attribute_keys=set(instrument.labels),
            aggregation=ExplicitBucketHistogramAggregation(bucket_bounds_s(thresholds)),
        )
        for instrument in HISTOGRAMS
    ]


class Histograms:
    """The reporter that records every measurement on OpenTelemetry instruments, in seconds.

    call_sid and stream_sid are never labels: exemplars lead to the trace instead.
    """

    def __init__(self, meter: Meter, thresholds: Thresholds) -> None:
        edges = bucket_bounds_s(thresholds)
        self._names = NameLabels(counted_as=semconv.DROPPED_NAME_LABEL)
        self._providers = NameLabels(counted_as=semconv.DROPPED_PROVIDER_LABEL)
        histograms = {
            each: meter.create_histogram(
                each.name, unit=each.unit, description=each.description, explicit_bucket_boundaries_advisory=edges
            )
            for each in HISTOGRAMS
        }
        breaches = meter.create_counter(BREACHES.name, unit=BREACHES.unit, description=BREACHES.description)
        self._record_on: dict[Instrument, Callable[..., None]] = {
            **{instrument: histogram.record for instrument, histogram in histograms.items()},
            BREACHES: breaches.add,
        }
        observed = [_observed(meter, instrument, read) for instrument, read in OBSERVED.items()]
        self._instruments = (*histograms.values(), breaches, *observed)

    def start(self) -> None:
        """Nothing to start."""

    def restart_after_fork(self) -> None:
        """In a forked child: the parent reports what was recorded so far, and its locks are held by nobody."""
        reset_instruments_after_fork(self._instruments)

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Record a batch."""
        for metric in batch:
            call_safely(self._record_metric, metric)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        """Record turns."""
        for turn in turns:
            call_safely(self._record, samples_of_turn(turn), turn)

    def close(self) -> None:
        """Nothing to close: the meter provider is flushed by its owner."""

    def _record_metric(self, metric: LatencyMetric) -> None:
        provider = self._providers.of(metric.provider) if metric.provider else ""
        self._record(samples_of(metric, self._names.of(metric.operation_name), provider), metric)

    def _record(self, samples: Iterable[Sample], measured: LatencyMetric | TurnMetric) -> None:
        context = _trace_of(measured)
        for instrument, value, values in samples:
            labels = {name: value for name, value in zip(instrument.labels, values, strict=True) if value}
            self._record_on[instrument](value, labels, context)


def _observed(meter: Meter, instrument: Instrument, read: Callable[[], Mapping[str, int]]) -> Any:
    """An instrument that is read when it is exported."""
    [label] = instrument.labels

    def observe(_: CallbackOptions) -> list[Observation]:
        return [Observation(n, {label: value}) for value, n in read().items()]

    create = meter.create_observable_up_down_counter if instrument.kind == "gauge" else meter.create_observable_counter
    return create(instrument.name, [observe], unit=instrument.unit, description=instrument.description)


def _trace_of(metric: LatencyMetric | TurnMetric) -> Context | None:
    """The measured span as context, so that an exemplar carries its trace; None where no span was sampled."""
    if metric.trace_id is None or metric.span_id is None:
        return None
    span = SpanContext(int(metric.trace_id, 16), int(metric.span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context())
