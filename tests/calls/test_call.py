"""The call that the running code works for."""

import asyncio
import contextvars
import functools
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from callbot_latency import (
    LatencyConfig,
    OperationType,
    bind,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
)
from callbot_latency.tracing.context import Binding, bound
from tests.conftest import FinishedSpans, Start

STT = OperationType.STT


@measure_latency(STT)
def listen() -> None: ...


@measure_latency(STT)
async def alisten() -> None:
    await asyncio.sleep(0)


def last() -> Any:
    return latency_tracker.metrics[-1]


def ids() -> tuple[str | None, str | None]:
    return last().call_sid, last().stream_sid


# -- which id -------------------------------------------------------------------------------------------------------


class Session:
    def __init__(self, call_sid: Any = None, stream_sid: Any = None) -> None:
        self.call_sid = call_sid
        self.stream_sid = stream_sid


class Bot:
    def __init__(self, session: Any = None) -> None:
        self.session = session

    @measure_latency(STT, call_sid_attr="session.call_sid", stream_sid_attr="session.stream_sid")
    def listen(self) -> None: ...


def test_ids_are_read_along_a_dotted_path(measuring: LatencyConfig) -> None:
    """From the first argument, at each run."""
    bot = Bot(Session("CA1", "MZ1"))
    bot.listen()
    assert ids() == ("CA1", "MZ1")
    bot.session = Session("CA2", "MZ2")
    bot.listen()
    assert ids() == ("CA2", "MZ2")


@pytest.mark.parametrize("session", [None, Session(), Session("", ""), object()])
def test_what_is_missing_none_or_empty_falls_through(session: Any, measuring: LatencyConfig) -> None:
    """To the binding; outside of a call to nothing."""
    with call("CA9", stream_sid="MZ9"):
        Bot(session).listen()
    assert ids() == ("CA9", "MZ9")
    Bot(session).listen()
    assert ids() == (None, None)


def test_an_attribute_goes_before_the_binding(measuring: LatencyConfig) -> None:
    """An explicit id goes before both; another call's operation does not take this call's stream."""
    with call("CA9", stream_sid="MZ9"):
        Bot(Session("CA1", "MZ1")).listen()
        assert ids() == ("CA1", "MZ1")
        Bot(Session("CA1")).listen()
        assert ids() == ("CA1", None)
        Bot(Session(None, "MZ1")).listen()
        assert ids() == ("CA9", "MZ1")
        Bot(Session("CA9")).listen()
        assert ids() == ("CA9", "MZ9")
        with measure_latency_context(STT, "x", call_sid="CA2"):
            pass
        assert ids() == ("CA2", None)
        with measure_latency_context(STT, "x", stream_sid="MZ2"):
            pass
        assert ids() == ("CA9", "MZ2")


def test_the_ids_of_a_bound_method_are_those_of_its_object(measuring: LatencyConfig) -> None:
    """Not those of what it is called with; also within a partial."""

    class Session:
        def __init__(self, call_sid: str) -> None:
            self.call_sid = call_sid

        def transfer(self, to: "Session") -> None:
            pass

    ours, theirs = Session("CA-ours"), Session("CA-theirs")
    measured = measure_latency("salesforce_api", call_sid_attr="call_sid")
    measured(ours.transfer)(theirs)
    measured(functools.partial(Session.transfer, ours))(theirs)
    assert [metric.call_sid for metric in latency_tracker.metrics] == ["CA-ours", "CA-ours"]


def test_an_id_of_another_type_becomes_its_text(measuring: LatencyConfig) -> None:
    """A metric's ids are strings."""
    Bot(Session(12, 34)).listen()
    assert ids() == ("12", "34")


