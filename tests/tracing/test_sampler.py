"""The faster sampler of our tracer decides as the one that it stands for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from callbot_latency import LatencyConfig, call, latency_tracker, measure_latency_context
from callbot_latency.tracing.context import SPAN, attach, detach
from callbot_latency.tracing.sampler import fast_parent_based
from callbot_latency.tracing.spans import SpanFactory


class Static(StaticSampler):
    """One of the application's own, made from OpenTelemetry's: it drops what has a name."""

    def __init__(self) -> None:
        super().__init__(Decision.RECORD_AND_SAMPLE)

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.DROP)


class Own(Sampler):
    """One that drops all, and describes itself as it likes."""

    def __init__(self, description: str) -> None:
        self._description = description

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return self._description


class Undescribed(Own):
    """One whose description cannot be had."""

    def get_description(self) -> str:
        raise RuntimeError("no description")


OTHERS = {
    "a subclass of a static one": Static(),
    "one that says it is always on": Own("AlwaysOnSampler"),
    "nothing beneath sampled ones, all in the root's text": ParentBased(
        ParentBased(ALWAYS_ON), local_parent_sampled=ALWAYS_OFF
    ),
    "a comma in the root's text": ParentBased(
        Own("Own{a,localParentSampled:AlwaysOnSampler,b}"), local_parent_sampled=ALWAYS_OFF
    ),
    "a subclass beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=Static()),
    "one that says so beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=Own("AlwaysOnSampler")),
    "nested beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=ParentBased(ALWAYS_ON)),
}
SAMPLERS = {
    "the default": ParentBased(ALWAYS_ON),
    "always on": ALWAYS_ON,
    "always off": ALWAYS_OFF,
    "nothing at the root": ParentBased(ALWAYS_OFF),
    "a ratio at the root": ParentBased(TraceIdRatioBased(0.5)),
    "a ratio": TraceIdRatioBased(0.5),
    "a ratio beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=TraceIdRatioBased(0.5)),
    "nothing beneath sampled ones": ParentBased(ALWAYS_ON, local_parent_sampled=ALWAYS_OFF),
    "nested at the root": ParentBased(ParentBased(TraceIdRatioBased(0.5))),
    **OTHERS,
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
    faster = fast_parent_based(sampler)
    assert faster.get_description() == sampler.get_description()
    expected = sampler.should_sample(context, trace_id, "transcribe", attributes=attributes)
    assert told(faster.should_sample(context, trace_id, "transcribe", attributes=attributes)) == told(expected)


@pytest.mark.parametrize(
    "name", ["always off", "a ratio", "a ratio beneath sampled ones", "nothing beneath sampled ones", *OTHERS]
)
def test_what_may_decide_otherwise_is_left_as_it_is(name: str) -> None:
    assert fast_parent_based(SAMPLERS[name]) is SAMPLERS[name]


@pytest.mark.parametrize("sampler", [DEFAULT_ON, ALWAYS_ON, ParentBased(TraceIdRatioBased(0.5))])
def test_what_the_environment_can_name_is_made_faster(sampler: Sampler) -> None:
    """The default, and the others of OTEL_TRACES_SAMPLER that sample all beneath a sampled span."""
    assert fast_parent_based(sampler) is not sampler


def test_where_the_sdk_keeps_its_samplers_otherwise_none_is_touched() -> None:
    """The name is private to the SDK."""
    sampler = ParentBased(ALWAYS_ON)
    del sampler._local_parent_sampled
    assert fast_parent_based(sampler) is sampler


@pytest.mark.parametrize("sampler", [Undescribed(""), ParentBased(Undescribed(""))])
def test_no_description_is_asked_for(sampler: Sampler) -> None:
    """Where one raises, spans are opened all the same."""
    factory = SpanFactory.on(TracerProvider(sampler=sampler, shutdown_on_exit=False))
    assert factory.start("x", Context(), {}, 1).get_span_context().is_valid


class Alike:
    """No span, though it has a context as one has."""

    def get_span_context(self) -> SpanContext:
        return SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))


@pytest.mark.parametrize("value", ["x", 7, Alike()])
def test_what_is_no_span_is_no_parent(value: object, measuring: LatencyConfig) -> None:
    """As the SDK takes it: the operation is measured at the root of a trace of its own."""
    context = Context({SPAN: value})
    with_none = fast_parent_based(ParentBased(ALWAYS_OFF)).should_sample(context, 1, "x")
    assert with_none.decision is Decision.DROP
    token = attach(context)
    try:
        with measure_latency_context("speech_to_text", "transcribe"):
            assert trace.get_current_span().get_span_context().trace_id != 1
    finally:
        detach(token)
    assert len(latency_tracker.metrics) == 1


def test_a_sampler_of_the_applications_own_is_asked_each_time() -> None:
    """Also one that was made from OpenTelemetry's."""

    class Own(ParentBased):
        pass

    own = Own(ALWAYS_ON)
    assert fast_parent_based(own) is own


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
