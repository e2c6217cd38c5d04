"""A measurement, or a turn, as one point of InfluxDB, in line protocol."""

import itertools
import random
import re
from datetime import datetime, timedelta
from typing import Any, Final

from .. import semconv
from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric
from ..model.units import EPOCH
from ..pipeline.instruments import NameLabels

__all__ = ["ATTEMPT_MEASUREMENT", "MEASUREMENT", "TURN_MEASUREMENT", "LineWriter"]

MEASUREMENT: Final = "callbot.operation"
ATTEMPT_MEASUREMENT: Final = "callbot.attempt"
TURN_MEASUREMENT: Final = "callbot.turn"
MAX_FIELD_CHARS: Final = 256
"""Longer tags and text fields are cut."""

_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_NS: Final = 2**63 - 2
_MAX_INT: Final = 2**63 - 1
_TURN_MS: Final = tuple(name for name in semconv.TURN_ATTRIBUTES if name.endswith("_ms"))
# Control characters, line separators and halves of surrogate pairs: a line must stay one, and be UTF-8.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_Field = float | int | str | bool


class LineWriter:
    """Writes measurements and turns as lines; remembers a bounded number of names and providers.

    Points of one series with the same time would overwrite each other. Measurements have timestamps in microseconds,
    so the nanoseconds are a counter: any 1,000 consecutive points have different times. The counter starts at a random
    number, so that points of two processes rarely have the same time.
    """

    def __init__(self) -> None:
        try:
            import influxdb_client
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                "InfluxDBReporter needs influxdb-client: pip install 'callbot-latency[influxdb]'"
            ) from missing
        library: Any = influxdb_client
        self._point = library.Point
        self._names = NameLabels()
        self._providers = NameLabels()
        self._counter = itertools.count(random.randrange(1000))  # noqa: S311 - not a secret

    def line(self, metric: LatencyMetric | TurnMetric) -> bytes:
        """Its line, without an end of line; each call makes another point.

        Raises:
            ValueError: its time is none that InfluxDB can hold (1677 to 2262).

        """
        fields: dict[str, _Field]
        if isinstance(metric, TurnMetric):
            measurement, tags, fields = TURN_MEASUREMENT, _turn_tags(metric), _turn_fields(metric)
        else:
            measurement = MEASUREMENT if metric.attempt is None else ATTEMPT_MEASUREMENT
            tags, fields = self._tags(metric), _fields(metric)
        point = self._point(measurement).time(self._time_ns(metric.timestamp))
        for name, tag in tags.items():
            point.tag(name, tag)
        for name, field in fields.items():
            point.field(name, field)
        return bytes(point.to_line_protocol().encode())

    def _tags(self, metric: LatencyMetric) -> dict[str, str]:
        provider = _tag(metric.provider or "")
        tags = {
            semconv.OPERATION_TYPE: metric.operation_type.value,
            semconv.OPERATION_NAME: self._names.of(_tag(metric.operation_name)),
            semconv.PROVIDER: self._providers.of(provider) if provider else "",
            semconv.STATUS: metric.status.value,
            semconv.SEVERITY: metric.severity.value if metric.severity else "",
        }
        return {name: tag for name, tag in tags.items() if tag}

    def _time_ns(self, timestamp: datetime) -> int:
        time_ns = (timestamp - EPOCH) // _MICROSECOND * 1000 + next(self._counter) % 1000
        if abs(time_ns) > _MAX_NS:
            raise ValueError(f"timestamp: InfluxDB holds the years 1677 to 2262, not {timestamp.year}")
        return time_ns


def _fields(metric: LatencyMetric) -> dict[str, _Field]:
    """Of one type each, for ever: InfluxDB refuses a field that changes its type."""
    fields: dict[str, float | int | str | None] = {
        semconv.LATENCY_MS: float(metric.latency_ms),
        semconv.TIME_TO_FIRST_OUTPUT_MS: _float(metric.time_to_first_output_ms),
        semconv.LARGEST_GAP_MS: _float(metric.largest_gap_ms),
        semconv.ITEMS: _int(metric.items),
        semconv.BUSY_MS: _float(metric.busy_ms),
        semconv.BYTES: _int(metric.bytes),
        semconv.AUDIO_MS: _float(metric.audio_ms),
        semconv.REAL_TIME_FACTOR: _float(metric.real_time_factor),
        semconv.TURN: _int(metric.turn),
        semconv.ATTEMPTS: _int(metric.attempts),
        semconv.LOST_MS: _float(metric.lost_ms),
        semconv.PROVIDER_REQUESTED: _text(metric.provider_requested),
        semconv.SWITCH_REASON: _text(metric.switch_reason),
        semconv.HEDGE_LOSERS: _text(metric.hedge_losers),
        semconv.ATTEMPT: _int(metric.attempt),
        semconv.HEDGE: _text(metric.hedge),
        semconv.CALL_SID: _text(metric.call_sid),
        semconv.STREAM_SID: _text(metric.stream_sid),
        semconv.TRACE_ID: _text(metric.trace_id),
        semconv.SPAN_ID: _text(metric.span_id),
    }
    return {name: field for name, field in fields.items() if field is not None}


def _turn_tags(turn: TurnMetric) -> dict[str, str]:
    tags = {
        semconv.ANCHOR: turn.anchor.value if turn.anchor else "",
        semconv.OUTCOME: _tag(turn.outcome),
        semconv.UNMEASURED: _tag(turn.unmeasured or ""),
    }
    return {name: tag for name, tag in tags.items() if tag}


def _turn_fields(turn: TurnMetric) -> dict[str, _Field]:
    """Of one type each, for ever, as those of an operation."""
    fields: dict[str, _Field | None] = {
        **{name: _float(getattr(turn, name)) for name in _TURN_MS},
        **{_tag(semconv.PART_PREFIX + part): _float(ms) for part, ms in turn.parts_ms.items()},
        **{_tag(semconv.OVERLAPPED_PREFIX + part): _float(ms) for part, ms in turn.overlapped_ms.items()},
        semconv.TURN: _int(turn.turn),
        semconv.OPERATIONS: _int(turn.operations),
        semconv.CALL_SID: _text(turn.call_sid),
        semconv.STREAM_SID: _text(turn.stream_sid),
        semconv.TRACE_ID: _text(turn.trace_id),
        semconv.SPAN_ID: _text(turn.span_id),
    }
    if turn.barge_in is not None:
        for name, fact in turn.barge_in.facts().items():
            fields[semconv.BARGE_IN_PREFIX + name] = fact if isinstance(fact, bool) else _float(fact)
    return {name: field for name, field in fields.items() if field is not None}


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _int(value: Any) -> int | None:
    return value if type(value) is int and abs(value) <= _MAX_INT else None


def _text(value: Any) -> str | None:
    return None if value is None else _UNFIT.sub("\ufffd", str(value)[:MAX_FIELD_CHARS])


def _tag(value: str) -> str:
    """A tag cannot end in a backslash, which would escape what stands behind it."""
    return (_text(value) or "").rstrip("\\")
