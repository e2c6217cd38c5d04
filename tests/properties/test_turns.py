"""What holds for every turn, whatever happens in it and in whatever order it is told."""

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from callbot_latency import Anchor, LatencyConfig, call, latency_tracker, measure_latency_context, turn
from callbot_latency.base.drop_counters import unmeasured
from callbot_latency.measuring.event_loop_lag import LoopLag
from callbot_latency.twilio import TwilioMediaStream
from tests.conftest import ticking
from tests.support.clock import Clock
from tests.support.twilio_script import LOUD, SILENT, payload, start_message

MS = st.integers(0, 500)
KINDS = ("speech_to_text", "text_to_speech", "salesforce_api", "rag_inference")
EVENTS = st.one_of(
    st.tuples(st.just("passes"), st.integers(0, 3_000)),
    st.tuples(st.just("held up"), st.integers(0, 300)),
    st.tuples(st.just("speech started"), st.integers(0, 200)),
    st.tuples(st.just("speech ended"), st.tuples(st.sampled_from([*Anchor, "a guess"]), st.integers(-100, 70_000))),
    st.tuples(st.just("says"), st.tuples(st.integers(0, 400), st.booleans(), st.sampled_from(["", "a", "b"]))),
    st.tuples(st.just("returns"), st.sampled_from("ab")),
    st.tuples(st.just("works"), st.tuples(st.sampled_from(KINDS), MS, st.none() | MS)),
    st.tuples(st.just("filler"), st.booleans()),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("next turn"), st.none()),
    st.tuples(st.just("stop"), st.none()),
)


GOOD_END = st.tuples(st.just("speech ended"), st.tuples(st.sampled_from(["vad_minus_hangover", "stt_final"]), MS))
ANSWER = [("says", (20, True, "a")), ("passes", 60), ("returns", "a")]


@st.composite
def calls(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Turns that mostly go as they should, with anything in between."""
    happening: list[tuple[str, object]] = [("passes", 2_000)]
    for _ in range(draw(st.integers(0, 4))):
        happening += draw(st.lists(EVENTS, max_size=2))
        happening += draw(st.lists(GOOD_END, max_size=1))
        happening += [("next turn", None), *draw(st.lists(EVENTS, max_size=5))]
        happening += ANSWER if draw(st.booleans()) else []
        happening += draw(st.lists(EVENTS, max_size=4))
    return happening


class Script:
    """A call in which things happen as they come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stream = TwilioMediaStream(clock=clock)
        self._stream.on_message(start_message())
        self._lag = LoopLag()
        self._turn: turn | None = None
        self.turns = 0

    def happens(self, name: str, more: object) -> None:
        getattr(self, "_" + name.replace(" ", "_"))(more)

    def ends(self) -> None:
        if self._turn is not None:
            self._turn.__exit__(None, None, None)

    def _passes(self, ms: int) -> None:
        self._clock.passes(ms)

    def _held_up(self, ms: int) -> None:
        began_ns = self._clock.now_ns
        self._clock.passes(ms)
        self._lag.note(began_ns, self._clock.now_ns)

    def _speech_started(self, delay_ms: int) -> None:
        self._stream.speech_started(onset_delay_ms=delay_ms)

    def _speech_ended(self, told: tuple[Anchor | str, int]) -> None:
        self._stream.speech_ended(source=told[0], hangover_ms=told[1])

    def _says(self, told: tuple[int, bool, str]) -> None:
        length_ms, is_loud, mark = told
        media = {"payload": payload(LOUD if is_loud else SILENT, length_ms)}
        self._stream.on_send({"event": "media", "streamSid": "MZ1", "media": media})
        if mark:
            self._stream.on_send({"event": "mark", "streamSid": "MZ1", "mark": {"name": mark}})

    def _returns(self, mark: str) -> None:
        self._stream.on_message({"event": "mark", "streamSid": "MZ1", "mark": {"name": mark}})

    def _works(self, told: tuple[str, int, int | None]) -> None:
        kind, ms, first_ms = told
        with measure_latency_context(kind, "work") as run:
            if first_ms is not None:
                self._clock.passes(first_ms)
                run.mark_first_output()
            self._clock.passes(ms)

    def _filler(self, on: bool) -> None:
        self._stream.filler(on)

    def _clear(self, _: None) -> None:
        self._stream.on_send({"event": "clear", "streamSid": "MZ1"})

    def _next_turn(self, _: None) -> None:
        self.ends()
        self._turn = turn()
        self._turn.__enter__().loop_lag = self._lag
        self.turns += 1

    def _stop(self, _: None) -> None:
        self._stream.closed()


@pytest.mark.promise("impossible-durations")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(calls())
def test_every_turn_is_told_once_and_its_parts_sum(
    measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, object]]
) -> None:
    """No number is negative, unknown is absent and counted, and nothing is guessed where the anchor cannot be."""
    before = unmeasured.by_reason()
    latency_tracker.reset_stats()
    with monkeypatch.context() as patched:
        clock = ticking(patched)
        with call("CA1"):
            script = Script(clock)
            for name, more in events:
                script.happens(name, more)
            script.ends()
    turns = latency_tracker.get_turns("CA1")
    assert len({told.turn for told in turns}) == len(turns) == script.turns
    for told in turns:
        event(f"{told.outcome}, {told.unmeasured or ('sent' if told.response_ms is None else 'heard')}")
        waited_ms = told.response_sent_ms if told.response_ms is None else told.response_ms
        assert sum(told.parts_ms.values()) == pytest.approx(waited_ms or 0, abs=1)
        numbers = [*told.parts_ms.values(), *told.overlapped_ms.values()]
        numbers += [ms for ms in (told.response_ms, told.response_sent_ms, told.answer_sent_ms) if ms is not None]
        assert all(ms >= 0 for ms in numbers)
        assert (told.anchor is None) == (told.unmeasured is not None)
        assert told.unmeasured is None or waited_ms is None
        if told.response_ms is not None and told.response_sent_ms is not None:
            assert told.response_ms >= told.response_sent_ms
    counted = {reason: n - before.get(reason, 0) for reason, n in unmeasured.by_reason().items()}
    for reason in {told.unmeasured for told in turns} - {None}:
        assert counted[reason or ""] >= sum(told.unmeasured == reason for told in turns)
