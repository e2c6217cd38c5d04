"""The real httpx against a server: requests to the RAG API are measured once, and no other is."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import httpx
import pytest
from openai import OpenAI

from callbot_latency import LatencyConfig, OperationStatus, OperationType, instrument, latency_tracker, uninstrument
from callbot_latency.instrumentation.rag import RagInstrumentor
from tests.conftest import FinishedSpans
from tests.support.noted import Noted
from tests.support.scripted_http import Server, streamed, whole

QUESTION = "what-does-jeanne-owe"
STREAM = streamed((0.04, b"first"), (0.05, b"second"), head_after_s=0.02)


@pytest.fixture
def wrapped(spans: FinishedSpans, server: Server) -> FinishedSpans:
    """Measuring is on, and requests beneath /rag are measured."""
    instrument(rag_url=f"{server.url}/rag/")
    return spans


def only() -> Any:
    (metric,) = latency_tracker.metrics
    return metric


def test_a_request_is_one_measurement(wrapped: FinishedSpans, server: Server) -> None:
    """Its type, name, method and status; nothing of its path, query, or answer."""
    server.answers(whole(b'{"answer": "12 euros"}', after_s=0.05))
    with httpx.Client(headers={"Authorization": "Bearer verysecret"}, timeout=60) as client:
        began_s = perf_counter()
        answer = client.post(f"{server.url}/rag/{QUESTION}", params={"q": QUESTION}, json={"q": QUESTION})
        took_ms = (perf_counter() - began_s) * 1_000
    assert answer.json() == {"answer": "12 euros"}
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.RAG, "request")
    assert metric.metadata == {"method": "POST", "http_status": 200}
    assert metric.provider is None
    assert 50 <= metric.latency_ms <= took_ms
    (span,) = wrapped()
    for secret in ("jeanne", "verysecret", "euros", server.url):
        assert secret not in span.to_json()


def test_other_urls_are_not_measured(wrapped: FinishedSpans, server: Server) -> None:
    """Neither another path, nor one that only begins with the same letters, nor another host or port."""
    server.answers(whole(b"{}"))
    with httpx.Client(timeout=60) as client:
        client.get(f"{server.url}/health")
        client.get(f"{server.url}/ragtime")
        client.get(f"{server.url.replace('127.0.0.1', 'localhost')}/rag/search")
    assert not latency_tracker.metrics


def test_several_urls_have_names(measuring: LatencyConfig, server: Server) -> None:
    """The most particular one wins."""
    instrument(rag_url={"request": server.url, "search": f"{server.url}/search"})
    server.answers(whole(b"{}"))
    with httpx.Client(timeout=60) as client:
        client.get(f"{server.url}/search")
        client.get(f"{server.url}/search/deep")
        client.get(f"{server.url}/ingest")
    assert [metric.operation_name for metric in latency_tracker.metrics] == ["search", "search", "request"]


@pytest.mark.parametrize("name", ["", 7, None])
def test_a_name_that_is_none_is_one_clear_error(name: Any, measuring: LatencyConfig) -> None:
    """However it is instrumented; nothing is wrapped then."""
    before = vars(httpx.Client)["send"]
    for begin in (instrument, RagInstrumentor().instrument):
        with pytest.raises(ValueError, match="^rag_url: expected a non-empty name for each URL$"):
            begin(rag_url={name: "http://rag.internal/"})
    assert vars(httpx.Client)["send"] is before


def test_a_name_is_well_formed(measuring: LatencyConfig, server: Server) -> None:
    """Half of a surrogate pair would cost the whole batch that it is exported in."""
    instrument(rag_url={"bad\udc80": server.url})
    server.answers(whole(b"{}"))
    with httpx.Client(timeout=60) as client:
        client.get(server.url)
    assert only().operation_name == "bad\ufffd"


def test_a_status_that_is_no_success_is_an_error(wrapped: FinishedSpans, server: Server) -> None:
    """Whether or not the caller raises for it; the caller gets the response as it was."""
    server.answers(whole(b'{"error": "jeanne"}', status=503))
    with httpx.Client(timeout=60) as client:
        answer = client.get(f"{server.url}/rag/search")
        with client.stream("GET", f"{server.url}/rag/search") as streamed:
            assert streamed.read() == b'{"error": "jeanne"}'
    assert answer.status_code == 503
    assert [(m.status, m.error_message) for m in latency_tracker.metrics] == [(OperationStatus.ERROR, "HTTP 503")] * 2


def test_a_stream_is_timed_to_its_first_byte_and_its_end(
    wrapped: FinishedSpans, server: Server, reads_s: list[float]
) -> None:
    """However the body is read."""
    server.answers(STREAM)
    with httpx.Client(timeout=60) as client:
        for read in (httpx.Response.iter_bytes, httpx.Response.iter_text, httpx.Response.iter_raw):
            server.sent_s.clear()
            noted = Noted()
            with client.stream("GET", f"{server.url}/rag/search") as answer:
                assert len(list(noted.each(read(answer)))) == 2
            metric = latency_tracker.metrics[-1]
            assert metric.status is OperationStatus.SUCCESS
            assert 60 <= metric.time_to_first_output_ms <= noted.until_ms(0)
            least_ms, most_ms = noted.largest_gap_ms(server.sent_s, reads_s)
            assert least_ms <= metric.largest_gap_ms <= most_ms
            assert 110 <= metric.latency_ms <= noted.until_ms(-1)
            assert (metric.items, metric.bytes, metric.audio_ms) == (2, 11, None)
    assert len(latency_tracker.metrics) == 3
    assert [span.attributes["bytes"] for span in wrapped() if span.attributes] == [11, 11, 11]


def test_the_async_client_is_the_same(wrapped: FinishedSpans, server: Server) -> None:
    """At once and as a stream."""
    server.answers(whole(b"{}", after_s=0.05), STREAM)

    async def main() -> Noted:
        async with httpx.AsyncClient(timeout=60) as client:
            await client.get(f"{server.url}/rag/search")
            noted = Noted()
            async with client.stream("GET", f"{server.url}/rag/search") as answer:
                assert len([piece async for piece in noted.each_later(answer.aiter_bytes())]) == 2
            return noted

    noted = asyncio.run(main())
    first, second = latency_tracker.metrics
    assert first.latency_ms >= 50
    assert second.time_to_first_output_ms is not None
    assert 60 <= second.time_to_first_output_ms <= noted.until_ms(0)
    assert second.status is OperationStatus.SUCCESS


def test_a_stream_that_is_left_is_cancelled(wrapped: FinishedSpans, server: Server) -> None:
    """Once."""
    server.answers(STREAM)
    with httpx.Client(timeout=60) as client, client.stream("GET", f"{server.url}/rag/search") as answer:
        next(answer.iter_bytes())
    assert only().status is OperationStatus.CANCELLED


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_timeout_is_a_timeout(wrapped: FinishedSpans, server: Server, is_streamed: bool) -> None:
    """Before the answer and in the middle of its body; the exception is httpx's own."""
    server.answers(streamed(*(STREAM.pieces or ()), hangs=True) if is_streamed else streamed(head_after_s=20))
    with httpx.Client(timeout=0.15) as client, pytest.raises(httpx.ReadTimeout):
        client.get(f"{server.url}/rag/search")
    assert (only().status, only().error_message) == (OperationStatus.TIMEOUT, "ReadTimeout")


