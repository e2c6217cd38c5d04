"""From what happened in a turn to its numbers: the response, and the parts that sum to it."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from opentelemetry.trace import Span, format_span_id, format_trace_id

from .. import semconv
from ..measuring.event_loop_lag import BlockedInterval, blocked_since, waits_held_up
from ..measuring.measurement import Measurement
from ..model.operation import OperationType
from ..model.turn_metric import TurnMetric
from ..model.units import NS_PER_MS, at
from ..tracing.context import Binding
from .critical_path import Interval, Parts, parts_of
from .turn_state import SpeechEnd, Turn

__all__ = ["MAX_WAIT_NS", "attributes_of", "measured"]

MAX_WAIT_NS: Final = 60 * 1_000_000_000
"""An end of speech that is older than this when the bot answers belongs to something else."""
_PARTS: Final = {
    OperationType.STT: semconv.PART_STT,
    OperationType.TTS: semconv.PART_TTS,
    OperationType.RAG: semconv.PART_RAG,
    OperationType.SALESFORCE: semconv.PART_SALESFORCE,
}
_STREAMS: Final = frozenset({OperationType.TTS, OperationType.RAG})
"""Of these the first output is what is waited for; the rest comes while it is used."""


def measured(turn: Turn, binding: Binding, span: Span, end_wall_ns: int) -> TurnMetric:
    """The numbers of a turn that is over."""
    context = span.get_span_context()
    reason = _why_unmeasured(turn)
    speech = turn.speech if reason is None else None
    from_ns = None if speech is None else speech.at_ns
    heard_ns = _heard_ns(turn)
    until_ns = turn.sent_ns if heard_ns is None else heard_ns
    parts = Parts()
    if speech is not None and until_ns is not None:
        late = [] if turn.loop_lag is None else turn.loop_lag.between(speech.at_ns, until_ns)
        parts = parts_of(speech.at_ns, until_ns, _intervals(turn, speech, until_ns, late), late)
    return TurnMetric(
        call_sid=binding.call_sid,
        turn=turn.number,
        timestamp=at(end_wall_ns),
        stream_sid=binding.stream_sid,
        outcome=_outcome(turn),
        response_ms=_between_ms(from_ns, heard_ns),
        response_sent_ms=_between_ms(from_ns, turn.sent_ns),
        answer_sent_ms=_between_ms(from_ns, turn.answer_ns),
        anchor=None if speech is None else speech.source,
        anchor_uncertainty_ms=None if speech is None else speech.uncertainty_ms,
        playback_uncertainty_ms=turn.playing_uncertainty_ms,
        parts_ms=_in_order(parts.on_path),
        overlapped_ms=_in_order(parts.overlapped),
        unmeasured=reason,
        barge_in=turn.barge_in,
        operations=len(turn.operations),
        metadata=turn.metadata,
        trace_id=format_trace_id(context.trace_id) if context.is_valid else None,
        span_id=format_span_id(context.span_id) if span.is_recording() else None,
    )


def _in_order(parts: dict[str, int]) -> dict[str, float]:
    return {part: parts[part] / NS_PER_MS for part in semconv.PARTS if part in parts}


def _heard_ns(turn: Turn) -> int | None:
    """When the first audible sample was played."""
    return None if turn.playing_ns is None else turn.playing_ns + (turn.silence_ns or 0)


def _why_unmeasured(turn: Turn) -> str | None:
    speech, sent_ns = turn.speech, turn.sent_ns
    if speech is None:
        return turn.rejected or semconv.UNMEASURED_NO_ANCHOR
    if sent_ns is None:
        return semconv.UNMEASURED_NO_AUDIO
    if speech.at_ns > speech.reported_ns or speech.at_ns > sent_ns:
        return semconv.UNMEASURED_IMPOSSIBLE_ANCHOR
    if sent_ns - speech.at_ns > MAX_WAIT_NS:
        return semconv.UNMEASURED_STALE_ANCHOR
    if turn.playing_ns is not None and turn.playing_ns < sent_ns:
        return semconv.UNMEASURED_IMPOSSIBLE_PLAYBACK
    return None


def _outcome(turn: Turn) -> str:
    if turn.sent_ns is None:
        return semconv.OUTCOME_HUNG_UP if turn.hung_up_ns is not None else semconv.OUTCOME_UNANSWERED
    if turn.barge_in is not None and not turn.barge_in.is_false:
        return semconv.OUTCOME_INTERRUPTED
    return semconv.OUTCOME_ANSWERED


def _between_ms(from_ns: int | None, until_ns: int | None) -> float | None:
    return None if from_ns is None or until_ns is None else (until_ns - from_ns) / NS_PER_MS


def _intervals(turn: Turn, speech: SpeechEnd, until_ns: int, late: Sequence[BlockedInterval]) -> Iterator[Interval]:
    sent_ns = until_ns if turn.sent_ns is None else turn.sent_ns
    yield Interval(semconv.PART_ENDPOINTING, speech.at_ns, speech.reported_ns)
    first_ns = min((m.start_ns for m in turn.operations), default=turn.began_ns)
    yield Interval(semconv.PART_QUEUEING, speech.reported_ns, min(turn.began_ns, first_ns))
    yield from _work(turn.operations, sent_ns, late)
    yield from _between_streams(turn.operations, sent_ns)
    if turn.playing_ns is not None:
        yield _buffered(turn, sent_ns, turn.playing_ns, late)
        yield Interval(semconv.PART_LEADING_SILENCE, turn.playing_ns, until_ns)


def _buffered(turn: Turn, sent_ns: int, playing_ns: int, late: Sequence[BlockedInterval]) -> Interval:
    """Twilio's part. A mark that had to wait for our loop made the playback seem to begin so much later."""
    told_ns = playing_ns if turn.playing_told_ns is None else turn.playing_told_ns
    waited_ns = told_ns - blocked_since(late, sent_ns, told_ns, in_hand=True)
    held_up = ((playing_ns - waited_ns, playing_ns),) if waited_ns > 0 else ()
    return Interval(semconv.PART_TWILIO_BUFFER, sent_ns, playing_ns, held_up=held_up)


