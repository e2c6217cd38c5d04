"""The one opener of spans, its ids, and the current context."""

import asyncio
import contextvars
import hashlib
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import wrapt
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, TraceFlags

from callbot_latency import LatencyConfig, call
from callbot_latency.semconv import SCOPE
from callbot_latency.tracing.context import attach, detach
from callbot_latency.tracing.sdk_internals import AttributeWriting
from callbot_latency.tracing.spans import CallIdGenerator, SpanFactory
from tests.support.subprocesses import at_once, facts_of, run_python


def open_root(factory: SpanFactory, call_sid: str) -> Any:
    return factory.start_call(Context(), {}, 1, call_sid)


def start_in_call(factory: SpanFactory, call_sid: str) -> Any:
    return factory.start_in_call("part", Context(), {}, 1, call_sid)


def test_a_derived_id_is_blake2b_of_the_call_sid() -> None:
    """The same in every process, and in every language that has BLAKE2b."""
    wanted = int.from_bytes(hashlib.blake2b(b"CA1", digest_size=16, key=b"k").digest(), "big")
    assert CallIdGenerator(b"k").trace_id_of("CA1") == wanted
    assert CallIdGenerator(b"k").trace_id_of("CA2") != wanted
    assert CallIdGenerator().trace_id_of("CA1") != wanted


@pytest.mark.parametrize("call_sid", ["\ud800", "é", "x" * 10_000, "0"])
def test_any_text_is_a_call_sid(call_sid: str) -> None:
    """Also what no encoding has a word for."""
    assert 0 < CallIdGenerator().trace_id_of(call_sid) < 2**128


def test_random_ids_are_never_zero_and_do_not_repeat() -> None:
    """Zero is what OpenTelemetry calls invalid."""
    ids = CallIdGenerator()
    assert ids.is_trace_id_random()
    assert all(0 < ids.generate_span_id() < 2**64 for _ in range(1000))
    assert len({ids.generate_trace_id() for _ in range(1000)}) == 1000


def test_the_random_flag_is_honest() -> None:
    """A derived trace id does not claim to be random; every other does."""
    factory = SpanFactory.on(TracerProvider())
    derived = open_root(factory, "CA1").get_span_context()
    part = start_in_call(factory, "CA1").get_span_context()
    drawn = factory.start("x", Context(), {}, 1).get_span_context()
    assert not derived.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert not part.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert drawn.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert derived.trace_flags.sampled
    assert drawn.trace_flags.sampled


def test_other_tracers_of_the_same_provider_keep_their_ids() -> None:
    """Only ours derives, even while it does."""
    provider = TracerProvider()
    other = provider.get_tracer("other")
    before: Any = other.id_generator  # type: ignore[attr-defined]
    factory = SpanFactory.on(provider)
    started: list[SpanContext] = []

    class Starting(SpanProcessor):
        """Starts spans while a root of ours starts."""

        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            if span.name == "call":
                for name in ("other", "later"):
                    started.append(provider.get_tracer(name).start_span("x", Context()).get_span_context())

    provider.add_span_processor(Starting())
    root = open_root(factory, "CA1").get_span_context()
    assert len(started) == 2
    assert root.trace_id == factory.ids.trace_id_of("CA1")
    for theirs in started:
        assert theirs.trace_id != root.trace_id
        assert theirs.span_id != root.span_id
        assert theirs.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert other.id_generator is before  # type: ignore[attr-defined]
    assert isinstance(provider.get_tracer(SCOPE + ".other").id_generator, type(before))  # type: ignore[attr-defined]


class Uncopied(wrapt.ObjectProxy):  # type: ignore[misc, unused-ignore]
    """As a vendor wraps a tracer."""


class Refusing(Tracer):
    """A tracer that cannot be copied, and wraps none."""

    def __copy__(self) -> Any:
        raise NotImplementedError


