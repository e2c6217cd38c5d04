"""One operation while it runs: opened on the caller's thread, closed there, told to the pipeline."""

import logging
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, get_current_span, set_span_in_context

from . import semconv
from .binding import BINDING
from .guard import contained
from .metric import LatencyMetric, OperationStatus, OperationType, Severity
from .outcome import error_message, mark_failed, metadata_attributes, status_of
from .spans import SpanOpener, attach, detach, detach_abandoned
from .switch import switch
from .thresholds import Thresholds

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["Handle", "Measurement", "OpenMeasurements", "Operation", "Session", "operation_of", "record"]

_log = logging.getLogger(__name__)

NS_PER_MS: Final = 1_000_000
_NO_METADATA: Final[Mapping[str, Any]] = {}
_SUCCESS: Final = OperationStatus.SUCCESS
# Enum's .value is a Python-level descriptor: too dear for the caller's path.
_STATUS_WORDS: Final = {status: status.value for status in OperationStatus}
_SEVERITY_WORDS: Final = {severity: severity.value for severity in Severity}


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of an operation before it runs: one for each decorated function, made once."""

    type: OperationType
    name: str
    provider: str | None = None
    call_sid: Callable[[Any], Any] | None = None
    stream_sid: Callable[[Any], Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    type_value: str = field(init=False)
    span_name: str = field(init=False)
    attributes: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "type_value", self.type.value)
        put(self, "span_name", f"{self.type.value} {self.name}")
        attributes = {semconv.OPERATION_TYPE: self.type.value, semconv.OPERATION_NAME: self.name}
        if self.provider:
            attributes[semconv.PROVIDER] = self.provider
        put(self, "attributes", attributes | metadata_attributes(self.metadata))


def operation_of(
    operation_type: OperationType | str,
    operation_name: str,
    *,
    provider: str | None = None,
    call_sid_attr: str | None = None,
    stream_sid_attr: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Operation:
    """A checked Operation.

    Raises:
        TypeError, ValueError: names the argument, what was expected and what to do.

    """
    kind = OperationType.of(operation_type)
    for name, value in (("operation_name", operation_name), ("provider", provider)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}: expected a string, got {type(value).__name__}")
    if not operation_name:
        raise ValueError("operation_name: expected a non-empty string")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a mapping, got {type(metadata).__name__}")
    return Operation(
        kind,
        operation_name,
        provider,
        _getter("call_sid_attr", call_sid_attr),
        _getter("stream_sid_attr", stream_sid_attr),
        dict(metadata or {}),
    )


cached_operation_of = lru_cache(maxsize=1024)(operation_of)


def _getter(name: str, path: str | None) -> Callable[[Any], Any] | None:
    if path is None:
        return None
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{name}: expected an attribute's name such as 'call_sid' or 'session.call_sid', got {path!r}")
    read = attrgetter(path)

    def get(owner: Any) -> Any:
        try:
            return read(owner)
        except AttributeError:
            return None

    return get


def _id(value: Any) -> str | None:
    return None if value is None or value == "" else value if type(value) is str else str(value)


class Handle:
    """What measured code may say of itself; this one, given while measuring is off, listens to nothing."""

    __slots__ = ()

    def set_provider(self, provider: str) -> None:
        """Name the provider that answered, where only the running code knows."""

    def set_metadata(self, **metadata: Any) -> None:
        """Add facts to the metric's metadata and, beneath ``metadata.``, to its span."""

    def mark_first_output(self) -> None:
        """Say that the first output is there: kept as `time_to_first_output_ms`. The first call counts."""


class Measurement(Handle):
    """An open operation; times are in nanoseconds, `start_wall_ns` since the epoch, the others monotonic."""

    __slots__ = (
        "busy_ns", "call_sid", "context", "elapsed_ns", "error_message", "first_output_ns", "items", "key",
        "largest_gap_ns", "metadata", "operation", "provider", "severity", "span", "start_ns", "start_wall_ns",
        "status", "stream_sid", "token",
    )  # fmt: skip

    span: Span
    context: Context
    token: "Token[Context]"
    key: int
    start_wall_ns: int
    start_ns: int
    elapsed_ns: int

    def __init__(
        self, operation: Operation, call_sid: str | None, stream_sid: str | None, metadata: Mapping[str, Any]
    ) -> None:
        self.operation = operation
        self.provider = operation.provider
        self.call_sid = call_sid
        self.stream_sid = stream_sid
        self.metadata = metadata
        self.status = _SUCCESS
        self.severity: Severity | None = None
        self.error_message: str | None = None
        self.first_output_ns: int | None = None
        self.largest_gap_ns: int | None = None
        self.items: int | None = None
        self.busy_ns: int | None = None

    def set_provider(self, provider: str) -> None:
        self.provider = str(provider)
        contained(self.span.set_attribute, semconv.PROVIDER, self.provider)

    def set_metadata(self, **metadata: Any) -> None:
        self.metadata = {**self.metadata, **metadata}
        contained(self._show_metadata, metadata)

    def _show_metadata(self, metadata: Mapping[str, Any]) -> None:
        self.span.set_attributes(metadata_attributes(metadata))

    def mark_first_output(self) -> None:
        if self.first_output_ns is None:
            self.first_output_ns = perf_counter_ns() - self.start_ns

    @property
    def latency_ms(self) -> float:
        """How long the closed operation took, in milliseconds."""
        return self.elapsed_ns / NS_PER_MS


class OpenMeasurements(dict[int, Measurement]):
    """The table of what is running, by span id (or by a negative key where no span records).

    Whoever takes a measurement out of it tells the pipeline, so that each is told exactly once.
    """