def test_a_server_that_is_away_is_an_error(wrapped: FinishedSpans, measuring: LatencyConfig) -> None:
    """The exception reaches the caller."""
    instrument(rag_url="http://127.0.0.1:9/")
    with httpx.Client(timeout=60) as client, pytest.raises(httpx.ConnectError):
        client.get("http://127.0.0.1:9/search")
    assert (only().status, only().error_message) == (OperationStatus.ERROR, "ConnectError")


def test_a_client_beneath_another_counts_once(server: Server, start: Callable[..., LatencyConfig]) -> None:
    """An OpenAI client that speaks to the RAG API over httpx is one measurement: its own."""
    start()
    instrument("openai", rag_url=server.url)
    server.answers(whole(b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}'))
    with OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        client.chat.completions.create(model="m", messages=[])
    assert only().operation_name == "chat.completions.create"


def test_another_url_takes_the_place_of_the_last(wrapped: FinishedSpans, server: Server) -> None:
    """And `uninstrument()` restores the very functions."""
    uninstrument()
    before = (vars(httpx.Client)["send"], vars(httpx.AsyncClient)["send"])
    instrument(rag_url=f"{server.url}/old")
    instrument(rag_url=f"{server.url}/new")
    server.answers(whole(b"{}"))
    with httpx.Client(timeout=60) as client:
        client.get(f"{server.url}/old")
        client.get(f"{server.url}/new")
    assert len(latency_tracker.metrics) == 1
    uninstrument("rag")
    assert (vars(httpx.Client)["send"], vars(httpx.AsyncClient)["send"]) == before
