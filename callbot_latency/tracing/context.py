"""What an OpenTelemetry context carries: the span, the operation and the call; how it is attached and detached."""

from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN

from ..timeline import Timeline

__all__ = ["BINDING", "OPERATION", "SPAN", "Binding", "BoundTimeline", "BoundTurn", "attach", "bound", "detach"]

OPERATION: Final = otel_context.create_key("callbot_latency.operation")
"""Where a context holds the Measurement that the code in it works for."""


BINDING: Final = otel_context.create_key("callbot_latency.binding")
"""Where a context holds the `Binding` of its call."""


class BoundTurn(Protocol):
    """The open turn of the bound call, as the operations in it see it."""

    @property
    def number(self) -> int:
        """Its number in the call, from 1."""

    def add(self, measurement: Any, /) -> None:
        """Take in an operation that begins."""

    def waits_here(self) -> Any:
        """Where an operation notes when it waits; None elsewhere than on the turn's event loop."""


class BoundTimeline(Timeline, Protocol):
    """What happens in the bound call, as those see it who open turns."""

    def open_turn(self, session: Any, binding: "Binding", metadata: Mapping[str, Any], context: Context) -> Any:
        """Begin a turn."""

    def close_turn(self, opened: Any, exc: BaseException | None) -> None:
        """End a turn's block."""

    def restart_after_fork(self) -> None:
        """In a forked child: forget what the parent will report."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The ids that operations take when they are given none of their own."""

    call_sid: str
    stream_sid: str | None = None
    timeline: BoundTimeline | None = field(default=None, compare=False)
    turn: BoundTurn | None = field(default=None, compare=False)

    def with_turn(self, turn: BoundTurn) -> "Binding":
        """The same, in a turn."""
        return Binding(self.call_sid, self.stream_sid, self.timeline, turn)


def bound(context: Context | None = None) -> Binding | None:
    """The binding of `context` (the running one unless given), or None outside of a call."""
    binding = otel_context.get_value(BINDING, context)
    return binding if isinstance(binding, Binding) else None


attach: Callable[[Context], "Token[Context]"] = otel_context.attach

(SPAN,) = trace.set_span_in_context(INVALID_SPAN, Context())
"""Where a context holds its span; OpenTelemetry has no public name for it."""


def detach(token: "Token[Context]", attached: Context | None = None, exc: BaseException | None = None) -> None:
    """Detach `attached`, also where the work moved on to another task meanwhile.

    A coroutine or stream that was broken off (`exc` is a GeneratorExit) may be finalised in any task or thread. There
    the token is of no use, and the context that it belonged to is gone with its task: nothing changes.
    """
    is_abandoned = exc is not None and isinstance(exc, GeneratorExit)
    if is_abandoned and otel_context.get_current() is not attached:
        return
    try:
        token.var.reset(token)
    except ValueError:
        if not is_abandoned and attached is not None and otel_context.get_current() is attached:
            attach(Context() if token.old_value is Token.MISSING else token.old_value)