def test_ids_of_a_function_and_a_classmethod(measuring: LatencyConfig) -> None:
    """The first argument is the owner, whatever it is; without one there is none."""

    @measure_latency(STT, call_sid_attr="call_sid")
    def handle(session: Any = None) -> None: ...

    class Kind:
        call_sid = "CA5"

        @measure_latency(STT, call_sid_attr="call_sid")
        @classmethod
        def handle(cls) -> None: ...

    handle(Session("CA1"))
    Kind.handle()
    handle()
    handle(session=Session("CA1"))
    assert [metric.call_sid for metric in latency_tracker.metrics] == ["CA1", "CA5", None, None]


def test_unbound_is_absent(spans: FinishedSpans) -> None:
    """No id on span or metric outside of a call, before it and after it."""
    listen()
    with call("CA1", stream_sid="MZ1"):
        listen()
    listen()
    assert [metric.call_sid for metric in latency_tracker.metrics] == [None, "CA1", None]
    for span in spans():
        if span.name != "call":
            expected = {"call_sid", "stream_sid"} if span.parent else set()
            assert {"call_sid", "stream_sid"} & set(span.attributes or {}) == expected


# -- the call's span ------------------------------------------------------------------------------------------------


def test_the_calls_span(spans: FinishedSpans) -> None:
    """A root named `call`, with its ids and metadata; operations are its children; it is no operation itself."""
    with call("CA1", stream_sid="MZ1", metadata={"queue": "sales", "none": None}) as opened:
        listen()
    operation, root = spans()
    assert root.name == "call"
    assert root.parent is None
    assert not root.links
    assert dict(root.attributes or {}) == {"call_sid": "CA1", "stream_sid": "MZ1", "metadata.queue": "sales"}
    assert operation.parent is not None
    assert operation.parent.span_id == root.context.span_id
    assert opened.trace_id == trace.format_trace_id(root.context.trace_id) == last().trace_id
    assert len(latency_tracker.metrics) == 1


def test_every_run_of_a_call_is_in_one_trace(spans: FinishedSpans) -> None:
    """The trace id is that of the call_sid, also where `call` is opened again, and for operations outside of it."""
    for _ in range(2):
        with call("CA1"):
            listen()
    with measure_latency_context(STT, "elsewhere", call_sid="CA1"):
        pass
    with call("CA2"):
        listen()
    traces = [span.context.trace_id for span in spans()]
    assert len(set(traces[:5])) == 1
    assert len(set(traces[5:])) == 1
    assert traces[0] != traces[5]


def test_the_same_call_again_inside_itself_is_a_child(spans: FinishedSpans) -> None:
    """Nesting makes no second root."""
    with call("CA1"), call("CA1", stream_sid="MZ1"):
        listen()
    operation, inner, outer = spans()
    assert outer.parent is None
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert operation.context.trace_id == outer.context.trace_id
    assert ids() == ("CA1", "MZ1")


def test_another_call_inside_of_one_is_a_root_that_is_linked(spans: FinishedSpans) -> None:
    """A transfer: its own trace, linked to where it came from; afterwards the outer call is bound again."""
    with call("CA1", stream_sid="MZ1"):
        with call("CA2"):
            listen()
            assert ids() == ("CA2", None)
        listen()
        assert ids() == ("CA1", "MZ1")
    _, inner, _, outer = spans()
    assert inner.parent is None
    assert [link.context.span_id for link in inner.links] == [outer.context.span_id]
    assert inner.context.trace_id != outer.context.trace_id


def test_a_web_servers_span_is_linked_and_stays_what_it_is(spans: FinishedSpans) -> None:
    """The call's trace is not the request's; afterwards the request's span is current again."""
    tracer = TracerProvider().get_tracer("web")
    with tracer.start_as_current_span("GET /stream") as request:
        with call("CA1"):
            listen()
        assert trace.get_current_span() is request
    _, root = spans()
    assert root.parent is None
    assert [link.context for link in root.links] == [request.get_span_context()]
    assert root.context.trace_id != request.get_span_context().trace_id


