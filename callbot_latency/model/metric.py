"""The one event: a finished operation."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any, Final, Self

from .. import semconv
from ..base.text import plain, text_of_any, well_formed
from .operation import OperationStatus, OperationType, Severity

__all__ = ["LatencyMetric", "known_metric"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LatencyMetric:
    """One finished operation. Keywords are the names of the JSON format; `latency_ms` is in milliseconds.

    `timestamp` is when the operation ended (aware, UTC; a naive one is taken as UTC). What is unknown is None.
    `operation_type` and `status` accept their JSON words too.

    Raises:
        TypeError, ValueError: a field of the wrong kind, an unknown word, or a latency that is NaN, infinite
            or negative, an id that is no text; the message names the field.

    """

    operation_type: OperationType
    operation_name: str
    latency_ms: float
    status: OperationStatus
    timestamp: datetime = field(default_factory=_now)
    call_sid: str | None = None
    stream_sid: str | None = None
    provider: str | None = None
    error_message: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    time_to_first_output_ms: float | None = None
    largest_gap_ms: float | None = None
    items: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    turn: int | None = None
    told_in_flight: bool | None = None
    provider_requested: str | None = None
    attempts: int | None = None
    switch_reason: str | None = None
    lost_ms: float | None = None
    hedge_losers: str | None = None
    attempt: int | None = None
    hedge: str | None = None
    busy_ms: float | None = None
    bytes: int | None = None
    audio_ms: float | None = None
    real_time_factor: float | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "operation_type", OperationType.of(self.operation_type))
        put(self, "status", _word(OperationStatus, "status", self.status))
        if self.severity is not None:
            put(self, "severity", _word(Severity, "severity", self.severity))
        put(self, "latency_ms", _number("latency_ms", self.latency_ms))
        put(self, "timestamp", _utc(self.timestamp))
        if not isinstance(self.operation_name, str) or not self.operation_name:
            raise ValueError(f"operation_name: expected a non-empty string, got {self.operation_name!r}")
        for (name, checked), value in zip(_CHECKS.items(), _checked_values(self), strict=True):
            if value is not None and (right := checked(name, value)) is not value:
                put(self, name, right)
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata: expected a mapping, got {type(self.metadata).__name__}")

    @property
    def duration_s(self) -> float:
        """The latency in seconds, as OpenTelemetry speaks."""
        return self.latency_ms / 1000.0

    def to_dict(self) -> dict[str, Any]:
        """The user's ten keys in their order, then the added ones that are known; plain JSON types only."""
        written: dict[str, Any] = {
            # _value_ is what .value reads, without the cost of Enum's descriptor.
            semconv.OPERATION_TYPE: self.operation_type._value_,
            semconv.OPERATION_NAME: self.operation_name,
            semconv.LATENCY_MS: self.latency_ms,
            semconv.STATUS: self.status._value_,
            semconv.TIMESTAMP: self.timestamp.isoformat().replace("+00:00", "Z"),
            semconv.CALL_SID: self.call_sid,
            semconv.STREAM_SID: self.stream_sid,
            semconv.PROVIDER: self.provider,
            semconv.ERROR_MESSAGE: self.error_message,
            semconv.METADATA: {text_of_any(key): plain(value) for key, value in self.metadata.items()},
        }
        for name, value in zip(_ADDED, _added_of(self), strict=True):
            if value is not None:
                written[name] = value.value if isinstance(value, Enum) else value
        return written

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Self:
        """A metric from its JSON object; keys that this version does not know are passed over.

        Raises:
            KeyError, TypeError, ValueError: a required key is missing or a value is not what the format says.

        """
        if not isinstance(written, Mapping):
            raise TypeError(f"metric: expected a JSON object, got {type(written).__name__}")
        values = {name: written[name] for name in _NAMES if written.get(name) is not None}
        missing = [name for name in _REQUIRED if name not in values]
        if missing:
            raise KeyError(f"{missing[0]}: missing; a metric needs {', '.join(_REQUIRED)}")
        return cls(**values)


_NAMES: Final = tuple(f.name for f in fields(LatencyMetric))
_REQUIRED: Final = _NAMES[:4]
_ADDED: Final = _NAMES[10:]
_added_of: Final = attrgetter(*_ADDED)


def _word(kind: type[Enum], name: str, value: Any) -> Enum:
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{name}: expected one of {', '.join(m.value for m in kind)}, got {value!r}") from None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        unit = " of milliseconds" if name.endswith("_ms") else ""
        raise TypeError(f"{name}: expected a number{unit}, got {type(value).__name__}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
    return float(value)


def _utc(value: Any) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(read, datetime):
            return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"timestamp: expected a datetime or an ISO 8601 string, got {value!r}") from None
    raise TypeError(f"timestamp: expected a datetime or an ISO 8601 string, got {type(value).__name__}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {type(value).__name__}; write str(...)")
    return well_formed(value)


_HEX: Final = re.compile(r"[0-9a-fA-F]+")


def _hex(name: str, value: Any) -> str:
    digits = 32 if name == semconv.TRACE_ID else 16
    read = value.lower() if isinstance(value, str) and _HEX.fullmatch(value) else ""
    if len(read) != digits:
        raise ValueError(f"{name}: expected {digits} hex digits, got {value!r}")
    return read


def _short(value: Any) -> str:
    # Python itself refuses to write an integer of more than 4,300 digits.
    return hex(value)[:40] if isinstance(value, int) else repr(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name}: expected a whole number from 0 to 2**63 - 1, got {_short(value)}")
    return value


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    semconv.OPERATION_NAME: _text,
    semconv.CALL_SID: _text,
    semconv.STREAM_SID: _text,
    semconv.PROVIDER: _text,
    semconv.ERROR_MESSAGE: _text,
    semconv.TIME_TO_FIRST_OUTPUT_MS: _number,
    semconv.LARGEST_GAP_MS: _number,
    semconv.ITEMS: _count,
    semconv.TURN: _count,
    semconv.TRACE_ID: _hex,
    semconv.SPAN_ID: _hex,
    semconv.PROVIDER_REQUESTED: _text,
    semconv.ATTEMPTS: _count,
    semconv.SWITCH_REASON: _text,
    semconv.LOST_MS: _number,
    semconv.HEDGE_LOSERS: _text,
    semconv.ATTEMPT: _count,
    semconv.HEDGE: _text,
    semconv.BUSY_MS: _number,
    semconv.BYTES: _count,
    semconv.AUDIO_MS: _number,
    semconv.REAL_TIME_FACTOR: _number,
}


_checked_values: Final = attrgetter(*_CHECKS)
_PUT: Final = tuple(vars(LatencyMetric)[name].__set__ for name in _NAMES)
_UNKNOWN: Final = dict.fromkeys(_NAMES)


def known_metric(values: Mapping[str, Any], facts: Mapping[str, Any]) -> LatencyMetric:
    """A metric of `values` that were checked where they came from, as those of an operation of ours were.

    To check them again costs twice as much as all the rest. `facts`, by their fields' names too, are checked.

    Raises:
        TypeError, ValueError: one of `facts` is not what its field says.

    """
    checked = {name: _CHECKS[name](name, value) for name, value in facts.items() if value is not None}
    metric = object.__new__(LatencyMetric)
    for put, value in zip(_PUT, {**_UNKNOWN, **values, **checked}.values(), strict=True):
        put(metric, value)
    return metric
