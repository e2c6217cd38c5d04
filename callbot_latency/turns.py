"""The turns of a call: from the end of the caller's speech to the first audio that the caller can hear."""

import threading
from collections.abc import Mapping
from contextvars import Token
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context

from . import semconv
from .drops import unmeasured
from .guard import contained
from .measurement import NS_PER_MS, Measurement, checked_metadata
from .outcome import kept_facts, mark_failed, metadata_attributes
from .response import MAX_WAIT_NS, SpeechEnd, attributes_of, measured
from .spans import attach, detach, detach_abandoned
from .switch import switch
from .timeline import Anchor, BargeIn, Timeline

if TYPE_CHECKING:
    from .binding import Binding
    from .session import Session

__all__ = ["CallTimeline", "Turn", "turn"]

MAX_OPERATIONS: Final = 500
"""Operations of one turn that its parts are made of."""


class Turn:
    """One open turn, as `turn()` yields it; its instants are in nanoseconds of `time.perf_counter_ns()`.

    A `TwilioMediaStream` tells what happens. A bot without one says it itself: `speech_ended`, `audio_sent`,
    `playback_started`.
    """

    def __init__(self, timeline: Timeline, number: int, metadata: Mapping[str, Any]) -> None:
        self.number = number
        self.metadata = metadata
        self.operations: list[Measurement] = []
        self.speech: SpeechEnd | None = None
        self.began_ns = perf_counter_ns()
        self.sent_ns: int | None = None
        self.sent_filler = False
        self.answer_ns: int | None = None
        self.silence_ns: int | None = None
        self.playing_ns: int | None = None
        self.playing_uncertainty_ms: float | None = None
        self.barge_in: BargeIn | None = None
        self.hung_up_ns: int | None = None
        self.ended_ns: int | None = None
        self.failed: BaseException | None = None
        self._timeline = timeline

    def speech_ended(
        self, source: Anchor | str = Anchor.STT_FINAL, *, hangover_ms: float = 0.0, uncertainty_ms: float = 0.0
    ) -> None:
        """Say that the caller has stopped speaking: now, less the `hangover_ms` that it took to be sure.

        Raises:
            ValueError: an unknown source, or a negative duration.

        """
        now_ns = perf_counter_ns()
        if hangover_ms < 0 or uncertainty_ms < 0:
            raise ValueError("hangover_ms, uncertainty_ms: expected milliseconds >= 0")
        at_ns = now_ns - int(hangover_ms * NS_PER_MS)
        self._timeline.speech_ended(at_ns, source=Anchor(source), uncertainty_ms=uncertainty_ms, reported_ns=now_ns)

    def audio_sent(self, *, is_filler: bool = False) -> None:
        """Say that the first audio of something was sent: the answer, or a filler before it."""
        self._timeline.audio_sent(perf_counter_ns(), leading_silence_ns=None, is_filler=is_filler)

    def playback_started(self, *, uncertainty_ms: float = 0.0) -> None:
        """Say that the caller hears it from now on."""
        self._timeline.playback_started(perf_counter_ns(), uncertainty_ms=uncertainty_ms)

    def add(self, measurement: Measurement) -> None:
        """Take in an operation that begins."""
        if len(self.operations) < MAX_OPERATIONS:
            self.operations.append(measurement)


class CallTimeline:
    """What happens in one bound call, turn by turn. Safe from any thread; nothing here waits or does I/O."""

    def __init__(self, session: "Session", call_sid: str, stream_sid: str | None) -> None:
        self._session = session
        self._call_sid = call_sid
        self._stream_sid = stream_sid
        self._lock = threading.RLock()
        self._number = 0
        self._speech: SpeechEnd | None = None
        self._open: _OpenTurn | None = None
        self._hung_up_ns: int | None = None

    # -- Timeline ---------------------------------------------------------------------------------------------------

    def speech_started(self, at_ns: int) -> None:
        """The caller began to speak; what `speech_ended` says is what counts."""

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        """For the open turn until it answers, else for the next one."""
        speech = SpeechEnd(at_ns, reported_ns, source, uncertainty_ms)
        with self._lock:
            current = self._current()
            if current is not None and current.sent_ns is None and current.ended_ns is None:
                current.speech = speech
            else:
                self._speech = speech

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        """The first of it answers; the first that is no filler is the answer."""
        with self._lock:
            current = self._current()
            if current is None:
                return
            if current.sent_ns is None:
                current.sent_ns, current.sent_filler, current.silence_ns = at_ns, is_filler, leading_silence_ns
            if current.answer_ns is None and not is_filler:
                current.answer_ns = at_ns

    def playback_started(self, at_ns: int, *, uncertainty_ms: float) -> None:
        """The first after the first audio counts."""
        with self._lock:
            current = self._current()
            if current is None or current.sent_ns is None or current.playing_ns is not None:
                return
            current.playing_ns, current.playing_uncertainty_ms = at_ns, uncertainty_ms
            if current.ended_ns is not None:
                self._finish()

    def playback_ended(self, at_ns: int) -> None:
        """Nothing: a turn ends with its block."""

    def barge_in(self, barge_in: BargeIn) -> None:
        """Of the turn whose answer was broken into."""
        with self._lock:
            current = self._current()
            if current is not None:
                current.barge_in = barge_in

    def unmeasured(self, reason: str) -> None:
        """Counted."""
        unmeasured.add(reason)

    def hung_up(self, at_ns: int) -> None:
        """Nothing more is to be expected of a turn that has ended."""
        with self._lock:
            self._hung_up_ns = at_ns
            current = self._current()
            if current is not None:
                current.hung_up_ns = at_ns
                if current.ended_ns is not None:
                    self._finish()

    # -- for turn() and call() --------------------------------------------------------------------------------------

    def _current(self) -> Turn | None:
        return self._open.turn if self._open is not None else None

    def open_turn(self, binding: "Binding", metadata: Mapping[str, Any], context: Context) -> "_OpenTurn":
        """Begin a turn: back-dated to the end of the caller's speech, where that is known."""
        with self._lock:
            self._finish()
            self._number += 1
            current = Turn(self, self._number, metadata)
            current.speech, self._speech = self._speech, None
            self._open = _OpenTurn(self._session, current, binding, context)
            return self._open

    def close_turn(self, opened: "_OpenTurn", exc: BaseException | None) -> None:
        """End a turn's block; where its first audio is still to be heard, the turn waits for that."""
        with self._lock:
            current = opened.turn
            current.ended_ns, current.failed = perf_counter_ns(), exc
            waits = current.sent_ns is not None and current.playing_ns is None and current.hung_up_ns is None
            if not waits and self._open is opened:
                self._finish()

    def close(self) -> None:
        """The call is over."""
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            contained(opened.finish)


