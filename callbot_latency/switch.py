"""Whether measuring is on: the one global that the caller's path reads."""

import itertools
import logging
from typing import TYPE_CHECKING, Final, cast

from .semconv import LOGGER_SWITCH

if TYPE_CHECKING:
    from .session import Session

__all__ = ["NotStarted", "Switch", "switch"]

_log = logging.getLogger(LOGGER_SWITCH)


class NotStarted:
    """Stands where a session will, with the methods that are called first: says once how to start, then goes away."""

    follows_foreign = False

    def __init__(self) -> None:
        self._said = itertools.count()

    def open(self, *_: object) -> None:
        """No measurement."""
        self._say()

    start = open

    def span_opener(self) -> None:
        """No spans."""
        self._say()

    def record(self, _: object) -> None:
        """Nothing to hand a metric to."""
        self._say()

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

    def _say(self) -> None:
        # A thread that looked before init() may get here after it: it neither switches off nor speaks twice.
        if switch.session is cast("Session", self):
            switch.session = None
        if next(self._said) == 0:
            _log.warning(
                "callbot_latency measures nothing yet: call callbot_latency.init() once when the application starts"
            )


class Switch:
    """Holds the session that measures, or None while measuring is off."""

    __slots__ = ("session",)

    def __init__(self) -> None:
        self.session: Session | None = cast("Session", NotStarted())


switch: Final = Switch()
