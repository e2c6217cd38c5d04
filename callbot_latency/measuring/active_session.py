"""Whether measuring is on: the one global that the caller's path reads."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from weakref import WeakSet

from ..semconv import LOGGER_SWITCH

if TYPE_CHECKING:
    from ..base.bounded import BoundedMap
    from ..base.phone_numbers import PhoneNumbers
    from ..model.metric import LatencyMetric
    from ..tracing.context import BoundTimeline
    from ..tracing.spans import SpanFactory

__all__ = ["ActiveSession", "ActiveSessionHolder", "NotStartedSession", "active"]

_log = logging.getLogger(LOGGER_SWITCH)


class ActiveSession(Protocol):
    """The session that measures, as its users see it; `session.Session` is the one there is."""

    spans: "SpanFactory"
    """Starts the spans."""

    @property
    def open_measurements(self) -> dict[int, Any]:
        """The measurements that are running, by span id."""

    submit: Callable[[Any], None]
    """Enqueues a finished measurement, turn or span."""
    flush: Callable[[float], bool]
    """Waits so many seconds until everything finished is with its reporters."""
    turn_numbers: "BoundedMap[str, Iterator[int]]"
    """The turn numbers of each of the newest calls: one sequence for a call, however often it is opened."""
    timelines: "WeakSet[BoundTimeline]"
    """The timelines of the bound calls."""
    opened_calls: "deque[tuple[str, int | None, Mapping[str, Any]]] | None"
    """Call_sid, turn number and metadata of opened calls and turns, where alert rules ask for them."""
    phones: "PhoneNumbers"
    """Redacts phone numbers in metadata."""
    propagates_to: Callable[[str], bool]
    """Whether a call's headers may go to a URL."""
    follows_foreign: bool
    """Whether the spans of frameworks are recognised."""

    def span_factory(self) -> "SpanFactory | None":
        """Return what starts spans that are no operation."""

    def record(self, metric: "LatencyMetric", /) -> None:
        """Take in a metric that was measured elsewhere."""

    def open(
        self,
        operation: Any,
        owner: Any = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] = ...,
    ) -> Any:
        """Start a measurement and attach its span."""

    def start(
        self,
        operation: Any,
        owner: Any = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] = ...,
    ) -> Any:
        """Start a measurement without attaching its span."""

    def close(self, measurement: Any, exc: BaseException | None) -> None:
        """Stop the clock, detach the span and end it."""

    def end(self, measurement: Any, exc: BaseException | None) -> None:
        """End the span and submit the measurement."""


class NotStartedSession:
    """Stands where a session will, with the methods that are called first: says once how to start, then goes away."""

    follows_foreign = False

    def __init__(self) -> None:
        self._said = itertools.count()

    @property
    def open_measurements(self) -> dict[int, object]:
        """Nothing is running."""
        return {}

    def propagates_to(self, _: str) -> bool:
        """Nobody hears of a call that nobody bound."""
        return False

    def submit(self, _: object) -> None:
        """Somebody else's span: no word about starting, since nobody asked us."""

    def flush(self, _: float) -> bool:
        """Nothing waits."""
        return True

    def _explain(self, *_: object) -> None:
        """Do nothing, and say once how to start."""
        # A thread that looked before init() may get here after it: it neither switches off nor speaks twice.
        if active.session is cast("ActiveSession", self):
            active.session = None
        if next(self._said) == 0:
            _log.warning(
                "callbot_latency measures nothing yet: call callbot_latency.init() once when the application starts"
            )

    open = _explain
    start = _explain
    record = _explain
    span_factory = _explain


class ActiveSessionHolder:
    """Holds the session that measures, or None while measuring is off."""

    __slots__ = ("session",)

    def __init__(self) -> None:
        self.session: ActiveSession | None = cast("ActiveSession", NotStartedSession())


active: Final = ActiveSessionHolder()
