"""What happens in a bound call: the turn that is open, and what is known of it."""

import threading
from collections.abc import Iterator, Mapping
from time import perf_counter_ns, time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span

from .. import semconv
from ..base.drop_counters import unmeasured
from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession
from ..measuring.event_loop_lag import current_loop_lag
from ..timeline import Anchor, BargeIn
from ..tracing.context import Binding
from ..tracing.span_status import mark_failed, metadata_attributes
from .turn_response import MAX_WAIT_NS, attributes_of, measured
from .turn_state import SpeechEnd, Turn

__all__ = ["CallTimeline", "OpenTurn"]


class CallTimeline:
    """What happens in one bound call, turn by turn. Safe from any thread; nothing here waits or does I/O."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._lock = threading.RLock()
        self._speech: SpeechEnd | None = None
        self._rejected: str | None = None
        self._silent: Turn | None = None
        self._open: OpenTurn | None = None
        self._before: OpenTurn | None = None
        """The turn before, while it is not told yet what became of the caller's breaking in."""
        self._is_broken_into = False
        self._broken_into: OpenTurn | None = None
        """What the caller breaks into: the open turn, the one before, one that is told, or no turn."""
        self._hung_up_ns: int | None = None
        self._is_closed = False

    # -- Timeline ---------------------------------------------------------------------------------------------------

    def speech_started(self, at_ns: int) -> None:
        """What `speech_ended` says is what counts."""

    def speech_ended(self, at_ns: int, *, source: Anchor, uncertainty_ms: float, reported_ns: int) -> None:
        """For the open turn until it answers, else for the next one."""
        speech = SpeechEnd(at_ns, reported_ns, source, uncertainty_ms)
        with self._lock:
            self._hung_up_ns = None  # that was another stream of the call
            current = self._unanswered()
            if current is not None:
                current.speech, current.rejected = speech, None
            else:
                self._speech, self._rejected = speech, None

    def _unanswered(self) -> Turn | None:
        """The open turn, where what is told of the caller's speech is for it."""
        current = self._current()
        return current if current is not None and current.sent_ns is None and current.ended_ns is None else None

    def audio_sent(self, at_ns: int, *, leading_silence_ns: int | None, is_filler: bool) -> None:
        """The first of it answers; the first that is no filler is the answer."""
        with self._lock:
            current = self._current()
            if current is None:
                return
            self._silent = None
            if current.sent_ns is None:
                current.sent_ns, current.silence_ns = at_ns, leading_silence_ns
                self._silent = current if leading_silence_ns is None else None
            if current.answer_ns is None and not is_filler:
                current.answer_ns = at_ns

    def audible_after(self, leading_silence_ns: int) -> None:
        """Of what was sent first, if nothing else was since."""
        with self._lock:
            if self._silent is not None:
                self._silent.silence_ns, self._silent = leading_silence_ns, None

    def playback_started(self, at_ns: int, *, uncertainty_ms: float, sent_ns: int | None = None) -> None:
        """Of the first audio; what was sent by the turn before may be heard only in this one."""
        with self._lock:
            current = self._current()
            if current is None or current.sent_ns is None or current.playing_ns is not None:
                return
            if sent_ns not in (None, current.sent_ns):
                return
            current.playing_ns, current.playing_uncertainty_ms = at_ns, uncertainty_ms
            current.playing_told_ns = perf_counter_ns()
            self._leave(current)
            self._finish_if_known()

    def playback_ended(self, at_ns: int) -> None:
        """Nothing: a turn ends with its block."""

    def broken_into(self, at_ns: int) -> None:
        """Its turn waits to be told what became of that, by `barge_in`."""
        with self._lock:
            current = self._current()
            is_its = current is not None and current.sent_ns is not None
            self._is_broken_into, self._broken_into = True, self._open if is_its else None
            if current is not None:
                current.is_broken_into = is_its

    def barge_in(self, barge_in: BargeIn) -> None:
        """Of the turn that `broken_into` told of, since another may have begun meanwhile; else of the open one."""
        with self._lock:
            opened = self._broken_into if self._is_broken_into else self._open
            self._is_broken_into, self._broken_into = False, None
            if opened is None or opened.turn.sent_ns is None:
                return
            opened.turn.barge_in, opened.turn.is_broken_into = barge_in, False
            if opened is self._before:
                self._finish_before()
            self._finish_if_known()

    def unmeasured(self, reason: str) -> None:
        """Counted at once, but for an end of speech that cannot be: its turn says so, and is counted by it."""
        if reason not in semconv.ANCHOR_REASONS:
            unmeasured.add(reason)
            return
        with self._lock:
            current = self._unanswered()
            if current is None:
                self._rejected = reason
            elif current.speech is None:
                current.rejected = reason

    def hung_up(self, at_ns: int) -> None:
        """Nothing more is to be expected of a turn that has ended."""
        with self._lock:
            self._hung_up_ns = at_ns
            self._finish_before()
            current = self._current()
            if current is not None:
                current.hung_up_ns = at_ns
            self._finish_if_known()

    # -- for turn() and call() --------------------------------------------------------------------------------------

    def _current(self) -> Turn | None:
        return self._open.turn if self._open is not None else None

    def open_turn(
        self, session: ActiveSession, binding: Binding, metadata: Mapping[str, Any], context: Context
    ) -> "OpenTurn":
        """Begin a turn: back-dated to the end of the caller's speech, where that is known."""
        with self._lock:
            self._finish_before()
            if self._open is not None and self._open.turn.is_broken_into:
                self._before, self._open = self._open, None
                self._before.turn.is_over = True
                self._leave(self._before.turn)
            self._finish()
            current = Turn(self, next(self._numbers), metadata)
            current.hung_up_ns = self._hung_up_ns
            current.speech, self._speech = self._speech, None
            current.rejected, self._rejected = self._rejected, None
            current.loop_lag = current_loop_lag()
            if current.loop_lag is not None:
                current.loop_lag.watch(self)
            self._open = OpenTurn(session, current, binding, context)
            return self._open

    def close_turn(self, opened: "OpenTurn", exc: BaseException | None) -> None:
        """End a turn's block; what is still to be told of it, the turn waits for."""
        with self._lock:
            opened.turn.ended_ns = perf_counter_ns()
            if exc is not None:
                call_safely(mark_failed, opened.span, exc)
            self._finish_if_known()

    def close(self) -> None:
        """The call is over; a turn that is opened all the same is told when its block ends."""
        with self._lock:
            self._is_closed = True
            self._finish_before()
            self._finish()
            if self._rejected is not None:
                unmeasured.add(self._rejected)
                self._rejected = None

    def restart_after_fork(self) -> None:
        """In a forked child: a turn that is open, or not told yet, is the parent's to tell; the next is the child's."""
        self._lock = threading.RLock()
        for opened in filter(None, (self._open, self._before)):
            opened.turn.is_over = True
            self._leave(opened.turn)
        self._open = self._before = self._silent = self._broken_into = None

    def _finish(self) -> None:
        opened, self._open, self._silent = self._open, None, None
        if opened is not None:
            self._leave(opened.turn)
            call_safely(opened.finish)

    def _finish_if_known(self) -> None:
        """Once its block is over, and its first audio was heard, and it is known what who broke in wanted."""
        current = self._current()
        if current is None or current.ended_ns is None:
            return
        is_heard = current.sent_ns is None or current.playing_ns is not None
        no_more = self._is_closed or current.hung_up_ns is not None
        if no_more or (is_heard and not current.is_broken_into):
            self._finish()

    def _finish_before(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            call_safely(before.finish)

    def _leave(self, current: Turn) -> None:
        if current.loop_lag is not None:
            current.loop_lag.leave(self)


class OpenTurn:
    """A turn with its span."""

    def __init__(self, session: ActiveSession, current: Turn, binding: Binding, context: Context) -> None:
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
        self.span: Span = session.spans.start(semconv.TURN_SPAN, context, attributes, self._start_wall_ns)

    def finish(self) -> None:
        """Measure, write it on the span, end that, and tell the pipeline."""
        current = self.turn
        current.is_over = True
        until_ns = max(filter(None, (current.ended_ns, current.playing_ns)), default=perf_counter_ns())
        end_wall_ns = self._start_wall_ns + until_ns - self._start_ns
        try:
            metric = measured(current, self._binding, self.span, end_wall_ns)
            self.span.set_attributes(attributes_of(metric))
        finally:
            self.span.end(end_wall_ns)
            current.operations = []
        if metric.unmeasured is not None:
            unmeasured.add(metric.unmeasured)
        self._session.submit(metric)