class Proxying(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return Uncopied(super().get_tracer(*args, **kwargs))


def test_the_root_has_its_derived_ids_on_a_tracer_that_is_wrapped() -> None:
    """A proxy of wrapt has no copy."""
    factory = SpanFactory.on(Proxying(shutdown_on_exit=False))
    root = open_root(factory, "CA1").get_span_context()
    assert root.trace_id == factory.ids.trace_id_of("CA1")
    assert root.span_id == factory.ids.root_span_id_of("CA1")


def test_a_tracer_that_has_no_copy_opens_the_root_itself() -> None:
    """With other ids, and no error."""
    tracer: Any = TracerProvider(shutdown_on_exit=False).get_tracer(SCOPE)
    tracer.__class__ = Refusing
    factory = SpanFactory(tracer, CallIdGenerator(), AttributeWriting())
    assert open_root(factory, "CA1").is_recording()


def test_an_opener_on_no_sdk_opens_what_does_not_record() -> None:
    """Without the SDK there is no id and no error: not even the derived ones of a root that nobody opens."""
    for open_one in (open_root, start_in_call):
        span = open_one(SpanFactory.on(trace.NoOpTracerProvider()), "CA1")
        assert not span.is_recording()
        assert not span.get_span_context().is_valid


def test_the_root_has_a_derived_id_that_tells_nothing_of_the_trace_id() -> None:
    """BLAKE2b of the call_sid too, in a domain of its own; a part in another process has it as its parent."""
    wanted = hashlib.blake2b(b"CA1", digest_size=8, key=b"k", person=b"callbot.root").digest()
    ids = CallIdGenerator(b"k")
    assert ids.root_span_id_of("CA1") == int.from_bytes(wanted, "big")
    assert ids.trace_id_of("CA1").to_bytes(16, "big")[:8] != wanted
    assert ids.trace_id_of("CA1").to_bytes(16, "big")[8:] != wanted
    assert ids.root_span_id_of("CA1") != CallIdGenerator().root_span_id_of("CA1")
    here, elsewhere = (SpanFactory.on(TracerProvider(), b"k") for _ in range(2))
    root, part = open_root(here, "CA1"), start_in_call(elsewhere, "CA1")
    assert root.parent is None
    assert root.context.span_id == ids.root_span_id_of("CA1")
    assert (part.parent.trace_id, part.parent.span_id) == (root.context.trace_id, root.context.span_id)
    assert part.context.span_id != root.context.span_id


@pytest.mark.promise("interrupted-code")
def test_what_is_opened_in_the_middle_of_opening_a_root_has_ids_of_its_own() -> None:
    """As by a signal handler: at each line of ours and of the SDK's that opens it, an operation and another root."""
    factory = SpanFactory.on(TracerProvider(sampler=ALWAYS_ON))
    watched = {SpanFactory.start_call.__code__.co_filename, TracerProvider.get_tracer.__code__.co_filename}
    operations: list[SpanContext] = []
    roots: dict[str, SpanContext] = {}
    places: set[tuple[str, int]] = set()

    def at_each_line(frame: FrameType, event: str, _: Any) -> Any:
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place not in places:
            places.add(place)
            operations.append(factory.start("in between", Context(), {}, 1).get_span_context())
            sid = f"CB{len(places)}"
            roots[sid] = open_root(factory, sid).get_span_context()
        return at_each_line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: at_each_line if frame.f_code.co_filename in watched else None)
    try:
        roots["CA1"] = open_root(factory, "CA1").get_span_context()
    finally:
        sys.settrace(before)
    assert len(operations) > 30
    for sid, root in roots.items():
        assert (root.trace_id, root.span_id) == (factory.ids.trace_id_of(sid), factory.ids.root_span_id_of(sid))
    assert len({one.span_id for one in (*operations, *roots.values())}) == len(operations) + len(roots)
    assert len({one.trace_id for one in (*operations, *roots.values())}) == len(operations) + len(roots)


