"""The one way from a media stream to the call's timeline."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec

from ..base.internal_errors import call_safely
from ..timeline import Timeline
from ..tracing.context import bound

__all__ = ["TimelineNotifier"]

P = ParamSpec("P")


class TimelineNotifier:
    """Reports events to a timeline, if there is one; what that raises goes no further.

    Unless one is given, that is the timeline of the call which is bound where something is told, if that is not known
    to be another call than `call_sid`; and where none is bound, the one that was before.
    """

    __slots__ = ("_bound", "_call_sid", "_given")

    def __init__(self, timeline: Timeline | None) -> None:
        self._given = timeline
        self._bound: Timeline | None = None
        self._call_sid: str | None = None

    @property
    def call_sid(self) -> str | None:
        """Of the stream, as soon as that is known."""
        return self._call_sid

    @call_sid.setter
    def call_sid(self, call_sid: str | None) -> None:
        if call_sid != self._call_sid:
            self._call_sid, self._bound = call_sid, None

    @property
    def timeline(self) -> Timeline | None:
        if self._given is not None:
            return self._given
        binding = bound()
        if binding is not None and binding.timeline is not None and self._call_sid in (None, binding.call_sid):
            self._bound = binding.timeline
        return self._bound

    @timeline.setter
    def timeline(self, timeline: Timeline | None) -> None:
        self._given, self._bound = timeline, None

    def notify(self, event: Callable[Concatenate[Timeline, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call that method of the timeline."""
        timeline = self.timeline
        if timeline is not None:
            call_safely(getattr(timeline, event.__name__), *args, **kwargs)

    def unmeasured(self, reason: str) -> None:
        """Report that an anchor or mark is missing, stale or impossible."""
        self.notify(Timeline.unmeasured, reason)
