"""A call's ids on the way to another service, and bound again there; over real HTTP."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from callbot_latency import (
    LatencyConfig,
    bound_from_headers,
    call,
    inject_headers,
    latency_tracker,
    measure_latency_context,
    propagate,
)
from callbot_latency.calls.turn import turn
from callbot_latency.runtime import lifecycle as runtime_module
from callbot_latency.tracing.context import bound
from tests.conftest import FinishedSpans, Start
from tests.support.scripted_http import Answer, Request, Server, scripted
from tests.support.subprocesses import facts_of, run_python

OURS = {"x-callbot-call-sid": "CA1", "x-callbot-stream-sid": "MZ1", "x-callbot-turn": "1"}


def only_ours(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-callbot")}


@pytest.fixture
def telling(start: Start) -> None:
    """Measuring is on, and `rag.internal` and 127.0.0.1 hear of calls."""
    start(propagate_to="rag.internal,127.0.0.1")


class Service:
    """Answers with the headers that it was sent; ``/to/<address>`` redirects there."""

    def __init__(self, server: Server) -> None:
        self.url = server.root
        self.same_by_another_name = server.root.replace("127.0.0.1", "localhost")

    @staticmethod
    def answer(request: Request) -> Answer:
        if request.path.startswith("/to/"):
            return Answer(307, headers={"Location": request.path.removeprefix("/to/")})
        return Answer(200, json.dumps(request.headers).encode())


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with scripted(Service.answer) as server:
        yield Service(server)


# -- going out ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("telling")
def test_the_ids_and_traceparent_go_to_a_listed_host() -> None:
    """Those of the bound call and turn; the trace context is that of the span that is current."""
    with call("CA1", stream_sid="MZ1"), turn(), measure_latency_context("rag_inference", "ask"):
        headers = inject_headers("http://rag.internal/search", {"accept": "text/plain"})
        current = trace.get_current_span().get_span_context()
    traceparent = headers.pop("traceparent")
    assert headers == {"accept": "text/plain", **OURS}
    assert traceparent.split("-")[1:3] == [format(current.trace_id, "032x"), format(current.span_id, "016x")]


@pytest.mark.usefixtures("telling")
def test_no_other_host_hears_of_the_call() -> None:
    """Nothing is put in, and what stands there already of ours is taken out, with the trace that came along."""
    with call("CA1"):
        assert inject_headers("http://api.openai.com/v1", {"a": "b"}) == {"a": "b"}
        brought = inject_headers("http://rag.internal/", {"A": "b"})
        assert inject_headers("http://api.openai.com/v1", {**brought}) == {"A": "b"}
        assert inject_headers("http://evil.org", {"X-Callbot-Turn": "1", "A": "b"}) == {"A": "b"}
        assert inject_headers("http://evil.org", {"traceparent": "mine"}) == {"traceparent": "mine"}


@pytest.mark.usefixtures("measuring")
def test_nobody_hears_of_calls_unless_listed() -> None:
    """The default."""
    with call("CA1"):
        assert inject_headers("http://rag.internal/", {}) == {}


def test_nothing_is_done_while_nothing_is_measured(start: Start) -> None:
    """Tracking off: headers stay as they are."""
    start(propagate_to="rag.internal", tracking_enabled=False)
    with call("CA1"):
        assert inject_headers("http://rag.internal/", {"a": "b"}) == {"a": "b"}
    with bound_from_headers(OURS) as arrived:
        assert bound() is None
        assert (arrived.call_sid, arrived.trace_id) == ("CA1", None)


@pytest.mark.usefixtures("telling")
def test_what_is_unknown_is_absent() -> None:
    """Outside of a call and of a span nothing is told; without a turn none; what is no header value stays."""
    assert inject_headers("http://rag.internal/", {}) == {}
    with call("CA1"):
        assert only_ours(inject_headers("http://rag.internal/", {})) == {"x-callbot-call-sid": "CA1"}
    with call("CA\r\nx-admin: 1", stream_sid="MZ1"):
        assert set(inject_headers("http://rag.internal/", {})) == {"traceparent"}


@pytest.mark.usefixtures("telling")
def test_headers_are_replaced_and_not_doubled() -> None:
    """Whatever case they were written in; those of another call do not stay."""
    stale = {"X-Callbot-Call-Sid": "CA0", "X-CALLBOT-TURN": "9", "TraceParent": "00-stale"}
    with call("CA1"):
        headers = inject_headers("http://rag.internal/", stale)
    assert only_ours(headers) == {"x-callbot-call-sid": "CA1"}
    assert [name for name in headers if name.lower() == "traceparent"] == ["traceparent"]


def told_to(headers: dict[str, str]) -> tuple[dict[str, str], bool]:
    return only_ours(headers), "traceparent" in headers


@pytest.mark.usefixtures("telling")
def test_httpx_clients_tell_every_hop(service: Service) -> None:
    """Sync and async; a redirect to a host that is not listed leaves without the call, and back with it."""
    away, back = service.same_by_another_name, f"{service.same_by_another_name}/to/{service.url}"

    async def ask(*paths: str) -> list[dict[str, str]]:
        async with propagate(httpx.AsyncClient(follow_redirects=True, timeout=60)) as client:
            return [(await client.get(service.url + path)).json() for path in paths]

    with call("CA1", stream_sid="MZ1"), turn(), propagate(httpx.Client(follow_redirects=True, timeout=60)) as client:
        assert propagate(client) is client
        paths = ["/", f"/to/{away}", f"/to/{back}"]
        sync, asynchronous = [client.get(service.url + path).json() for path in paths], asyncio.run(ask(*paths))
        for straight, elsewhere, returned in (sync, asynchronous):
            assert told_to(straight) == told_to(returned) == (OURS, True)
            assert told_to(elsewhere) == ({}, False)
        assert len(client.event_hooks["request"]) == 1


@pytest.mark.usefixtures("telling")
def test_a_requests_session_tells_every_hop(service: Service) -> None:
    """By its adapters, which see each request of a redirect."""
    away, back = service.same_by_another_name, f"{service.same_by_another_name}/to/{service.url}"
    with call("CA1", stream_sid="MZ1"), turn(), propagate(requests.Session()) as session:
        assert propagate(session) is session
        straight, elsewhere, returned = (
            session.get(service.url + path).json() for path in ("/", f"/to/{away}", f"/to/{back}")
        )
    assert told_to(straight) == told_to(returned) == (OURS, True)
    assert told_to(elsewhere) == ({}, False)
    assert session.get_adapter("http://x").max_retries.total == 0  # type: ignore[attr-defined]


def test_what_is_no_client_is_refused() -> None:
    """At once, with its type."""
    with pytest.raises(TypeError, match="^propagate: expected a client of httpx or a session of requests, got dict"):
        propagate({})


# -- arriving -------------------------------------------------------------------------------------------------------


def parent_of(span: Any) -> tuple[str, str] | None:
    return span.parent and (format(span.parent.trace_id, "032x"), format(span.parent.span_id, "016x"))


def test_one_line_binds_what_was_sent(spans: FinishedSpans) -> None:
    """Ids and turn on operation and metric; the part hangs beneath the span that sent."""
    with call("CA1", stream_sid="MZ1") as sender:
        sent = {**OURS, "x-callbot-turn": "7", "traceparent": traceparent()}
        sending = trace.get_current_span().get_span_context()
    with bound_from_headers(sent) as arrived:
        binding = bound()
        assert binding is not None
        assert (binding.call_sid, binding.stream_sid, binding.turn and binding.turn.number) == ("CA1", "MZ1", 7)
        with measure_latency_context("rag_inference", "search"):
            pass
    assert bound() is None
    assert arrived.trace_id == sender.trace_id
    _, operation, part = spans()
    assert part.name == "call part"
    assert parent_of(part) == (format(sending.trace_id, "032x"), format(sending.span_id, "016x"))
    assert operation.parent == part.context
    for span in (operation, part):
        assert {k: v for k, v in (span.attributes or {}).items() if k in ("call_sid", "stream_sid", "turn")} == {
            "call_sid": "CA1",
            "stream_sid": "MZ1",
            "turn": 7,
        }
    metric = latency_tracker.metrics[-1]
    assert (metric.call_sid, metric.stream_sid, metric.turn) == ("CA1", "MZ1", 7)


def traceparent() -> str:
    current = trace.get_current_span().get_span_context()
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags & 1:02x}"


FOREIGN = f"00-{'a' * 32}-{'b' * 16}-01"


def test_without_traceparent_the_part_hangs_beneath_the_root(spans: FinishedSpans) -> None:
    """The ids alone are enough; a traceparent of another trace, such as a gateway's own, is linked."""
    with bound_from_headers({"x-callbot-call-sid": "CA1"}), call("CA2"):
        pass
    with bound_from_headers({"x-callbot-call-sid": "CA1", "traceparent": FOREIGN}):
        pass
    with call("CA1"):
        pass
    _, first, second, root = spans()
    assert parent_of(first) == parent_of(second)
    assert first.parent is not None
    assert first.parent.span_id == root.context.span_id
    assert [format(link.context.span_id, "016x") for link in second.links] == ["b" * 16]


