"""The turns of a call: from the end of the caller's speech to the first audio that the caller can hear."""

from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context

from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession, active
from ..measuring.measurement import checked_metadata
from ..tracing.context import BINDING, BoundTimeline, attach, bound, detach, detach_abandoned
from ..tracing.span_status import snapshot_metadata
from .call_timeline import OpenTurn
from .turn_state import Turn

__all__ = ["Turn", "turn"]


@dataclass(frozen=True, slots=True, eq=False)
class _Entered:
    """One entered `turn`; without a timeline where nobody measures it."""

    timeline: BoundTimeline | None
    opened: OpenTurn | None
    token: Token[Context] | None
    context: Context


class turn:  # noqa: N801 - used as a verb, like contextlib.suppress
    """Open a turn beneath the bound call, with ``with`` or ``async with``; yields a `Turn`.

    Operations inside belong to it. Outside of a call nothing is measured by it.

    Args:
        metadata: attributes of the turn, such as an intent, which alert rules may ask for; never what the caller said.

    Raises:
        TypeError: metadata is no mapping.

    """

    def __init__(self, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = snapshot_metadata(checked_metadata(metadata))
        # Of each entry of this object that is not left yet: it may be entered again, also by another task.
        self._entered: list[_Entered] = []

    def __enter__(self) -> Turn:
        session = active.session
        entered = None if session is None else call_safely(self._open, session)
        if entered is None:
            entered = _Entered(None, None, None, otel_context.get_current())
        self._entered.append(entered)
        return Turn(None, 0, self._metadata) if entered.opened is None else entered.opened.turn

    def _open(self, session: ActiveSession) -> "_Entered | None":
        binding = bound()
        if binding is None or binding.timeline is None:
            return None
        outer = otel_context.get_current()
        metadata = session.phones.redact(self._metadata)
        opened = binding.timeline.open_turn(session, binding, metadata, outer)
        if metadata and session.opened_calls is not None:
            session.opened_calls.append((binding.call_sid, opened.turn.number, metadata))
        inner = otel_context.set_value(BINDING, binding.with_turn(opened.turn), outer)
        context = set_span_in_context(opened.span, inner)
        return _Entered(binding.timeline, opened, attach(context), context)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        here = otel_context.get_current()
        entered = next((each for each in reversed(self._entered) if each.context is here), self._entered[-1])
        self._entered.remove(entered)
        call_safely(_leave, entered, exc)

    async def __aenter__(self) -> Turn:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _leave(entered: _Entered, exc: BaseException | None) -> None:
    if entered.timeline is None or entered.opened is None or entered.token is None:
        return
    if isinstance(exc, GeneratorExit):
        detach_abandoned(entered.token, entered.context)
    else:
        detach(entered.token, entered.context)
    entered.timeline.close_turn(entered.opened, exc)


def turn_elsewhere(number: int) -> Turn:
    """A turn that another process measures; here it gives its number to the operations inside of it."""
    return Turn(None, number, {})