def test_an_operation_with_its_own_call_sid_keeps_the_request_as_its_parent(spans: FinishedSpans) -> None:
    """Without `call()`, an operation beneath the web server's span stays there; alone, it hangs beneath the root."""
    tracer = TracerProvider().get_tracer("web")
    with (
        tracer.start_as_current_span("GET /stream") as request,
        measure_latency_context(STT, "beneath", call_sid="CA1"),
    ):
        pass
    with measure_latency_context(STT, "alone", call_sid="CA1"):
        pass
    with call("CA1"):
        pass
    beneath, alone, root = spans()
    assert beneath.context.trace_id == request.get_span_context().trace_id
    assert root.parent is None
    assert alone.parent is not None
    assert alone.parent.is_remote
    assert (alone.parent.trace_id, alone.parent.span_id) == (root.context.trace_id, root.context.span_id)


def test_who_joins_hangs_beneath_the_root_of_another_process(spans: FinishedSpans) -> None:
    """Before the root is open or after it is over: a part, with its own ids and metadata, whose parent is the root."""
    with call("CA1", joins=True, metadata={"form": "voice"}) as before:
        listen()
    with call("CA1") as owned:
        pass
    with call("CA1", joins=True):
        listen()
    operation, part, root, _, after = spans()
    assert [part.name, root.name, after.name] == ["call part", "call", "call part"]
    assert root.parent is None
    assert operation.parent == part.context
    for span in (part, after):
        assert span.parent is not None
        assert span.parent.is_remote
        assert (span.parent.trace_id, span.parent.span_id) == (root.context.trace_id, root.context.span_id)
    assert dict(part.attributes or {}) == {"call_sid": "CA1", "metadata.form": "voice"}
    assert before.trace_id == owned.trace_id


def test_a_process_opens_the_root_of_a_call_once(spans: FinishedSpans) -> None:
    """Two streams of a call, one after the other or at the same time: no two spans have the root's id."""
    with call("CA1", stream_sid="MZ1"):
        pass
    barrier = threading.Barrier(8)

    def stream(number: int) -> None:
        barrier.wait()
        with call("CA1", stream_sid=f"MZ{number}"):
            listen()
        with call("CA2"):
            barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stream, range(8)))
    found = spans()
    assert len({span.context.span_id for span in found}) == len(found)
    assert sorted(span.name for span in found if span.parent is None) == ["call", "call"]
    assert [span.name for span in found].count("call part") == 8 + 7


def test_who_joins_from_a_web_request_links_it(spans: FinishedSpans) -> None:
    """A webhook worker behind an instrumented server: its part is in the call's trace, and leads to the request."""
    tracer = TracerProvider().get_tracer("web")
    with tracer.start_as_current_span("POST /voice") as request, call("CA1", joins=True):
        listen()
    _, part = spans()
    assert part.parent is not None
    assert part.parent.trace_id != request.get_span_context().trace_id
    assert [link.context for link in part.links] == [request.get_span_context()]


def test_an_exception_marks_the_call_and_goes_on(spans: FinishedSpans) -> None:
    """The call's span has the scrubbed event; the exception is itself."""
    error = ValueError("call +33612345678")
    with pytest.raises(ValueError) as raised, call("CA1"):
        raise error
    assert raised.value is error
    (root,) = spans()
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == "call [phone]"
    assert len(root.events) == 1
    assert bound() is None


def test_async_with(spans: FinishedSpans) -> None:
    """`async with` is the same."""

    async def main() -> None:
        async with call("CA1", stream_sid="MZ1") as opened:
            await alisten()
            assert opened.call_sid == "CA1"
        assert bound() is None

    asyncio.run(main())
    assert ids() == ("CA1", "MZ1")
    assert [span.name for span in spans()] == ["speech_to_text alisten", "call"]