def test_an_instrumented_servers_span_is_the_parent(spans: FinishedSpans) -> None:
    """Where it took the call's trace over from traceparent; one of another trace is linked."""
    running: Any = runtime_module._runtime
    tracer = running.providers.tracers.get_tracer("web")
    with call("CA1"):
        sent = {"x-callbot-call-sid": "CA1", "traceparent": traceparent()}
        with tracer.start_as_current_span("POST /search"), bound_from_headers(sent):
            pass
    with TracerProvider().get_tracer("web").start_as_current_span("POST /search"):
        with bound_from_headers({"x-callbot-call-sid": "CA1"}):
            pass
        with bound_from_headers(sent):
            pass
    part, server, root, linked, sent_there = spans()
    assert part.parent == server.context
    assert linked.links
    assert linked.parent is not None
    assert sent_there.parent is not None
    assert linked.parent.span_id == sent_there.parent.span_id == root.context.span_id


def test_traceparent_alone_is_honoured_where_no_span_is_current(spans: FinishedSpans) -> None:
    """No call, but the sender's trace; nearer than that is the span of an instrumented server."""
    with bound_from_headers({"traceparent": FOREIGN}) as arrived, measure_latency_context("rag_inference", "search"):
        assert bound() is None
        assert arrived.trace_id is None
    with (
        TracerProvider().get_tracer("web").start_as_current_span("POST /search") as server,
        bound_from_headers({"traceparent": FOREIGN}),
        measure_latency_context("rag_inference", "search"),
    ):
        pass
    alone, beneath = spans()
    assert parent_of(alone) == ("a" * 32, "b" * 16)
    assert beneath.parent == server.get_span_context()


