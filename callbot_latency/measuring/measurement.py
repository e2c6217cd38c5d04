"""What is known of an operation before it runs, and while it does."""

from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from time import perf_counter_ns
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from .. import semconv
from ..base.internal_errors import call_safely
from ..base.text import text_of_any, well_formed
from ..model.audio import checked_rate, duration_of, said_duration_ms, said_size
from ..model.operation import CANCELLED, OperationStatus, OperationType, Severity
from ..model.units import NS_PER_MS
from ..tracing.span_status import error_message, metadata_attributes, snapshot_metadata
from .active_session import active

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .event_loop_lag import AwaitTimes

__all__ = [
    "Handle",
    "Measurement",
    "Operation",
    "cached_operation_of",
    "checked_metadata",
    "checked_name",
    "checked_text",
    "operation_of",
]

_SUCCESS: Final = OperationStatus.SUCCESS


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of an operation before it runs: one for each decorated function, made once."""

    type: OperationType
    name: str
    provider: str | None = None
    call_sid: Callable[[Any], Any] | None = None
    stream_sid: Callable[[Any], Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_deadline: Callable[[Any], Any] | None = None
    """Called with the Alert when the critical threshold passes while the operation runs."""
    is_awaited: bool = False
    """Whether an event loop runs on while it does."""
    owner: Any = None
    """What its ids are read from, where that is not the first argument: the object of a bound method."""
    error_text: Callable[[BaseException], str] = error_message
    """What is kept of an exception: its scrubbed text, unless that may quote what was said."""
    is_attempt: bool = False
    """Whether it is one provider's part of an operation, which no sum over operations may count again."""
    audio_bytes_per_s: float | None = None
    """How many bytes one second of the audio has that comes."""
    unredacted: Mapping[str, Any] = field(init=False)
    """The metadata where a phone number or a secret may be in it: what becomes of that, each run's session says."""
    reads_owner: bool = field(init=False)
    type_value: str = field(init=False)
    span_name: str = field(init=False)
    attributes: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "unredacted", _uncleaned(self.metadata) if self.metadata else {})
        if self.unredacted:
            put(self, "metadata", {})
        put(self, "reads_owner", self.call_sid is not None or self.stream_sid is not None)
        put(self, "type_value", self.type.value)
        put(self, "span_name", f"{self.type.value} {self.name}")
        attributes = {semconv.OPERATION_TYPE: self.type.value, semconv.OPERATION_NAME: self.name}
        if self.provider:
            attributes[semconv.PROVIDER] = self.provider
        put(self, "attributes", metadata_attributes(self.metadata) | attributes)


