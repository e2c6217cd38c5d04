"""The faster sampler of our tracer decides as the one that it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from callbot_latency import LatencyConfig, call, measure_latency_context
from callbot_latency.sampling import with_parent_at_once

SAMPLERS = {
    "the default": ParentBased(ALWAYS_ON),
    "always on": ALWAYS_ON,
    "always off": ALWAYS_OFF,
    "nothing at the root": ParentBased(ALWAYS_OFF),
    "a ratio at the root": ParentBased(TraceIdRatioBased(0.5)),
    "a ratio": TraceIdRatioBased(0.5),
    "a ratio beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=TraceIdRatioBased(0.5)),
    "nothing beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=ALWAYS_OFF),
}
IDS = st.integers(1, 2**128 - 1)
PARENTS = st.none() | st.builds(
    SpanContext,
    IDS,
    st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(flags) for flags in range(4)]),
    trace_state=st.sampled_from([TraceState(), TraceState([("vendor", "1")])]),
)


def told(result: SamplingResult) -> tuple[Decision, dict[str, object], list[tuple[str, str]]]:
    return result.decision, dict(result.attributes), list((result.trace_state or TraceState()).items())


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
@given(parent=PARENTS, trace_id=IDS, attributes=st.none() | st.just({"operation_type": "speech_to_text"}))
def test_it_decides_the_same(
    sampler: Sampler, parent: SpanContext | None, trace_id: int, attributes: dict[str, str] | None
) -> None:
    context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
    faster = with_parent_at_once(sampler)
    assert faster.get_description() == sampler.get_description()
    expected = sampler.should_sample(context, trace_id, "transcribe", attributes=attributes)
    assert told(faster.should_sample(context, trace_id, "transcribe", attributes=attributes)) == told(expected)


@pytest.mark.parametrize(
    "name", ["always off", "a ratio", "a ratio beneath sampled ones", "nothing beneath sampled ones"]
)
def test_what_may_decide_otherwise_is_left_as_it_is(name: str) -> None:
    assert with_parent_at_once(SAMPLERS[name]) is SAMPLERS[name]


def test_a_sampler_of_the_applications_own_is_asked_each_time() -> None:
    """Also one that was made from OpenTelemetry's."""

    class Own(ParentBased):
        pass

    own = Own(ALWAYS_ON)
    assert with_parent_at_once(own) is own


def test_operations_of_a_call_do_not_ask_the_sdk_again(
    measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(self: ParentBased, *args: object, **kwargs: object) -> SamplingResult:
        asked.append(args)
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    monkeypatch.setattr(ParentBased, "should_sample", ask)
    with call("CA1"):
        at_the_root = len(asked)
        with measure_latency_context("speech_to_text", "transcribe"):
            pass
    assert at_the_root > 0
    assert len(asked) == at_the_root
