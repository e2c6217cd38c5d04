"""The turns of a call: from the end of the caller's speech to the first audio that the caller can hear."""

from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context

from ..measuring.active_session import ActiveSession
from ..measuring.measurement import checked_metadata
from ..measuring.reentrant import ReentrantContext
from ..tracing.context import BINDING, BoundTimeline, attach, bound, detach
from ..tracing.span_status import snapshot_metadata
from .call_timeline import OpenTurn
from .turn_state import Turn

__all__ = ["Turn", "turn"]


@dataclass(frozen=True, slots=True)
class _Opened:
    """One entered `turn`."""

    timeline: BoundTimeline
    turn: OpenTurn
    token: Token[Context]
    context: Context


class turn(ReentrantContext[Turn, _Opened]):  # noqa: N801 - used as a verb, like contextlib.suppress
    """Open a turn beneath the bound call, with ``with`` or ``async with``; yields a `Turn`.

    Operations inside belong to it. Outside of a call nothing is measured by it.

    Args:
        metadata: attributes of the turn, such as an intent, which alert rules may ask for; never what the caller said.

    Raises:
        TypeError: metadata is no mapping.

    """

    def __init__(self, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = snapshot_metadata(checked_metadata(metadata))
        super().__init__()

    def _open(self, session: ActiveSession) -> _Opened | None:
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
        return _Opened(binding.timeline, opened, attach(context), context)

    def _yielded(self, state: _Opened | None) -> Turn:
        return Turn(None, 0, self._metadata) if state is None else state.turn.turn

    def _close(self, state: _Opened, exc: BaseException | None) -> None:
        detach(state.token, state.context, exc)
        state.timeline.close_turn(state.turn, exc)


def turn_elsewhere(number: int) -> Turn:
    """A turn that another process measures; here it gives its number to the operations inside of it."""
    return Turn(None, number, {})