def _uncleaned(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    from ..base.phone_numbers import needs_redaction

    return metadata if needs_redaction(metadata) else {}


def operation_of(
    operation_type: OperationType | str,
    operation_name: str,
    *,
    provider: str | None = None,
    call_sid_attr: str | None = None,
    stream_sid_attr: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_deadline: Callable[[Any], Any] | None = None,
    is_awaited: bool = False,
    owner: Any = None,
    audio_bytes_per_s: float | None = None,
) -> Operation:
    """A checked Operation.

    Raises:
        TypeError, ValueError: names the argument, what was expected and what to do.

    """
    kind = OperationType.of(operation_type)
    if on_deadline is not None and not callable(on_deadline):
        raise TypeError(f"on_deadline: expected a function of one alert, got {type(on_deadline).__name__}")
    return Operation(
        kind,
        checked_name(operation_name),
        checked_text("provider", provider),
        _getter("call_sid_attr", call_sid_attr),
        _getter("stream_sid_attr", stream_sid_attr),
        snapshot_metadata(checked_metadata(metadata)),
        on_deadline,
        is_awaited,
        owner,
        audio_bytes_per_s=checked_rate(audio_bytes_per_s),
    )


def checked_name(operation_name: Any) -> str:
    """A name in well-formed Unicode, not empty.

    Raises:
        TypeError, ValueError: anything else.

    """
    name = checked_text("operation_name", operation_name)
    if not name:
        raise ValueError("operation_name: expected a non-empty string")
    return name


def checked_text(name: str, value: Any) -> str | None:
    """A text in well-formed Unicode, or None.

    Raises:
        TypeError: anything else; names the argument.

    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {type(value).__name__}")
    return None if value is None else well_formed(value)


def checked_metadata(metadata: Any) -> Mapping[str, Any]:
    """A mapping, empty for None.

    Raises:
        TypeError: anything else.

    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a mapping, got {type(metadata).__name__}")
    return metadata or {}


@lru_cache(maxsize=1024)
def cached_operation_of(
    operation_type: OperationType | str, operation_name: str, provider: str | None, audio_bytes_per_s: float | None
) -> Operation:
    """`operation_of`, once for all that are alike."""
    return operation_of(operation_type, operation_name, provider=provider, audio_bytes_per_s=audio_bytes_per_s)


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


class SettledAttempts(Protocol):
    """What is known of an operation's attempts, until the operation ends."""

    def settle(self) -> None:
        """End what still runs, and write what is known of all on the operation."""


class Handle:
    """What measured code may say of itself; this one, given while measuring is off, listens to nothing."""

    __slots__ = ()

    def set_provider(self, provider: str | None, /) -> None:
        """Name the provider that answered, where only the running code knows; None says nothing.

        Once the operation has ended, this and the others do nothing.
        """

    def set_metadata(self, /, **metadata: Any) -> None:
        """Add facts to the metric's metadata and, beneath ``metadata.``, to its span."""

    def mark_first_output(self) -> None:
        """Say that the first output is there: kept as `time_to_first_output_ms`. The first call counts."""

    def set_audio(self, *, duration_ms: float | None = None, size_bytes: int | None = None) -> None:
        """Say how long the audio lasts that was heard or spoken, and how many bytes it has: `audio_ms` and `bytes`.

        Without a duration, the size and `audio_bytes_per_s` tell it. None says nothing, and what is no finite number
        from 0 on is passed over. Of each, what was said last counts.
        """


class Measurement(Handle):
    """An open operation; times are in nanoseconds, `start_wall_ns` since the epoch, the others monotonic."""

    span: Span
    span_context: SpanContext
    context: Context
    token: "Token[Context]"
    key: int
    start_wall_ns: int
    start_ns: int
    elapsed_ns: int
    # Defaults of the class and not of each instance: what a run does not need costs the caller nothing.
    status: OperationStatus = OperationStatus.SUCCESS
    severity: Severity | None = None
    error_message: str | None = None
    first_output_ns: int | None = None
    largest_gap_ns: int | None = None
    items: int | None = None
    busy_ns: int | None = None
    size_bytes: int | None = None
    said_audio_ms: float | None = None
    has_output: bool = False
    """Whether anything is known of what came, or of the audio."""
    told_in_flight: bool = False
    """Whether an alert said that it still runs. Who writes it first decides: the deadline, or the end."""
    loop: "AbstractEventLoop | None" = None
    """The event loop that awaits it, kept only for `on_deadline`."""
    turn: int | None = None
    parent: "Measurement | None" = None
    """The operation of the same turn that it runs inside of."""
    await_times: "AwaitTimes | None" = None
    """Of an operation of a turn, on its event loop: when its coroutine waited; nanoseconds, monotonic."""
    attempts: "SettledAttempts | None" = None
    """What `attempt()` knows of those that it made."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """Added keys of the metric."""
    outer: "Measurement | None" = None
    """The one that the same `measure_latency_context` opened before, and has not closed yet."""

    def __init__(self, operation: Operation, call_sid: str | None, stream_sid: str | None) -> None:
        self.operation = operation
        self.provider = operation.provider
        self.metadata: Mapping[str, Any] = operation.metadata
        self.call_sid = call_sid
        self.stream_sid = stream_sid

    @property
    def is_open(self) -> bool:
        """Whether it still runs: the context goes with its end."""
        return "context" in vars(self)

    def set_provider(self, provider: str | None, /) -> None:
        if self.is_open and (name := text_of_any(provider or "")):
            self.provider = name
            call_safely(self.span.set_attribute, semconv.PROVIDER, name)

    def set_metadata(self, /, **metadata: Any) -> None:
        if self.is_open:
            call_safely(self._add_metadata, metadata)

    def _add_metadata(self, metadata: Mapping[str, Any]) -> None:
        from ..base.phone_numbers import REDACT

        session = active.session
        facts = (REDACT if session is None else session.phones).redact(snapshot_metadata(metadata))
        self.metadata = {**self.metadata, **facts}
        self.span.set_attributes(metadata_attributes(facts))

    def mark_first_output(self) -> None:
        if self.first_output_ns is None and self.is_open:
            self.first_output_ns = perf_counter_ns() - self.start_ns
            self.has_output = True

    def set_audio(self, *, duration_ms: float | None = None, size_bytes: int | None = None) -> None:
        if self.is_open:
            call_safely(self._set_audio, duration_ms, size_bytes)

    def _set_audio(self, duration_ms: Any, size_bytes: Any) -> None:
        if (said_ms := said_duration_ms(duration_ms)) is not None:
            self.said_audio_ms = said_ms
            self.has_output = True
        if (size := said_size(size_bytes)) is not None:
            self.size_bytes = size
            self.has_output = True

    def audio_facts(self, elapsed_ns: int, status: OperationStatus) -> dict[str, Any]:
        """What is known of the audio, in the words of span and metric, of an operation that took so long and ended so.

        Where not all of its time was spent on its audio, there is no real-time factor: where it failed or still runs,
        and where it was cancelled, unless it is a stream, whose audio is what had come by then.
        """
        if self.size_bytes is None and self.said_audio_ms is None:
            return {}
        audio_ms, rate = self.said_audio_ms, self.operation.audio_bytes_per_s
        if audio_ms is None and self.size_bytes is not None and rate is not None:
            audio_ms = duration_of(self.size_bytes, rate)
        factor = None
        if audio_ms and (status is _SUCCESS or (status is CANCELLED and self.busy_ns is not None)):
            factor = (elapsed_ns if self.busy_ns is None else self.busy_ns) / NS_PER_MS / audio_ms
        known = {
            semconv.BYTES: self.size_bytes,
            semconv.AUDIO_MS: audio_ms,
            semconv.REAL_TIME_FACTOR: factor if factor is not None and isfinite(factor) else None,
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def latency_ms(self) -> float:
        """How long the closed operation took, in milliseconds."""
        return self.elapsed_ns / NS_PER_MS
