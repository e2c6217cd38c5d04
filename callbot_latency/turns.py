"""The turns of a call: from the end of the caller's speech to the first audio that the caller can hear."""

from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context

from .binding import BINDING, bound
from .call_timeline import CallTimeline, OpenTurn, Turn
from .guard import contained
from .measurement import checked_metadata
from .outcome import kept_facts
from .spans import attach, detach, detach_abandoned
from .switch import switch
from .timeline import Anchor, BargeIn

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Turn", "turn"]


class turn:  # noqa: N801 - used as a verb, like contextlib.suppress
    """Open a turn beneath the bound call, with ``with`` or ``async with``; yields a `Turn`.

    Operations inside belong to it. Outside of a call nothing is measured by it.

    Args:
        metadata: attributes of the turn, such as an intent, which alert rules may ask for; never what the caller said.

    Raises:
        TypeError: metadata is no mapping.

    """

    def __init__(self, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = kept_facts(checked_metadata(metadata))
        self._opened: tuple[CallTimeline, OpenTurn, Token[Context], Context] | None = None

    def __enter__(self) -> Turn:
        session = switch.session
        if session is not None:
            self._opened = contained(self._open, session)
        return self._opened[1].turn if self._opened else Turn(_NOBODYS, 0, self._metadata)

    def _open(self, session: "Session") -> "tuple[CallTimeline, OpenTurn, Token[Context], Context] | None":
        binding = bound()
        if binding is None or binding.timeline is None:
            return None
        outer = otel_context.get_current()
        metadata = session.phones.cleaned(self._metadata)
        opened = binding.timeline.open_turn(binding, metadata, outer)
        if session.opened_calls is not None:
            # Also without metadata: a call that is opened again counts its turns from one again.
            session.opened_calls.append((binding.call_sid, opened.turn.number, metadata))
        inner = otel_context.set_value(BINDING, binding.with_turn(opened.turn), outer)
        context = set_span_in_context(opened.span, inner)
        return binding.timeline, opened, attach(context), context

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            contained(_leave, *opened, exc)

    async def __aenter__(self) -> Turn:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _leave(
    timeline: CallTimeline, opened: OpenTurn, token: "Token[Context]", context: Context, exc: BaseException | None
) -> None:
    if isinstance(exc, GeneratorExit):
        detach_abandoned(token, context)
    else:
        detach(token, context)
    timeline.close_turn(opened, exc)


class _Deaf:
    """The timeline of a turn that belongs to no call."""

    def speech_started(self, at_ns: int) -> None: ...
    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None: ...
    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None: ...
    def audible_after(self, leading_silence_ns: int) -> None: ...
    def playback_started(self, at_ns: int, *, uncertainty_ms: float) -> None: ...
    def playback_ended(self, at_ns: int) -> None: ...
    def barge_in(self, barge_in: BargeIn) -> None: ...
    def unmeasured(self, reason: str) -> None: ...
    def hung_up(self, at_ns: int) -> None: ...


_NOBODYS: Final = _Deaf()


def turn_elsewhere(number: int) -> Turn:
    """A turn that another process measures; here it gives its number to the operations inside of it."""
    return Turn(_NOBODYS, number, {})
