"""The one opener of spans, its ids, and the current context."""

import asyncio
import contextvars
import hashlib
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import TraceFlags

from callbot_latency import LatencyConfig, call
from callbot_latency.semconv import SCOPE
from callbot_latency.spans import DerivedIds, SpanOpener, attach, detach, detach_abandoned

from .subprocesses import facts_of, run_python


def open_in_call(opener: SpanOpener, call_sid: str) -> Any:
    return opener.open_in_call("call", Context(), {}, 1, call_sid)


def test_a_derived_id_is_blake2b_of_the_call_sid() -> None:
    """The same in every process, and in every language that has BLAKE2b."""
    wanted = int.from_bytes(hashlib.blake2b(b"CA1", digest_size=16, key=b"k").digest(), "big")
    assert DerivedIds(b"k").trace_id_of("CA1") == wanted
    assert DerivedIds(b"k").trace_id_of("CA2") != wanted
    assert DerivedIds().trace_id_of("CA1") != wanted


@pytest.mark.parametrize("call_sid", ["\ud800", "é", "x" * 10_000, "0"])
def test_any_text_is_a_call_sid(call_sid: str) -> None:
    """Also what no encoding has a word for."""
    assert 0 < DerivedIds().trace_id_of(call_sid) < 2**128


def test_an_id_is_announced_for_its_block_and_thread_alone() -> None:
    """Afterwards ids are random, and say so."""
    ids = DerivedIds()
    with ids.next_trace_id(5):
        assert ids.generate_trace_id() == 5
        assert not ids.is_trace_id_random()
        found: list[bool] = []
        from threading import Thread

        thread = Thread(target=lambda: found.append(ids.is_trace_id_random() and ids.generate_trace_id() != 5))
        thread.start()
        thread.join()
        assert found == [True]
    assert ids.is_trace_id_random()
    assert ids.generate_trace_id() != ids.generate_trace_id()
    with pytest.raises(KeyError), ids.next_trace_id(5):
        raise KeyError
    assert ids.is_trace_id_random()


def test_random_ids_are_never_zero_and_do_not_repeat() -> None:
    """Zero is what OpenTelemetry calls invalid."""
    ids = DerivedIds()
    assert all(0 < ids.generate_span_id() < 2**64 for _ in range(1000))
    assert len({ids.generate_trace_id() for _ in range(1000)}) == 1000


def test_the_random_flag_is_honest() -> None:
    """A derived trace id does not claim to be random; every other does."""
    opener = SpanOpener.on(TracerProvider())
    derived = open_in_call(opener, "CA1").get_span_context()
    drawn = opener.open("x", Context(), {}, 1).get_span_context()
    assert not derived.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert drawn.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert derived.trace_flags.sampled
    assert drawn.trace_flags.sampled


def test_other_tracers_of_the_same_provider_keep_their_ids() -> None:
    """Only ours derives, even while it does."""
    provider = TracerProvider()
    other = provider.get_tracer("other")
    before: Any = other.id_generator  # type: ignore[attr-defined]
    opener = SpanOpener.on(provider)
    with opener.ids.next_trace_id(5):
        theirs = other.start_span("x", Context()).get_span_context()
        later = provider.get_tracer("later").start_span("x", Context()).get_span_context()
    assert theirs.trace_id != 5
    assert later.trace_id != 5
    assert theirs.trace_flags & TraceFlags.RANDOM_TRACE_ID
    assert other.id_generator is before  # type: ignore[attr-defined]
    assert isinstance(provider.get_tracer(SCOPE + ".other").id_generator, type(before))  # type: ignore[attr-defined]


def test_an_opener_on_no_sdk_opens_what_does_not_record() -> None:
    """Without the SDK there is no id and no error."""
    span = open_in_call(SpanOpener.on(trace.NoOpTracerProvider()), "CA1")
    assert not span.is_recording()
    assert not span.get_span_context().is_valid


@pytest.mark.parametrize("key", ["", "secret"])
def test_two_processes_of_one_call_share_its_trace(key: str, tmp_path: Path) -> None:
    """With the same key; without a word between them."""
    code = """
    init()
    with cl.call("CA1") as opened:
        listen()
    tell(call=opened.trace_id, operation=latency_tracker.metrics[-1].trace_id)
    """
    one, two = (facts_of(run_python(code, tmp_path, {"LATENCY_TRACE_KEY": key})) for _ in range(2))
    assert one == two
    assert one["call"] == one["operation"] == trace.format_trace_id(DerivedIds(key.encode()).trace_id_of("CA1"))


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
        detach_abandoned(token, attached)
        return otel_context.get_value(KEY)

    assert contextvars.Context().run(foreign) == "foreign"
    assert contextvars.copy_context().run(detach_abandoned, token, attached) is None
    assert otel_context.get_value(KEY) == "abandoned"
    detach_abandoned(token, attached)
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