class _OpenTurn:
    """A turn with its span."""

    def __init__(self, session: "Session", current: Turn, binding: "Binding", context: Context) -> None:
        self.turn = current
        self._session = session
        self._binding = binding
        now_wall_ns = time_ns()
        since_ns = current.began_ns if current.speech is None else min(current.began_ns, current.speech.at_ns)
        if current.began_ns - since_ns > MAX_WAIT_NS:
            since_ns = current.began_ns
        self._start_ns = since_ns
        self._start_wall_ns = now_wall_ns - (perf_counter_ns() - since_ns)
        attributes: dict[str, Any] = {semconv.CALL_SID: binding.call_sid, semconv.TURN: current.number}
        if binding.stream_sid:
            attributes[semconv.STREAM_SID] = binding.stream_sid
        attributes |= metadata_attributes(current.metadata)
        self.span: Span = session.spans.open(semconv.TURN_SPAN, context, attributes, self._start_wall_ns)

    def finish(self) -> None:
        """Measure, write it on the span, end that, and tell the pipeline."""
        current = self.turn
        until_ns = max(filter(None, (current.ended_ns, current.playing_ns)), default=perf_counter_ns())
        end_wall_ns = self._start_wall_ns + until_ns - self._start_ns
        metric = measured(current, self._binding, self.span, end_wall_ns)
        try:
            self.span.set_attributes(attributes_of(metric))
            if current.failed is not None:
                contained(mark_failed, self.span, current.failed)
        finally:
            self.span.end(end_wall_ns)
            current.operations = []
        if metric.unmeasured is not None:
            unmeasured.add(metric.unmeasured)
        self._session.submit(metric)


class turn:  # noqa: N801 - used as a verb, like contextlib.suppress
    """Open a turn beneath the bound call, with ``with`` or ``async with``; yields a `Turn`.

    Operations inside belong to it. Outside of a call nothing is measured by it.

    Args:
        metadata: attributes of the turn, such as an intent; never what the caller said.

    Raises:
        TypeError: metadata is no mapping.

    """

    def __init__(self, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = kept_facts(checked_metadata(metadata))
        self._opened: tuple[CallTimeline, _OpenTurn, Token[Context], Context] | None = None

    def __enter__(self) -> Turn:
        session = switch.session
        if session is not None:
            self._opened = contained(self._open)
        return self._opened[1].turn if self._opened else Turn(_NOBODYS, 0, self._metadata)

    def _open(self) -> "tuple[CallTimeline, _OpenTurn, Token[Context], Context] | None":
        from .binding import BINDING, bound

        binding = bound()
        if binding is None or binding.timeline is None:
            return None
        outer = otel_context.get_current()
        opened = binding.timeline.open_turn(binding, self._metadata, outer)
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
    timeline: CallTimeline, opened: _OpenTurn, token: "Token[Context]", context: Context, exc: BaseException | None
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
    def playback_started(self, at_ns: int, *, uncertainty_ms: float) -> None: ...
    def playback_ended(self, at_ns: int) -> None: ...
    def barge_in(self, barge_in: BargeIn) -> None: ...
    def unmeasured(self, reason: str) -> None: ...
    def hung_up(self, at_ns: int) -> None: ...


_NOBODYS: Final = _Deaf()


def turn_elsewhere(number: int) -> Turn:
    """A turn that another process measures; here it gives its number to the operations inside of it."""
    return Turn(_NOBODYS, number, {})