@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_senders_sampling_is_taken_over(flag: str, spans: FinishedSpans) -> None:
    """What it did not sample is not sampled here; it is measured all the same."""
    with call("CA1"):
        sent = {"x-callbot-call-sid": "CA1", "traceparent": traceparent()[:-2] + flag}
    with bound_from_headers(sent), measure_latency_context("rag_inference", "search"):
        pass
    assert [span.name for span in spans()][1:] == ([] if flag == "00" else ["rag_inference search", "call part"])
    assert latency_tracker.metrics[-1].call_sid == "CA1"


@pytest.mark.parametrize("wrong", ["", "00", "00-x-y-z", f"00-{'0' * 32}-{'0' * 16}-01", "ff-" + FOREIGN[3:], "é\r\n"])
def test_a_strangers_headers_bind_nothing(wrong: str, spans: FinishedSpans) -> None:
    """Malformed ids and trace context are absent, and no error."""
    with (
        bound_from_headers({"x-callbot-call-sid": wrong + " ", "traceparent": wrong, "tracestate": wrong}),
        measure_latency_context("rag_inference", "search"),
    ):
        assert bound() is None
    (operation,) = spans()
    assert operation.parent is None


@pytest.mark.parametrize("wrong", [None, 5, "x-callbot-call-sid: CA1", b"x"])
def test_what_are_no_headers_is_said_at_once(wrong: Any) -> None:
    """A mistake of the program, and not of a stranger."""
    with pytest.raises(TypeError, match="^headers: expected a mapping or a list of pairs, got"):
        bound_from_headers(wrong)


def test_async_with_exceptions_and_again(spans: FinishedSpans) -> None:
    """An exception marks the part and goes on; one object may be entered inside of itself; nothing stays bound."""

    async def main() -> None:
        arrived = bound_from_headers(OURS)
        with pytest.raises(KeyError):
            async with arrived, arrived:
                raise KeyError("k")
        assert bound() is None

    asyncio.run(main())
    assert [span.status.is_ok for span in spans()] == [False, False]


def test_a_handler_that_is_broken_off_leaves_nothing_bound(measuring: LatencyConfig) -> None:
    """Dropped in another context: neither keeps the call, and nothing is logged."""

    async def handler() -> Any:
        with bound_from_headers({**OURS, "traceparent": FOREIGN}):
            yield 1

    async def main() -> None:
        running = handler()
        await asyncio.create_task(anext(running))
        assert bound() is None
        with call("CA2"):
            await running.aclose()
            binding = bound()
            assert binding is not None
            assert binding.call_sid == "CA2"

    asyncio.run(main())


@pytest.mark.real_time
def test_before_init_nothing_is_bound_and_one_line_says_why(tmp_path: Any) -> None:
    """As everywhere."""
    done = run_python(
        """
with cl.bound_from_headers({"x-callbot-call-sid": "CA1"}) as arrived:
    tell(headers=cl.inject_headers("http://rag.internal", {}), bound=arrived.trace_id)
""",
        tmp_path,
    )
    assert facts_of(done) == {"headers": {}, "bound": None}
    assert "call callbot_latency.init() once" in done.stderr