def _work(operations: list[Measurement], until_ns: int, late: Sequence[BlockedInterval]) -> Iterator[Interval]:
    made: dict[int, Interval] = {}
    for m in operations:
        parent = made.get(id(m.parent)) if m.parent is not None else None
        part = _PARTS.get(m.operation.type, semconv.PART_OTHER)
        end_ns = _waited_for_until(m, until_ns)
        made[id(m)] = interval = Interval(part, m.start_ns, end_ns, parent, _held_up(m, end_ns, late))
        yield interval


def _held_up(m: Measurement, end_ns: int, late: Sequence[BlockedInterval]) -> Sequence[BlockedInterval]:
    """When the operation waited for the loop and not for its provider.

    Of a coroutine that we step ourselves we know when it waited; of a block, only that it ended.
    """
    if not late or m.await_times is None:
        return ()
    if m.await_times:
        return waits_held_up(late, list(m.await_times))
    since_ns = blocked_since(late, m.start_ns, end_ns, in_hand=False)
    return ((since_ns, end_ns),) if since_ns < end_ns else ()


def _between_streams(operations: list[Measurement], sent_ns: int) -> Iterator[Interval]:
    """From the first word of an answer to its speech: its first sentence; from the first speech to its sending."""
    for rag in operations:
        if rag.operation.type is OperationType.RAG and rag.first_output_ns is not None:
            said_ns = rag.start_ns + rag.first_output_ns
            spoken = [m.start_ns for m in operations if m.operation.type is OperationType.TTS and m.start_ns >= said_ns]
            if spoken:
                yield Interval(semconv.PART_FIRST_SENTENCE, said_ns, min(spoken))
    heads = [
        m.start_ns + m.first_output_ns
        for m in operations
        if m.operation.type is OperationType.TTS and m.first_output_ns is not None
    ]
    before = [ns for ns in heads if ns <= sent_ns]
    if before:
        yield Interval(semconv.PART_SENDING, max(before), sent_ns)


def _waited_for_until(m: Measurement, until_ns: int) -> int:
    if m.operation.type in _STREAMS and m.first_output_ns is not None:
        return m.start_ns + m.first_output_ns
    return until_ns if m.is_open else m.start_ns + m.elapsed_ns


def attributes_of(metric: TurnMetric) -> dict[str, Any]:
    """What the turn's span says."""
    said = {name: value for name in semconv.TURN_ATTRIBUTES if (value := getattr(metric, name)) is not None}
    if metric.anchor is not None:
        said[semconv.ANCHOR] = metric.anchor.value
    said |= {semconv.PART_PREFIX + part: ms for part, ms in metric.parts_ms.items()}
    said |= {semconv.OVERLAPPED_PREFIX + part: ms for part, ms in metric.overlapped_ms.items()}
    if metric.barge_in is not None:
        said |= {semconv.BARGE_IN_PREFIX + name: fact for name, fact in metric.barge_in.facts().items()}
    return said