class Session:
    """Measuring while it is on: everything that the caller's path needs, and nothing else.

    Args:
        spans: opens the spans.
        thresholds: decide the severity, which must stand on the span before it ends.
        pipeline: takes what is finished.

    """

    def __init__(self, spans: SpanOpener, thresholds: Thresholds, pipeline: "Pipeline") -> None:
        self.spans = spans
        self.open_measurements = OpenMeasurements()
        self._thresholds = thresholds
        self.submit = pipeline.submit
        self.flush = pipeline.flush

    def span_opener(self) -> SpanOpener:
        """The opener of spans, for the spans that are no operation."""
        return self.spans

    def record(self, metric: LatencyMetric) -> None:
        """Take in a metric measured elsewhere."""
        self.submit(metric)

    def open(
        self,
        operation: Operation,
        owner: Any = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] = _NO_METADATA,
    ) -> Measurement:
        """Start measuring and attach the span; `owner` is where the operation's ids are read from."""
        measurement = self.start(operation, owner, call_sid, stream_sid, metadata)
        measurement.token = attach(measurement.context)
        return measurement

    def start(
        self,
        operation: Operation,
        owner: Any = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] = _NO_METADATA,
    ) -> Measurement:
        """Start measuring; the span is not attached."""
        context = get_current()
        if owner is not None:
            if call_sid is None and operation.call_sid is not None:
                call_sid = contained(operation.call_sid, owner)
            if stream_sid is None and operation.stream_sid is not None:
                stream_sid = contained(operation.stream_sid, owner)
        binding: Any = context.get(BINDING)
        if binding is not None:
            call_sid = call_sid or binding.call_sid
            # A stream belongs to its call: another call's operation does not take this one's.
            stream_sid = stream_sid or (binding.stream_sid if call_sid == binding.call_sid else None)
        measurement = Measurement(operation, _id(call_sid), _id(stream_sid), operation.metadata)
        self._open_span(measurement, context, metadata, binding is None)
        return measurement

    def _open_span(
        self, measurement: Measurement, context: Context, metadata: Mapping[str, Any], unbound: bool
    ) -> None:
        operation, call_sid = measurement.operation, measurement.call_sid
        attributes = dict(operation.attributes)
        if metadata:
            measurement.metadata = {**operation.metadata, **metadata}
            attributes |= metadata_attributes(metadata)
        if call_sid is not None:
            attributes[semconv.CALL_SID] = call_sid
        if measurement.stream_sid is not None:
            attributes[semconv.STREAM_SID] = measurement.stream_sid
        measurement.start_wall_ns = start_wall_ns = time_ns()
        measurement.start_ns = perf_counter_ns()
        if unbound and call_sid is not None and not _has_span(context):
            span = self.spans.open_in_call(operation.span_name, context, attributes, start_wall_ns, call_sid)
        else:
            span = self.spans.open(operation.span_name, context, attributes, start_wall_ns)
        measurement.span = span
        measurement.key = key = span.get_span_context().span_id if span.is_recording() else -id(measurement)
        self.open_measurements[key] = measurement
        measurement.context = set_span_in_context(span, context)

    def close(self, measurement: Measurement, exc: BaseException | None) -> None:
        """Stop the clock, detach the span and end it."""
        measurement.elapsed_ns = perf_counter_ns() - measurement.start_ns
        if exc is not None and isinstance(exc, GeneratorExit):
            detach_abandoned(measurement.token, measurement.context)
        else:
            detach(measurement.token)
        self.end(measurement, exc)

    def end(self, measurement: Measurement, exc: BaseException | None) -> None:
        """Judge, write the outcome on the span, end it, and tell the pipeline."""
        span = measurement.span
        if exc is not None:
            measurement.status = status_of(exc)
            measurement.error_message = error_message(exc)
            contained(mark_failed, span, exc, measurement.error_message)
        outcome: dict[str, Any] = {semconv.STATUS: _STATUS_WORDS[measurement.status]}
        if measurement.status is not OperationStatus.CANCELLED:
            measurement.severity = self._thresholds.severity(measurement.operation.type_value, measurement.latency_ms)
            if measurement.severity is not None:
                outcome[semconv.SEVERITY] = _SEVERITY_WORDS[measurement.severity]
        if measurement.first_output_ns is not None or measurement.items is not None:
            outcome |= _stream_attributes(measurement)
        try:
            span.set_attributes(outcome)
            # The processor takes the measurement out of the table in on_end.
            span.end(measurement.start_wall_ns + measurement.elapsed_ns)
        finally:
            # Still there: no span records (sampled out, no SDK) or the provider is without our processor.
            if self.open_measurements.pop(measurement.key, None) is not None:
                self.submit(measurement)


def _has_span(context: Context) -> bool:
    return get_current_span(context).get_span_context().is_valid


def _stream_attributes(measurement: Measurement) -> dict[str, Any]:
    spoken = {
        semconv.TIME_TO_FIRST_OUTPUT_MS: measurement.first_output_ns,
        semconv.LARGEST_GAP_MS: measurement.largest_gap_ns,
        semconv.BUSY_MS: measurement.busy_ns,
    }
    attributes: dict[str, Any] = {name: ns / NS_PER_MS for name, ns in spoken.items() if ns is not None}
    if measurement.items is not None:
        attributes[semconv.ITEMS] = measurement.items
    return attributes


def record(metric: LatencyMetric) -> None:
    """Hand in a metric measured elsewhere; thresholds, histograms, tracker, file and alerts treat it as every other.

    Its `severity` is decided here unless it has one. What is no LatencyMetric is counted as dropped, and logged.
    """
    session = switch.session
    if session is not None:
        contained(session.record, metric)
