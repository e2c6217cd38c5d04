"""From what the queue holds to the one event; runs on the worker or on a reader's thread."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.trace import format_span_id, format_trace_id

from .. import semconv
from ..base.phone_numbers import REDACT, PhoneNumbers
from ..base.scrubbing import scrub
from ..interop.framework_spans import ForeignSpan, metric_of
from ..measuring.measurement import Measurement
from ..model.metric import LatencyMetric, known_metric
from ..model.operation import OperationStatus, Severity
from ..model.thresholds import Thresholds
from ..model.units import NS_PER_MS, at
from ..tracing.span_status import snapshot_metadata

__all__ = ["claim_deadline_report", "running_metric", "to_metric"]


def to_metric(item: Any, thresholds: Thresholds, phones: PhoneNumbers = REDACT) -> LatencyMetric:
    """A Measurement of ours, a LatencyMetric handed in, or a finished span of somebody else's.

    `phones` cleans the metadata of the last two, and their error messages are scrubbed; a Measurement's were when they
    were given.

    Raises:
        TypeError, ValueError: nothing that can be counted.

    """
    if isinstance(item, Measurement):
        return _of_measurement(item)
    metric = _cleaned(item if isinstance(item, LatencyMetric) else _of_foreign(item), phones)
    if metric.status is OperationStatus.RUNNING:
        raise ValueError("status: what still runs is no measurement yet")
    if metric.severity is not None or metric.status is OperationStatus.CANCELLED or metric.attempt is not None:
        return metric
    severity = thresholds.severity(metric.operation_type.value, metric.latency_ms)
    return metric if severity is None else replace(metric, severity=severity)


def _cleaned(metric: LatencyMetric, phones: PhoneNumbers) -> LatencyMetric:
    if metric.error_message and (message := scrub(metric.error_message)) != metric.error_message:
        metric = replace(metric, error_message=message)
    if not metric.metadata:
        return metric
    try:
        facts = snapshot_metadata(metric.metadata)
        cleaned = phones.redact(facts)
    except Exception:  # noqa: BLE001 - what is handed in may be anything, and change meanwhile; the metric counts
        return replace(metric, metadata={})
    return metric if cleaned is facts else replace(metric, metadata=cleaned)


def _of_foreign(item: Any) -> LatencyMetric:
    return metric_of(item) if isinstance(item, ForeignSpan) else _of_span(item)


def _ms(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_MS


def claim_deadline_report(m: Measurement) -> bool:
    """Whether an alert may say that the operation still runs; True once, and never after its end was converted.

    The timer of deadlines and the converter agree by who writes `told_in_flight` first; `setdefault` is one step.
    """
    return "told_in_flight" not in vars(m) and vars(m).setdefault("told_in_flight", True)


def running_metric(m: Measurement, now_ns: int) -> LatencyMetric:
    """An operation that still runs, as it stands at `now_ns` of the monotonic clock."""
    return _metric(m, now_ns - m.start_ns, OperationStatus.RUNNING, Severity.CRITICAL)


def _of_measurement(m: Measurement) -> LatencyMetric:
    vars(m).setdefault("told_in_flight", False)
    # A cancelled one has no severity, unless it was already told.
    severity = Severity.CRITICAL if m.told_in_flight else m.severity
    return _metric(m, m.elapsed_ns, m.status, severity)


def _metric(m: Measurement, elapsed_ns: int, status: OperationStatus, severity: Severity | None) -> LatencyMetric:
    context, operation = m.span_context, m.operation
    values = {
        semconv.OPERATION_TYPE: operation.type,
        semconv.OPERATION_NAME: operation.name,
        semconv.LATENCY_MS: elapsed_ns / NS_PER_MS,
        semconv.STATUS: status,
        semconv.TIMESTAMP: at(m.start_wall_ns + elapsed_ns),
        semconv.CALL_SID: m.call_sid,
        semconv.STREAM_SID: m.stream_sid,
        semconv.PROVIDER: m.provider,
        semconv.METADATA: m.metadata,
        semconv.SEVERITY: severity,
        semconv.TRACE_ID: format_trace_id(context.trace_id) if context.is_valid else None,
        # A span that is not sampled is nowhere to be found, and one that does not record may have its parent's id.
        semconv.SPAN_ID: format_span_id(context.span_id) if m.key > 0 and context.trace_flags.sampled else None,
        semconv.TURN: m.turn,
        semconv.TOLD_IN_FLIGHT: m.told_in_flight or None,
    }
    return known_metric(values, _facts(m, elapsed_ns, status))


def _facts(m: Measurement, elapsed_ns: int, status: OperationStatus) -> Mapping[str, Any]:
    """What is known of few operations."""
    if m.error_message is None and not (m.has_output or m.facts):
        return {}
    return {
        semconv.ERROR_MESSAGE: m.error_message,
        semconv.TIME_TO_FIRST_OUTPUT_MS: _ms(m.first_output_ns),
        semconv.LARGEST_GAP_MS: _ms(m.largest_gap_ns),
        semconv.ITEMS: m.items,
        semconv.BUSY_MS: _ms(m.busy_ns),
        **m.audio_facts(elapsed_ns, status),
        **m.facts,
    }


def _of_span(span: Any) -> LatencyMetric:
    attributes = span.attributes
    ids = (semconv.CALL_SID, semconv.STREAM_SID, semconv.PROVIDER)
    call_sid, stream_sid, provider = (None if (v := attributes.get(name)) is None else str(v) for name in ids)
    prefix = semconv.METADATA_PREFIX
    turn = attributes.get(semconv.TURN)
    failed = span.status is not None and not span.status.is_ok
    return LatencyMetric(
        operation_type=attributes[semconv.OPERATION_TYPE],
        operation_name=str(attributes.get(semconv.OPERATION_NAME) or span.name),
        latency_ms=(span.end_time - span.start_time) / NS_PER_MS,
        status=attributes.get(semconv.STATUS) or (OperationStatus.ERROR if failed else OperationStatus.SUCCESS),
        timestamp=at(span.end_time),
        call_sid=call_sid,
        stream_sid=stream_sid,
        provider=provider,
        error_message=span.status.description if failed else None,
        metadata={key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)},
        time_to_first_output_ms=attributes.get(semconv.TIME_TO_FIRST_OUTPUT_MS),
        trace_id=format_trace_id(span.context.trace_id),
        span_id=format_span_id(span.context.span_id),
        turn=turn if type(turn) is int else None,
    )
