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
_FLOATS: Final = (
    semconv.LATENCY_MS,
    semconv.TIME_TO_FIRST_OUTPUT_MS,
    semconv.LARGEST_GAP_MS,
    semconv.BUSY_MS,
    semconv.AUDIO_MS,
    semconv.REAL_TIME_FACTOR,
    semconv.LOST_MS,
    *(name for name in semconv.TURN_ATTRIBUTES if name.endswith("_ms")),
)
_INTS: Final = (
    semconv.ITEMS,
    semconv.BYTES,
    semconv.TURN,
    semconv.ATTEMPTS,
    semconv.ATTEMPT,
    semconv.OPERATIONS,
)
_TEXTS: Final = (
    semconv.PROVIDER_REQUESTED,
    semconv.SWITCH_REASON,
    semconv.HEDGE_LOSERS,
    semconv.HEDGE,
    semconv.CALL_SID,
    semconv.STREAM_SID,
    semconv.TRACE_ID,
    semconv.SPAN_ID,
)
# Control characters, line separators and halves of surrogate pairs: a line must stay one, and be UTF-8.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_Field = float | int | str | bool | None


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
        self._counter = itertools.count(random.randrange(1000))  # noqa: S311 # nosec B311 # no secret

    def line(self, metric: LatencyMetric | TurnMetric) -> bytes:
        """Its line, without an end of line; each call makes another point.

        Raises:
            ValueError: its time is none that InfluxDB can hold (1677 to 2262).

        """
        fields = _fields(metric)
        if isinstance(metric, TurnMetric):
            measurement, tags = TURN_MEASUREMENT, _turn_tags(metric)
            fields |= _turn_fields(metric)
        else:
            measurement = MEASUREMENT if metric.attempt is None else ATTEMPT_MEASUREMENT
            tags = self._tags(metric)
        point = self._point(measurement).time(self._time_ns(metric.timestamp))
        # Point leaves out empty tags and fields that are None.
        for name, tag in tags.items():
            point.tag(name, tag)
        for name, field in fields.items():
            point.field(name, field)
        return bytes(point.to_line_protocol().encode())

    def _tags(self, metric: LatencyMetric) -> dict[str, str]:
        provider = _tag(metric.provider or "")
        return {
            semconv.OPERATION_TYPE: metric.operation_type.value,
            semconv.OPERATION_NAME: self._names.of(_tag(metric.operation_name)),
            semconv.PROVIDER: self._providers.of(provider) if provider else "",
            semconv.STATUS: metric.status.value,
            semconv.SEVERITY: metric.severity.value if metric.severity else "",
        }

    def _time_ns(self, timestamp: datetime) -> int:
        time_ns = (timestamp - EPOCH) // _MICROSECOND * 1000 + next(self._counter) % 1000
        if abs(time_ns) > _MAX_NS:
            raise ValueError(f"timestamp: InfluxDB holds the years 1677 to 2262, not {timestamp.year}")
        return time_ns


def _fields(metric: LatencyMetric | TurnMetric) -> dict[str, _Field]:
    """Of one type each, for ever: InfluxDB refuses a field that changes its type."""
    fields: dict[str, _Field] = {name: _float(getattr(metric, name, None)) for name in _FLOATS}
    fields |= {name: _int(getattr(metric, name, None)) for name in _INTS}
    return fields | {name: _text(getattr(metric, name, None)) for name in _TEXTS}


def _turn_tags(turn: TurnMetric) -> dict[str, str]:
    return {
        semconv.ANCHOR: turn.anchor.value if turn.anchor else "",
        semconv.OUTCOME: _tag(turn.outcome),
        semconv.UNMEASURED: _tag(turn.unmeasured or ""),
    }


def _turn_fields(turn: TurnMetric) -> dict[str, _Field]:
    fields: dict[str, _Field] = {
        **{_tag(semconv.PART_PREFIX + part): _float(ms) for part, ms in turn.parts_ms.items()},
        **{_tag(semconv.OVERLAPPED_PREFIX + part): _float(ms) for part, ms in turn.overlapped_ms.items()},
    }
    if turn.barge_in is not None:
        for name, fact in turn.barge_in.facts().items():
            fields[semconv.BARGE_IN_PREFIX + name] = fact if isinstance(fact, bool) else _float(fact)
    return fields


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _int(value: Any) -> int | None:
    return value if type(value) is int and abs(value) <= _MAX_INT else None


def _text(value: Any) -> str | None:
    return None if value is None else _UNFIT.sub("\ufffd", str(value)[:MAX_FIELD_CHARS])


def _tag(value: str) -> str:
    """A tag cannot end in a backslash, which would escape what stands behind it."""
    return (_text(value) or "").rstrip("\\")
