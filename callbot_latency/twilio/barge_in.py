"""The caller speaks while the bot does: from the onset to the silence, and whether anything was said at all."""

from dataclasses import dataclass
from typing import Final

from ..model.units import NS_PER_MS
from ..timeline import BargeIn, Timeline
from . import reasons
from .playback import Cleared, Playback, Utterance
from .timeline_notifier import TimelineNotifier

__all__ = ["Interruptions"]

CLEARED_BEFORE_NS: Final = 1_000_000_000
"""A bot may send ``clear`` and only then say that speech began: so long before, the two belong together."""


@dataclass(slots=True, eq=False)
class _Interruption:
    at_ns: int
    utterance: Utterance | None
    cleared: Cleared | None
    is_false: bool | None = None


class Interruptions:
    """At most one is open at a time; it is told once all that can be known of it is known."""

    def __init__(self, playback: Playback, notifier: TimelineNotifier) -> None:
        self._playback = playback
        self._notifier = notifier
        self._open: _Interruption | None = None
        self._cleared: Cleared | None = None

    def speech_started(self, began_ns: int, at_ns: int) -> None:
        """The caller began to speak at `began_ns`, as is known at `at_ns`."""
        interruption = self._open
        if interruption is not None and interruption.is_false is None and interruption.cleared is None:
            # Speech begins anew, and nothing had come of it before.
            interruption.is_false = True
        if self._playback.is_speaking(at_ns):
            self._begin(_Interruption(began_ns, self._playback.utterance, None))
            return
        cleared, self._cleared = self._cleared, None
        if cleared is None or not cleared.was_speaking or at_ns - cleared.at_ns > CLEARED_BEFORE_NS:
            return
        if began_ns > cleared.at_ns:
            self._notifier.unmeasured(reasons.IMPOSSIBLE_ONSET)
        self._begin(_Interruption(began_ns, cleared.utterance, cleared))

    def _begin(self, interruption: _Interruption) -> None:
        self._close()
        self._open = interruption
        self._notifier.notify(Timeline.broken_into, interruption.at_ns)

    def cleared(self, cleared: Cleared) -> None:
        """``clear`` was sent."""
        interruption = self._open
        if interruption is not None and interruption.cleared is None:
            interruption.cleared = cleared
        elif interruption is None:
            self._cleared = cleared

    def said(self, *, something: bool) -> None:
        """The caller's speech ended, or was none."""
        if self._open is not None and self._open.is_false is None:
            self._open.is_false = not something

    def bot_spoke(self) -> None:
        """The bot says something new: where it had been silenced, nothing had been said."""
        interruption = self._open
        if interruption is not None and interruption.cleared is not None:
            self.said(something=False)
        self._cleared = None

    def review(self) -> None:
        """Tell the open one, if no more can be learnt of it."""
        interruption = self._open
        if interruption is None or interruption.is_false is None:
            return
        if interruption.cleared is not None:
            is_known = interruption.cleared.is_settled
        else:
            is_known = self._playback.utterance is not interruption.utterance
        if is_known:
            self._close()

    def hung_up(self) -> None:
        """The call is over: who hangs up in the middle has not coughed."""
        if self._open is not None and self._open.is_false is None:
            self._open.is_false = False
        self._close()
        self._cleared = None

    def _close(self) -> None:
        interruption, self._open = self._open, None
        if interruption is not None:
            self._notifier.notify(Timeline.barge_in, _told(interruption))


def _told(interruption: _Interruption) -> BargeIn:
    cleared, utterance = interruption.cleared, interruption.utterance
    heard = 1.0 if utterance is not None and utterance.is_played else None
    if cleared is not None and cleared.utterance is utterance:
        heard = cleared.heard_share
    return BargeIn(
        at_ns=interruption.at_ns,
        reaction_ms=_between_ms(interruption.at_ns, None if cleared is None else cleared.at_ns),
        silenced_ms=_between_ms(interruption.at_ns, None if cleared is None else cleared.silenced_ns),
        heard_share=heard,
        is_false=bool(interruption.is_false),
    )


def _between_ms(from_ns: int, until_ns: int | None) -> float | None:
    return None if until_ns is None or until_ns < from_ns else (until_ns - from_ns) / NS_PER_MS
