"""The instruments and what is recorded on them: one table and one rule for every exporter."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .. import semconv
from ..base.drop_counters import dropped, unmeasured
from ..measuring.active_session import active
from ..model.metric import LatencyMetric
from ..model.operation import OperationType
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric

__all__ = [
    "BREACHES",
    "HISTOGRAMS",
    "OBSERVED",
    "Instrument",
    "NameLabels",
    "Sample",
    "bucket_bounds_s",
    "running_by_type",
    "samples_of",
    "samples_of_turn",
]


@dataclass(frozen=True, eq=False, slots=True)
class Instrument:
    """One instrument.

    Attributes:
        name: by OpenTelemetry's rules, with dots.
        labels: the names of its labels, in the order of a sample's values.
        description: what it counts.
        unit: as OpenTelemetry writes it; seconds for histograms.
        kind: of what Prometheus shows.

    """

    name: str
    labels: tuple[str, ...]
    description: str
    unit: str = "s"
    kind: Literal["histogram", "counter", "gauge"] = "histogram"


_NAMED: Final = (semconv.OPERATION_TYPE, semconv.OPERATION_NAME, semconv.PROVIDER)
_DURATION: Final = Instrument(semconv.OPERATION_DURATION, (*_NAMED, semconv.STATUS), "How long an operation took.")
_ATTEMPT: Final = Instrument(
    semconv.ATTEMPT_DURATION, (*_NAMED, semconv.STATUS), "How long one provider's part of an operation took."
)
_FIRST_OUTPUT: Final = Instrument(
    semconv.OPERATION_TIME_TO_FIRST_OUTPUT, _NAMED, "From the start of an operation to its first output."
)
_RESPONSE: Final = Instrument(
    semconv.TURN_RESPONSE,
    (semconv.ANCHOR, semconv.UNTIL),
    "From the end of the caller's speech to the first audio that was heard, or sent.",
)
_CONTRIBUTION: Final = Instrument(
    semconv.TURN_CONTRIBUTION, (semconv.PART,), "Parts that sum to the response of a turn."
)
HISTOGRAMS: Final = (_DURATION, _ATTEMPT, _FIRST_OUTPUT, _RESPONSE, _CONTRIBUTION)
BREACHES: Final = Instrument(
    semconv.THRESHOLD_BREACHES,
    (semconv.OPERATION_TYPE, semconv.PROVIDER, semconv.SEVERITY),
    "Operations that reached a threshold.",
    "{breach}",
    "counter",
)

Sample = tuple[Instrument, float, tuple[str, ...]]
"""What is recorded: where, the value, and the labels' values; an empty one is unknown."""


def running_by_type() -> dict[str, int]:
    """What runs now, by type; a type of which nothing runs is 0, since an absent one would keep its last value."""
    session = active.session
    open_now = list(session.open_measurements.values()) if session else []
    running = Counter(m.operation.type_value for m in open_now if not m.operation.is_attempt)
    return {kind.value: running[kind.value] for kind in OperationType.known()}


OBSERVED: Final[Mapping[Instrument, Callable[[], Mapping[str, int]]]] = {
    Instrument(
        semconv.OPERATIONS_ACTIVE, (semconv.OPERATION_TYPE,), "Operations that are running.", "{operation}", "gauge"
    ): running_by_type,
    Instrument(
        semconv.TURNS_UNMEASURED, (semconv.REASON,), "What could not be measured, by reason.", "{turn}", "counter"
    ): unmeasured.by_reason,
    Instrument(
        semconv.TELEMETRY_DROPPED, (semconv.REASON,), "What was dropped, by reason.", "{item}", "counter"
    ): dropped.by_reason,
}
"""Instruments that are read when they are exported, by the value of their one label."""


def bucket_bounds_s(thresholds: Thresholds) -> list[float]:
    """Bucket edges in seconds: the default ones and every configured threshold, so that breaches are exact."""
    return sorted({*semconv.DURATION_EDGES_S, *thresholds.bucket_bounds_s()})


def samples_of(metric: LatencyMetric, name: str, provider: str) -> Iterator[Sample]:
    """What a measurement records, with the labels `name` and `provider`; values in seconds."""
    kind, status = metric.operation_type.value, metric.status.value
    if metric.attempt is not None:
        yield _ATTEMPT, metric.duration_s, (kind, name, provider, status)
        return
    if metric.time_to_first_output_ms is not None:
        yield _FIRST_OUTPUT, metric.time_to_first_output_ms / 1000.0, (kind, name, provider)
    yield _DURATION, metric.duration_s, (kind, name, provider, status)
    if metric.severity is not None:
        yield BREACHES, 1, (kind, provider, metric.severity.value)


def samples_of_turn(turn: TurnMetric) -> Iterator[Sample]:
    """What a turn records, in seconds; nothing where it could not be measured."""
    if turn.anchor is None:
        return
    for until, ms in ((semconv.UNTIL_HEARD, turn.response_ms), (semconv.UNTIL_SENT, turn.response_sent_ms)):
        if ms is not None:
            yield _RESPONSE, ms / 1000.0, (turn.anchor.value, until)
    for part, ms in turn.parts_ms.items():
        yield _CONTRIBUTION, ms / 1000.0, (part,)


class NameLabels:
    """The label of a name, an operation's or a provider's: itself for the first `MAX_NAMES`, ``other`` for later ones.

    Args:
        counted_as: the reason that each ``other`` is counted as; None for all but one consumer of the measurements, or
            it would be counted several times.

    """

    def __init__(self, *, counted_as: str | None = None) -> None:
        self._names: set[str] = set()
        self._counted_as = counted_as

    def of(self, name: str) -> str:
        """The label."""
        if name in self._names:
            return name
        if len(self._names) < semconv.MAX_NAMES:
            self._names.add(name)
            return name
        if self._counted_as is not None:
            dropped.add(self._counted_as)
        return semconv.OTHER