def test_what_a_process_remembers_of_roots_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten, one for each new one."""
    monkeypatch.setattr("callbot_latency.tracing.spans.MAX_CALLS", 10)
    factory = SpanFactory.on(TracerProvider())
    assert all(open_root(factory, f"CA{n}").name == "call" for n in range(25))
    assert len(factory._roots) == 10
    assert [open_root(factory, f"CA{n}").name for n in (24, 15, 14)] == ["call part", "call part", "call"]


SIDS = [f"CA{hashlib.md5(str(n).encode()).hexdigest()}" for n in range(20_000)]


@pytest.mark.parametrize("key", [b"", b"secret"])
def test_derived_ids_are_as_uniform_as_random_ones(key: bytes) -> None:
    """Each byte of trace id and root id by chi-square (255 degrees of freedom: above 380 once in 10 million)."""
    ids = CallIdGenerator(key)
    written = [ids.trace_id_of(sid).to_bytes(16, "big") + ids.root_span_id_of(sid).to_bytes(8, "big") for sid in SIDS]
    assert len({one[:16] for one in written}) == len({one[16:] for one in written}) == len(SIDS)
    expected = len(SIDS) / 256
    for place in range(24):
        counts = Counter(one[place] for one in written)
        assert sum((counts[value] - expected) ** 2 / expected for value in range(256)) < 380


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.9])
def test_a_ratio_samples_its_share_of_derived_ids(ratio: float) -> None:
    """TraceIdRatioBased looks at the low 64 bits, probabilistic samplers by W3C at the low 56: within 4.5 sigma."""
    ids, sampler = CallIdGenerator(), TraceIdRatioBased(ratio)
    by_sdk = sum(sampler.should_sample(None, ids.trace_id_of(sid), "call").decision.is_sampled() for sid in SIDS)
    by_w3c = sum((ids.trace_id_of(sid) & (1 << 56) - 1) < ratio * (1 << 56) for sid in SIDS)
    sigma = (len(SIDS) * ratio * (1 - ratio)) ** 0.5
    assert abs(by_sdk - len(SIDS) * ratio) < 4.5 * sigma
    assert abs(by_w3c - len(SIDS) * ratio) < 4.5 * sigma


@pytest.mark.parametrize(
    "sampler",
    [
        *(ParentBased(TraceIdRatioBased(ratio)) for ratio in (0.0, 0.1, 0.5, 1.0)),
        TraceIdRatioBased(0.5),
        ALWAYS_ON,
        ALWAYS_OFF,
        ParentBased(ALWAYS_OFF),
    ],
    ids=lambda sampler: sampler.get_description(),
)
def test_all_processes_of_a_call_sample_it_or_none(sampler: Sampler) -> None:
    """The root, a part and an operation in three processes: the derived parent forces nothing."""
    openers = [SpanFactory.on(TracerProvider(sampler=sampler)) for _ in range(3)]
    sampled = 0
    for sid in SIDS[:200]:
        root, part, alone = (
            openers[0].start_call(Context(), {}, 1, sid),
            openers[1].start_call(Context(), {}, 1, sid, joins=True),
            openers[2].start_in_call("operation", Context(), {}, 1, sid),
        )
        decisions = {span.get_span_context().trace_flags.sampled for span in (root, part, alone)}
        assert len(decisions) == 1
        assert root.is_recording() is part.is_recording() is alone.is_recording() is decisions.pop()
        sampled += root.is_recording()
    if "0.5" in sampler.get_description():
        assert 60 < sampled < 140


@pytest.mark.parametrize("flag", [0, 1])
def test_the_flag_of_a_remote_parent_is_honoured(flag: int) -> None:
    """A traceparent of the call's own trace decides, whatever the ratio would."""
    factory = SpanFactory.on(TracerProvider(sampler=ParentBased(TraceIdRatioBased(1.0 - flag))))
    remote = SpanContext(factory.ids.trace_id_of("CA1"), 9, is_remote=True, trace_flags=TraceFlags(flag))
    arrived = trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
    for span in (
        factory.start_in_call("operation", arrived, {}, 1, "CA1"),
        factory.start_call(arrived, {}, 1, "CA1"),
    ):
        assert span.is_recording() is bool(flag)
        assert span.get_span_context().trace_flags.sampled is bool(flag)