def test_the_calls_end_is_its_start_plus_its_duration(spans: FinishedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that jumps changes nothing."""
    monotonic_ns, wall_ns = iter([1_000, 5_000]), iter([10**18, 5])
    with monkeypatch.context() as patch:
        patch.setattr("callbot_latency.calls.call.time.perf_counter_ns", lambda: next(monotonic_ns))
        patch.setattr("callbot_latency.calls.call.time.time_ns", lambda: next(wall_ns))
        with call("CA1"):
            pass
    (root,) = spans()
    assert (root.start_time, root.end_time) == (10**18, 10**18 + 4_000)


@pytest.mark.parametrize(("wrong", "error"), [(None, TypeError), (5, TypeError), ("", ValueError)])
def test_a_call_needs_its_sid(wrong: Any, error: type[Exception]) -> None:
    """One error at once, whether or not measuring is on."""
    with pytest.raises(error, match="call_sid: expected a string such as 'CA...'"):
        call(wrong)


@pytest.mark.parametrize("more", [{"stream_sid": 5}, {"stream_sid": b"MZ1"}, {"metadata": ["queue"]}, {"metadata": 5}])
def test_a_wrong_fact_of_a_call_is_named(more: Any) -> None:
    """At once, and not when the call is over."""
    with pytest.raises(TypeError, match=f"^{next(iter(more))}: expected a "):
        call("CA1", **more)


def test_one_call_object_may_be_entered_inside_of_itself(spans: FinishedSpans) -> None:
    """Two spans, beneath each other, and nothing stays bound."""
    bound_call = call("CA1")
    with bound_call, bound_call:
        assert bound() == Binding("CA1")
    assert bound() is None
    inner, outer = spans()
    assert inner.parent == outer.get_span_context()


def test_the_trace_id_needs_an_open_span(measuring: LatencyConfig) -> None:
    """Before it, there is none."""
    opened = call("CA1")
    assert opened.trace_id is None
    with opened:
        assert opened.trace_id is not None


def test_a_handler_that_is_broken_off_leaves_nothing_bound(measuring: LatencyConfig) -> None:
    """A stream whose body is in `call()` and is dropped in another context: neither context keeps the call."""

    async def handler() -> AsyncIterator[int]:
        with call("CA1"):
            yield 1

    async def main() -> None:
        running: Any = handler()
        await asyncio.create_task(anext(running))
        assert bound() is None
        with call("CA2"):
            await running.aclose()
            listen()
        listen()

    asyncio.run(main())
    assert [metric.call_sid for metric in latency_tracker.metrics] == ["CA2", None]


# -- tasks and threads ----------------------------------------------------------------------------------------------


def test_tasks_inherit_and_keep_their_call(measuring: LatencyConfig) -> None:
    """A task started within a call stays bound after the call's end; its sibling outside never is."""

    async def main() -> None:
        gone_on = asyncio.Event()

        async def background() -> None:
            await gone_on.wait()
            await alisten()

        with call("CA1"):
            inside = asyncio.create_task(background())
        outside = asyncio.create_task(background())
        gone_on.set()
        await inside
        assert "CA1" in [metric.call_sid for metric in latency_tracker.metrics]
        await outside

    asyncio.run(main())
    assert sorted(str(metric.call_sid) for metric in latency_tracker.metrics) == ["CA1", "None"]


def test_bind_carries_the_call_into_a_thread(spans: FinishedSpans) -> None:
    """Ids and parent; the thread itself is left unbound."""
    seen: list[Any] = []
    with call("CA1", stream_sid="MZ1"):
        thread = threading.Thread(target=bind(lambda: (listen(), seen.append(bound()))))
        unbound = threading.Thread(target=lambda: (listen(), seen.append(bound())))
        for started in (thread, unbound):
            started.start()
            started.join()
    assert [metric.call_sid for metric in latency_tracker.metrics] == ["CA1", None]
    assert seen[0].stream_sid == "MZ1"
    assert seen[1] is None
    first, second, root = spans()
    assert first.parent is not None
    assert first.parent.span_id == root.context.span_id
    assert second.parent is None


def test_bind_keeps_arguments_results_and_exceptions(measuring: LatencyConfig) -> None:
    """And may run many times at once."""

    def work(a: int, *, b: int) -> tuple[int, str | None]:
        if a < 0:
            raise KeyError(a)
        binding = bound()
        return a + b, binding.call_sid if binding else None

    with call("CA1"):
        carried = bind(work)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(carried, n, b=1) for n in range(50)]
        assert [result.result() for result in results] == [(n + 1, "CA1") for n in range(50)]
        with pytest.raises(KeyError):
            pool.submit(carried, -1, b=1).result()
        assert pool.submit(bound).result() is None


