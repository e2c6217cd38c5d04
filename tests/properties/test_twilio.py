"""Whatever order messages and reports come in, a media stream raises nothing and tells no impossible instant."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency.timeline import Anchor
from callbot_latency.twilio import REASONS
from tests.support.twilio_script import MS, Script, start_message

_names = st.sampled_from(["a", "b", "c", "d"])
_lengths = st.integers(0, 3_000)
_ms = st.one_of(st.none(), st.floats(-100, 10_000), st.just(float("nan")))
Step = tuple[float, Callable[[Script], Any]]


def _steps() -> st.SearchStrategy[Step]:
    acts = st.one_of(
        st.builds(lambda n, m, s: lambda c: c.say(n, m, min(n, s)), _lengths, st.none() | _names, _lengths),
        st.builds(lambda n: lambda c: c.mark(n), _names),
        st.builds(lambda n: lambda c: c.returned(n), _names),
        st.builds(lambda n: lambda c: c.returned(n), _names),
        st.builds(lambda t, n: lambda c: c.hear(t, n), st.none() | st.integers(0, 60_000), _lengths),
        st.just(lambda c: c.clear()),
        st.just(lambda c: c.stream.no_speech()),
        st.just(lambda c: c.stream.new_utterance()),
        st.builds(lambda on: lambda c: c.stream.filler(on), st.booleans()),
        st.builds(lambda d, a: lambda c: c.stream.speech_started(onset_delay_ms=d or 0.0, audio_ms=a), _ms, _ms),
        st.builds(
            lambda s, h, u, a: (
                lambda c: c.stream.speech_ended(source=s, hangover_ms=h or 0.0, uncertainty_ms=u, audio_ms=a)
            ),
            st.sampled_from(Anchor),
            _ms,
            _ms,
            _ms,
        ),
        st.builds(lambda s, k: lambda c: c.stream.on_message(start_message(s, k)), st.just("MZ1"), _names),
    )
    return st.tuples(st.one_of(st.just(0.0), st.floats(0, 50), st.floats(0, 6_000)), acts)


@pytest.mark.promise("impossible-durations")
@given(st.lists(_steps(), max_size=40), st.booleans())
def test_no_order_of_messages_tells_what_cannot_be(steps: list[Step], hangs_up: bool) -> None:
    """Instants are in order and not in the future, shares and times have their bounds, reasons have names."""
    call, now_ms, seen = Script(), 0.0, 0
    for pause_ms, act in steps:
        now_ms += pause_ms
        act(call.at(now_ms))
        for name, at_ms, _ in call.timeline.told[seen:]:
            assert name == "audible_after" or 0 <= at_ms <= now_ms + 1e-6, name
        seen = len(call.timeline.told)
    if hangs_up:
        call.stop()
        call.stream.closed()
    _check(call)
    assert len(call.timeline.times("hung_up")) == hangs_up


def _check(call: Script) -> None:
    told = call.timeline
    for name in ("audio_sent", "playback_started", "playback_ended", "speech_ended"):
        assert told.times(name) == sorted(told.times(name)), name
    sent, started = told.times("audio_sent"), told.times("playback_started")
    # Each utterance begins to play at most once and in order: the n-th that did was not sent before the n-th.
    assert len(started) <= len(sent)
    assert all(began >= first for first, began in zip(sent, started, strict=False))
    for name, at_ms, more in told.told:
        assert more.get("uncertainty_ms", 0) >= 0
        assert more.get("silence_ms") is None or more["silence_ms"] >= 0
        assert name != "speech_ended" or at_ms <= more["reported_ms"]
    for barge_in in told.barge_ins:
        assert 0 <= barge_in.at_ns <= call.now_ns
        assert barge_in.heard_share is None or 0 <= barge_in.heard_share <= 1
        assert barge_in.reaction_ms is None or 0 <= barge_in.reaction_ms <= call.now_ns / MS
        assert barge_in.silenced_ms is None or barge_in.silenced_ms >= (barge_in.reaction_ms or 0)
    assert set(told.reasons) <= REASONS


@given(
    st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 300),
    st.integers(0, 200),
)
def test_a_fifo_with_fixed_delays_is_measured_up_to_the_way_back(
    chunks: list[tuple[int, bool]], there_ms: int, back_ms: int
) -> None:
    """Twilio as it should be: the beginning is told late by the way back, never more, and within its uncertainty."""
    call, sent_ms, played_ms, returns = Script(), 1_000, 0, []
    began_ms = sent_ms + there_ms
    for place, (length_ms, is_marked) in enumerate([*chunks[:-1], (chunks[-1][0], True)]):
        call.at(sent_ms).say(length_ms, f"m{place}" if is_marked else None)
        played_ms = max(played_ms, sent_ms + there_ms) + length_ms
        if is_marked:
            returns.append((played_ms + back_ms, f"m{place}"))
    for at_ms, name in returns:
        call.at(at_ms).returned(name)
    call.at(returns[-1][0] + 10).stream.speech_started()
    (told_ms,) = call.timeline.times("playback_started")
    assert told_ms == began_ms + back_ms
    assert told_ms - call.timeline.last("playback_started")["uncertainty_ms"] <= began_ms <= told_ms
    assert call.timeline.times("playback_ended") == [played_ms + back_ms]
    assert call.timeline.reasons == []
