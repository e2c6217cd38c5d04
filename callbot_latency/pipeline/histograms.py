"""The OpenTelemetry instruments, and the Views that give their histograms exact edges."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from .. import semconv
from ..base.drop_counters import dropped, unmeasured
from ..base.internal_errors import call_safely
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from ..tracing.sdk_internals import reset_instruments_after_fork
from .instruments import NameLabels, running_by_type

__all__ = ["Histograms", "bucket_bounds_s", "response_times_s", "views"]

_LABELS: Final = {
    semconv.OPERATION_DURATION: {
        semconv.OPERATION_TYPE,
        semconv.OPERATION_NAME,
        semconv.PROVIDER,
        semconv.STATUS,
    },
    semconv.ATTEMPT_DURATION: {
        semconv.OPERATION_TYPE,
        semconv.OPERATION_NAME,
        semconv.PROVIDER,
        semconv.STATUS,
    },
    semconv.OPERATION_TIME_TO_FIRST_OUTPUT: {semconv.OPERATION_TYPE, semconv.OPERATION_NAME, semconv.PROVIDER},
    semconv.TURN_RESPONSE: {semconv.ANCHOR, semconv.UNTIL},
    semconv.TURN_CONTRIBUTION: {semconv.PART},
}


def bucket_bounds_s(thresholds: Thresholds) -> list[float]:
    """Bucket edges in seconds: ours and every configured threshold, so that breaches can be read off exactly."""
    return sorted({*semconv.DURATION_EDGES_S, *thresholds.bucket_bounds_s()})


def views(thresholds: Thresholds) -> list[View]:
    """One View a histogram, for a MeterProvider of ours; elsewhere the instruments' bucket advisory does the same."""
    return [
        View(
            instrument_name=name,
            meter_name=semconv.SCOPE,
            attribute_keys=labels,
            aggregation=ExplicitBucketHistogramAggregation(bucket_bounds_s(thresholds)),
        )
        for name, labels in _LABELS.items()
    ]


def response_times_s(turn: TurnMetric) -> Iterator[tuple[str, float]]:
    """How long the caller waited, in seconds, by until when; what is not known is left out."""
    for until, ms in ((semconv.UNTIL_HEARD, turn.response_ms), (semconv.UNTIL_SENT, turn.response_sent_ms)):
        if ms is not None:
            yield until, ms / 1000.0


class Histograms:
    """The reporter that records every measurement on OpenTelemetry instruments, in seconds.

    call_sid and stream_sid are never labels: exemplars lead to the trace instead.
    """

    def __init__(self, meter: Meter, thresholds: Thresholds) -> None:
        edges = bucket_bounds_s(thresholds)
        self._names = NameLabels(counted_as=semconv.DROPPED_NAME_LABEL)
        self._providers = NameLabels(counted_as=semconv.DROPPED_PROVIDER_LABEL)
        self._duration = meter.create_histogram(
            semconv.OPERATION_DURATION,
            unit="s",
            description="How long an operation took.",
            explicit_bucket_boundaries_advisory=edges,
        )
        self._attempts = meter.create_histogram(
            semconv.ATTEMPT_DURATION,
            unit="s",
            description="How long one provider's part of an operation took.",
            explicit_bucket_boundaries_advisory=edges,
        )
        self._first_output = meter.create_histogram(
            semconv.OPERATION_TIME_TO_FIRST_OUTPUT,
            unit="s",
            description="From the start of an operation to its first output.",
            explicit_bucket_boundaries_advisory=edges,
        )
        self._response = meter.create_histogram(
            semconv.TURN_RESPONSE,
            unit="s",
            description="From the end of the caller's speech to the first audio that was heard, or sent.",
            explicit_bucket_boundaries_advisory=edges,
        )
        self._contribution = meter.create_histogram(
            semconv.TURN_CONTRIBUTION,
            unit="s",
            description="Parts that sum to the response of a turn.",
            explicit_bucket_boundaries_advisory=edges,
        )
        unmeasured_turns = meter.create_observable_counter(
            semconv.TURNS_UNMEASURED, [_unmeasured], unit="{turn}", description="What could not be measured, by reason."
        )
        self._breaches = meter.create_counter(
            semconv.THRESHOLD_BREACHES, unit="{breach}", description="Operations that reached a threshold."
        )
        active = meter.create_observable_up_down_counter(
            semconv.OPERATIONS_ACTIVE, [_active], unit="{operation}", description="Operations that are running."
        )
        lost = meter.create_observable_counter(
            semconv.TELEMETRY_DROPPED, [_dropped], unit="{item}", description="What was dropped, by reason."
        )
        recorded = (self._duration, self._attempts, self._first_output, self._response, self._contribution)
        self._instruments = (*recorded, self._breaches, unmeasured_turns, active, lost)

    def start(self) -> None:
        """Nothing to start."""

    def restart_after_fork(self) -> None:
        """In a forked child: what was recorded so far is the parent's to tell; locks held there are nobody's here."""
        reset_instruments_after_fork(self._instruments)

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Record a batch."""
        for metric in batch:
            call_safely(self._record, metric)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        """Record turns."""
        for turn in turns:
            call_safely(self._record_turn, turn)

    def _record_turn(self, turn: TurnMetric) -> None:
        if turn.anchor is None:
            return
        context, anchor = _trace_of(turn), turn.anchor.value
        for until, value_s in response_times_s(turn):
            self._response.record(value_s, {semconv.ANCHOR: anchor, semconv.UNTIL: until}, context)
        for part, ms in turn.parts_ms.items():
            self._contribution.record(ms / 1000.0, {semconv.PART: part}, context)

    def close(self) -> None:
        """Nothing to close: the meter provider is flushed by whoever owns it."""

    def _record(self, metric: LatencyMetric) -> None:
        context = _trace_of(metric)
        labels: dict[str, Any] = {
            semconv.OPERATION_TYPE: metric.operation_type.value,
            semconv.OPERATION_NAME: self._names.of(metric.operation_name),
        }
        if metric.provider:
            labels[semconv.PROVIDER] = self._providers.of(metric.provider)
        if metric.attempt is not None:
            self._attempts.record(metric.duration_s, {**labels, semconv.STATUS: metric.status.value}, context)
            return
        if metric.time_to_first_output_ms is not None:
            self._first_output.record(metric.time_to_first_output_ms / 1000.0, labels, context)
        self._duration.record(metric.duration_s, {**labels, semconv.STATUS: metric.status.value}, context)
        if metric.severity is not None:
            labels.pop(semconv.OPERATION_NAME)
            self._breaches.add(1, {**labels, semconv.SEVERITY: metric.severity.value}, context)


def _active(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(n, {semconv.OPERATION_TYPE: kind}) for kind, n in running_by_type().items()]


def _dropped(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(n, {semconv.REASON: reason}) for reason, n in dropped.by_reason().items()]


def _unmeasured(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(n, {semconv.REASON: reason}) for reason, n in unmeasured.by_reason().items()]


def _trace_of(metric: LatencyMetric | TurnMetric) -> Context | None:
    """The measured span as context, so that an exemplar carries its trace; None where no span was sampled."""
    if metric.trace_id is None or metric.span_id is None:
        return None
    span = SpanContext(int(metric.trace_id, 16), int(metric.span_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context())
