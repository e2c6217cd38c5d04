"""A finished turn: what the caller waited, and for what."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from .. import semconv
from ..base.text import plain
from ..timeline import Anchor, BargeIn

__all__ = ["TurnMetric"]


@dataclass(frozen=True, slots=True)
class TurnMetric:
    """One turn of a call. Durations are in milliseconds; what is unknown is None, and `unmeasured` says why.

    `response_ms` is from the end of the caller's speech to the first audio that the caller could hear,
    `response_sent_ms` to the first audio that was sent. `parts_ms` sum to the first of the two that is known.
    """

    call_sid: str
    turn: int
    timestamp: datetime
    stream_sid: str | None = None
    outcome: str = "answered"
    response_ms: float | None = None
    response_sent_ms: float | None = None
    answer_sent_ms: float | None = None
    anchor: Anchor | None = None
    anchor_uncertainty_ms: float | None = None
    playback_uncertainty_ms: float | None = None
    parts_ms: Mapping[str, float] = field(default_factory=dict)
    overlapped_ms: Mapping[str, float] = field(default_factory=dict)
    unmeasured: str | None = None
    barge_in: BargeIn | None = None
    operations: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str | None = None
    span_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the first key says that this is no operation, what is unknown is left out."""
        written: dict[str, Any] = {semconv.KIND: semconv.KIND_TURN}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and value != {}:
                written[name] = _written(value)
        return written


_NAMES: Final = tuple(f.name for f in fields(TurnMetric))


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, BargeIn):
        return value.facts()
    return plain(value)