def test_a_samplers_trace_state_reaches_every_part() -> None:
    """What a sampler by threshold writes for the root stands on the derived parent too."""

    class Marking(Sampler):
        def should_sample(self, parent_context: Any, *args: Any, **named: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, None, trace.TraceState([("ot", "th:8")]))

        def get_description(self) -> str:
            return "Marking"

    part: Any = start_in_call(SpanFactory.on(TracerProvider(sampler=ParentBased(Marking()))), "CA1")
    assert part.parent.trace_state.get("ot") == "th:8"


@pytest.mark.real_time
@pytest.mark.parametrize("key", ["", "secret"])
def test_two_processes_of_one_call_share_its_trace(key: str, tmp_path: Path) -> None:
    """With the same key; without a word between them."""
    code = """
    init()
    with cl.call("CA1") as opened:
        listen()
    tell(call=opened.trace_id, operation=latency_tracker.metrics[-1].trace_id)
    """
    one, two = map(facts_of, at_once(lambda _: run_python(code, tmp_path, {"LATENCY_TRACE_KEY": key}), range(2)))
    assert one == two
    assert one["call"] == one["operation"] == trace.format_trace_id(CallIdGenerator(key.encode()).trace_id_of("CA1"))


# -- attach and detach ----------------------------------------------------------------------------------------------

KEY = otel_context.create_key("test")


def with_value(value: str) -> Context:
    return otel_context.set_value(KEY, value)


def test_detach_gives_back_what_was_current() -> None:
    """Nested, in order."""
    outer = attach(with_value("outer"))
    inner = attach(with_value("inner"))
    assert otel_context.get_value(KEY) == "inner"
    detach(inner)
    assert otel_context.get_value(KEY) == "outer"
    detach(outer)
    assert otel_context.get_value(KEY) is None


def test_detach_in_another_context_takes_its_own_away_and_nothing_else() -> None:
    """Work that moved on to another task: where its context came along it is taken away, else nothing is touched."""
    attached = with_value("moved")
    token = attach(attached)
    came_along, stranger = contextvars.copy_context(), contextvars.Context()

    def elsewhere() -> Any:
        detach(token, attached)
        return otel_context.get_value(KEY)

    def other_value() -> Any:
        attach(with_value("other"))
        return elsewhere()

    assert came_along.run(elsewhere) is None
    assert stranger.run(other_value) == "other"
    assert otel_context.get_value(KEY) == "moved"
    detach(token)


def test_an_abandoned_context_is_left_where_it_is_not_current() -> None:
    """A finaliser in a foreign context changes nothing there; in its own it cleans up."""
    attached = with_value("abandoned")
    token = attach(attached)

    def foreign() -> Any:
        attach(with_value("foreign"))
        detach(token, attached, GeneratorExit())
        return otel_context.get_value(KEY)

    assert contextvars.Context().run(foreign) == "foreign"
    assert contextvars.copy_context().run(detach, token, attached, GeneratorExit()) is None
    assert otel_context.get_value(KEY) == "abandoned"
    detach(token, attached, GeneratorExit())
    assert otel_context.get_value(KEY) is None


def test_a_block_left_in_another_task_leaves_no_call_current(measuring: LatencyConfig) -> None:
    """Entered in one task and left in another, as some frameworks do: both go on without it, and nothing is logged."""

    async def main() -> None:
        block = call("CA1")

        async def enter() -> None:
            await block.__aenter__()

        await asyncio.create_task(enter())
        await block.__aexit__(None, None, None)
        assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())
