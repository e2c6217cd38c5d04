"""Measuring while it is on: opens an operation on the caller's thread, closes it there, tells the pipeline."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from opentelemetry.context import Context, get_current
from opentelemetry.trace import INVALID_SPAN, get_current_span

from .. import semconv
from ..base.bounded import MAX_CALLS, BoundedMap
from ..base.concurrency import running_loop
from ..base.internal_errors import call_safely
from ..base.text import text_of_any, well_formed
from ..model.metric import LatencyMetric
from ..model.operation import CANCELLED, Severity
from ..model.thresholds import Thresholds
from ..model.units import NS_PER_MS
from ..tracing.context import BINDING, OPERATION, SPAN, Binding, BoundTimeline, BoundTurn, attach, detach
from ..tracing.span_status import mark_failed, metadata_attributes, snapshot_metadata, status_of
from ..tracing.spans import SpanFactory
from .active_session import active
from .measurement import Measurement, Operation

if TYPE_CHECKING:
    from ..base.phone_numbers import PhoneNumbers

__all__ = ["OpenMeasurements", "Session", "Sink", "record"]

_NO_METADATA: Final[Mapping[str, Any]] = {}
_UNBOUND: Final = Binding("")


def _nowhere(_: str) -> bool:
    return False


class OpenMeasurements(dict[int, Measurement]):
    """The table of what is running, by span id (or by a negative key where no span records).

    Whoever takes a measurement out of it tells the pipeline, so that each is told exactly once.
    """


class Sink(Protocol):
    """Takes what is finished."""

    def submit(self, item: Any, /) -> None:
        """Enqueue a measurement, a turn or a span."""

    def flush(self, timeout_s: float, /) -> bool:
        """Wait until everything is with its reporters; False when the time was too short."""


class Session:
    """Everything that the caller's path needs, and nothing else.

    Args:
        spans: opens the spans.
        thresholds: decide the severity, which must stand on the span before it ends.
        pipeline: takes what is finished.

    """

    def __init__(self, spans: SpanFactory, thresholds: Thresholds, pipeline: Sink) -> None:
        self.spans = spans
        self.open_measurements: OpenMeasurements = OpenMeasurements()
        self.submit: Callable[[Any], None] = pipeline.submit
        self.flush: Callable[[float], bool] = pipeline.flush
        self.turn_numbers: BoundedMap[str, Iterator[int]] = BoundedMap(MAX_CALLS)
        self.timelines: WeakSet[BoundTimeline] = WeakSet()
        """Of the calls that are bound, for a fork to find."""
        self.opened_calls: deque[tuple[str, int | None, Mapping[str, Any]]] | None = None
        """Where `call()` leaves its call_sid and metadata, and `turn()` its number too, when somebody behind the queue
        asks for them.
        """
        from ..base.phone_numbers import REDACT  # here, since importing us is to cost little

        self.phones: PhoneNumbers = REDACT
        """What becomes of phone numbers in metadata."""
        self.propagates_to: Callable[[str], bool] = _nowhere
        """Whether a call's headers may go to a URL."""
        self.follows_foreign = False
        """Whether the spans of frameworks are recognised."""
        self._severity = thresholds.severity

    def span_factory(self) -> SpanFactory:
        """The factory of spans, for the spans that are no operation."""
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
        if operation.reads_owner:
            call_sid, stream_sid = _ids_of_owner(operation, owner, call_sid, stream_sid)
        binding: Any = context.get(BINDING, _UNBOUND)
        call_sid, turn = call_sid or binding.call_sid, None
        if call_sid == binding.call_sid:  # another call's operation takes neither this one's stream nor its turn
            stream_sid, turn = stream_sid or binding.stream_sid, binding.turn
        if (call_sid and not call_sid.isascii()) or (stream_sid and not stream_sid.isascii()):
            call_sid, stream_sid = well_formed(call_sid or ""), well_formed(stream_sid or "")
        measurement = Measurement(operation, call_sid or None, stream_sid or None)
        attributes = self.attributes_of(measurement, metadata)
        if turn is not None:
            measurement.turn = attributes[semconv.TURN] = turn.number
        measurement.start_wall_ns = start_wall_ns = time_ns()
        measurement.start_ns = perf_counter_ns()
        if binding is _UNBOUND and call_sid and not get_current_span(context).get_span_context().is_valid:
            span = self.spans.start_in_call(operation.span_name, context, attributes, start_wall_ns, call_sid)
        else:
            span = self.spans.start(operation.span_name, context, attributes, start_wall_ns)
        measurement.span, measurement.span_context = span, span.get_span_context()
        measurement.key = measurement.span_context.span_id if span.is_recording() else -id(measurement)
        self.open_measurements[measurement.key] = measurement
        measurement.context = within = Context(context)
        # Nobody else has this context yet: a further copy for each value would be all that set_value() adds.
        dict.__setitem__(within, SPAN, span)
        dict.__setitem__(within, OPERATION, measurement)
        if turn is not None:
            _enter(measurement, turn, context)
        if operation.is_awaited and operation.on_deadline is not None:
            measurement.loop = running_loop()
        return measurement

    def attributes_of(self, measurement: Measurement, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes that an operation's span starts with."""
        operation = measurement.operation
        if metadata or operation.unredacted:
            facts = self.phones.redact({**operation.unredacted, **snapshot_metadata(metadata)})
            measurement.metadata = {**measurement.metadata, **facts}
            # First, since an attribute limit drops the oldest.
            attributes = {**metadata_attributes(facts), **operation.attributes}
        else:
            attributes = dict(operation.attributes)
        if measurement.call_sid is not None:
            attributes[semconv.CALL_SID] = measurement.call_sid
        if measurement.stream_sid is not None:
            attributes[semconv.STREAM_SID] = measurement.stream_sid
        return attributes

    def close(self, measurement: Measurement, exc: BaseException | None) -> None:
        """Stop the clock, detach the span and end it."""
        measurement.elapsed_ns = perf_counter_ns() - measurement.start_ns
        detach(measurement.token, measurement.context, exc)
        self.end(measurement, exc)

    def end(self, measurement: Measurement, exc: BaseException | None) -> None:
        """Judge, write the outcome on the span, end it, and tell the pipeline."""
        span = measurement.span
        try:
            if exc is not None:
                _fail(measurement, exc)
            if measurement.attempts is not None:
                call_safely(measurement.attempts.settle)
            if measurement.status is not CANCELLED and not measurement.operation.is_attempt:
                severity = self._severity(measurement.operation.type_value, measurement.elapsed_ns / NS_PER_MS)
                if severity is not None:
                    measurement.severity = severity
                    span.set_attribute(semconv.SEVERITY, severity.value)
            elif measurement.told_in_flight:
                span.set_attribute(semconv.SEVERITY, Severity.CRITICAL.value)
            if measurement.has_output:
                span.set_attributes(_output_attributes(measurement))
            # Last, so that it survives a small attribute limit, which drops the oldest.
            # _value_ is what .value reads, without the cost of Enum's descriptor.
            self.spans.set_attribute(span, semconv.STATUS, measurement.status._value_)
            # The processor takes the measurement out of the table in on_end.
            span.end(measurement.start_wall_ns + measurement.elapsed_ns)
        finally:
            # Still there: no span records (sampled out, no SDK) or the provider is without our processor.
            if self.open_measurements.pop(measurement.key, None) is not None:
                self.submit(measurement)
            # What waits for the worker stays small, and a handle used too late speaks to nobody.
            measurement.span = INVALID_SPAN
            del measurement.context


def _enter(measurement: Measurement, turn: BoundTurn, context: Context) -> None:
    """Let the turn know of the operation, and what runs inside of it of its parent; attempts are parts of theirs."""
    parent: Any = context.get(OPERATION)
    while parent is not None and parent.operation.is_attempt and not measurement.operation.is_attempt:
        parent = parent.parent
    # One of another turn, such as a task that outlived it, is no parent here.
    measurement.parent = parent if parent is not None and parent.turn == turn.number else None
    if not measurement.operation.is_attempt:
        turn.add(measurement)
        measurement.await_times = turn.waits_here()


def _ids_of_owner(
    operation: Operation, owner: Any, call_sid: str | None, stream_sid: str | None
) -> tuple[str | None, str | None]:
    owner = owner if operation.owner is None else operation.owner
    if owner is None:
        return call_sid, stream_sid
    return call_sid or _read(operation.call_sid, owner), stream_sid or _read(operation.stream_sid, owner)


def _read(getter: Any, owner: Any) -> str | None:
    value = None if getter is None else call_safely(getter, owner)
    return value if value is None or type(value) is str else text_of_any(value)


def _fail(measurement: Measurement, exc: BaseException) -> None:
    measurement.status = status_of(exc)
    measurement.error_message = measurement.operation.error_text(exc)
    call_safely(mark_failed, measurement.span, exc, measurement.error_message)


def _output_attributes(measurement: Measurement) -> dict[str, Any]:
    spoken = {
        semconv.TIME_TO_FIRST_OUTPUT_MS: measurement.first_output_ns,
        semconv.LARGEST_GAP_MS: measurement.largest_gap_ns,
        semconv.BUSY_MS: measurement.busy_ns,
    }
    attributes: dict[str, Any] = {name: ns / NS_PER_MS for name, ns in spoken.items() if ns is not None}
    if measurement.items is not None:
        attributes[semconv.ITEMS] = measurement.items
    attributes.update(measurement.audio_facts(measurement.elapsed_ns, measurement.status))
    return attributes


def record(metric: LatencyMetric) -> None:
    """Hand in a metric measured elsewhere; thresholds, histograms, tracker, file and alerts treat it as every other.

    Its `severity` is decided here unless it has one. What is no LatencyMetric is counted as dropped, and logged.
    """
    session = active.session
    if session is not None:
        call_safely(session.record, metric)