def test_bind_carries_other_context_variables_too() -> None:
    """It is the whole context, as `asyncio.to_thread` has it; what a run sets stays in that run."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")

    @bind
    def work() -> str:
        before = variable.get()
        variable.set("changed")
        return before

    with ThreadPoolExecutor(1) as pool:
        assert [pool.submit(work).result() for _ in range(2)] == ["mine", "mine"]
    assert variable.get() == "mine"


@pytest.mark.promise("no-mixed-calls")
def test_two_hundred_calls_at_once_never_mix_their_ids(measuring: LatencyConfig) -> None:
    """Tasks, `to_thread` and bound executor threads, interleaved at random: each metric and span has its call's ids."""
    calls, turns = 200, 3
    traces: dict[str, str | None] = {}

    def work(kind: str, sid: str) -> None:
        with measure_latency_context(STT, f"{kind}_{sid}"):
            pass

    async def one(n: int, pool: ThreadPoolExecutor) -> None:
        loop, rng, sid = asyncio.get_running_loop(), random.Random(n), f"CA{n}"
        async with call(sid, stream_sid=f"MZ{n}") as opened:
            traces[sid] = opened.trace_id
            for _ in range(turns):
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                async with measure_latency_context(STT, f"task_{sid}"):
                    await asyncio.sleep(0)
                await asyncio.gather(
                    asyncio.to_thread(work, "to_thread", sid),
                    loop.run_in_executor(pool, bind(work), "executor", sid),
                )
            await loop.run_in_executor(pool, work, "unbound", sid)

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*(one(n, pool) for n in range(calls)))

    asyncio.run(main())
    metrics = latency_tracker.metrics
    assert len(metrics) == calls * (3 * turns + 1)
    for metric in metrics:
        kind, _, sid = metric.operation_name.rpartition("_")
        if kind == "unbound":
            assert (metric.call_sid, metric.stream_sid) == (None, None)
            assert metric.trace_id not in traces.values()
        else:
            assert (metric.call_sid, metric.stream_sid) == (sid, sid.replace("CA", "MZ"))
            assert metric.trace_id == traces[sid]
    assert len(set(traces.values())) == calls


def test_a_key_changes_every_trace_id(start: Start) -> None:
    """Who does not know LATENCY_TRACE_KEY cannot compute the trace of a call_sid."""
    from callbot_latency import shutdown

    seen: list[str | None] = []
    for key in ("", "k", "k", "other", "x" * 65, "x" * 66):
        start(trace_key=key)
        with call("CA1") as opened:
            seen.append(opened.trace_id)
        shutdown()
    assert seen[1] == seen[2]
    assert len(set(seen)) == 5


def test_binding_what_is_awaited_or_iterated_is_said_at_once() -> None:
    """It would carry nothing: such a function runs in the context of whoever awaits it."""

    async def later() -> None: ...
    def items() -> Iterator[int]:
        yield 1

    for function in (later, items):
        with pytest.raises(TypeError, match="bind: expected a plain function"):
            bind(function)


def test_binding_what_cannot_be_called_is_said_at_once() -> None:
    """Not later, in the thread that was to run it."""
    with pytest.raises(TypeError, match="^bind: expected a function, got NoneType"):
        bind(None)  # type: ignore[arg-type]
