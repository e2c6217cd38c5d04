"""The real `openai` client against a server that speaks its API: each call is measured once, and is as it was."""

import asyncio
import gc
import gzip
import io
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.resources.chat.completions import AsyncCompletions, Completions

from callbot_latency import (
    LatencyConfig,
    OperationStatus,
    OperationType,
    instrument,
    latency_tracker,
    measure_latency_context,
    uninstrument,
)
from tests.conftest import FinishedSpans
from tests.support.counted import counted
from tests.support.noted import Noted
from tests.support.scripted_http import Answer, Server, events, streamed, whole

KEY = "sk-verysecretkey1234567890"
PROMPT = "What does Jeanne Moreau owe us?"


def chunk(content: str | None, finish: str | None = None) -> str:
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [choice]}
    )


def chat_of(*pieces: tuple[float, str]) -> Answer:
    """An opening chunk without content, chunks with content after their delays, then the end."""
    return events((0, chunk("")), *((s, chunk(text)) for s, text in pieces), (0, chunk(None, "stop")), (0, "[DONE]"))


CHAT = chat_of((0.05, "Bon"), (0.03, "jour"), (0.06, " !"))
COMPLETION = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Bonjour"}}],
    }
).encode()
TRANSCRIPTION = json.dumps({"text": "Bonjour", "usage": {"type": "duration", "seconds": 3}}).encode()
ERROR = json.dumps(
    {"error": {"message": f"bad prompt: {PROMPT}", "type": "invalid_request_error", "code": "context_length_exceeded"}}
).encode()
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture
def aclient(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture
def wrapped(spans: FinishedSpans) -> FinishedSpans:
    """Measuring is on, and the client is wrapped."""
    instrument("openai")
    return spans


def only() -> Any:
    (metric,) = latency_tracker.metrics
    return metric


def talk(client: OpenAI) -> Stream[Any]:
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)


def text_of(stream: Any) -> str:
    return "".join(item.choices[0].delta.content or "" for item in stream)


# -- whole answers --------------------------------------------------------------------------------------------------


def test_a_transcription_is_one_measurement(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Its type, name, provider, model and the audio's length; the text is what it was."""
    server.answers(whole(TRANSCRIPTION, after_s=0.05))
    with client:
        began_s = perf_counter()
        answer = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", io.BytesIO(b"RIFF")))
        took_ms = (perf_counter() - began_s) * 1_000
    assert answer.text == "Bonjour"
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.STT, "transcriptions.create")
    assert (metric.provider, metric.metadata) == ("openai", {"model": "whisper-1"})
    assert metric.status is OperationStatus.SUCCESS
    assert 50 <= metric.latency_ms <= took_ms
    (span,) = wrapped()
    assert span.attributes is not None
    assert span.attributes["audio_ms"] == metric.audio_ms == 3000
    assert span.attributes["real_time_factor"] == metric.real_time_factor == metric.latency_ms / 3000


def test_an_async_transcription_is_one_measurement(
    wrapped: FinishedSpans, server: Server, aclient: AsyncOpenAI
) -> None:
    """The async client is the same."""
    server.answers(whole(TRANSCRIPTION, after_s=0.05))

    async def main() -> str:
        async with aclient:
            answer = await aclient.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
        return answer.text

    assert asyncio.run(main()) == "Bonjour"
    metric = only()
    assert (metric.operation_name, metric.metadata) == ("transcriptions.create", {"model": "whisper-1"})
    assert metric.latency_ms >= 50


def test_speech_is_measured_until_its_audio_is_there(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """With how many bytes came, and for PCM how long they last."""
    audio = bytes(48_000)
    server.answers(streamed((0.02, audio[:100]), (0.05, audio[100:]), content_type="audio/pcm"))
    with client:
        answer = client.audio.speech.create(model="tts-1", voice="alloy", input=PROMPT, response_format="pcm")
    assert answer.content == audio
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.TTS, "speech.create")
    assert metric.latency_ms >= 70
    (span,) = wrapped()
    assert span.attributes is not None
    assert (span.attributes["bytes"], span.attributes["audio_ms"]) == (metric.bytes, metric.audio_ms) == (48_000, 1000)
    assert metric.real_time_factor == metric.latency_ms / 1000


def test_a_completion_is_rag_inference(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """A chat completion that comes at once has no first output."""
    server.answers(whole(COMPLETION))
    with client:
        answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert answer.choices[0].message.content == "Bonjour"
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.RAG, "chat.completions.create")
    assert metric.time_to_first_output_ms is None


def test_a_parsed_completion_counts_once(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """`parse` is a call of its own."""
    server.answers(whole(COMPLETION))
    with client:
        client.chat.completions.parse(model="gpt-4o", messages=MESSAGES)
    assert only().operation_name == "chat.completions.parse"


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_chat_stream_is_timed_while_it_is_iterated(
    wrapped: FinishedSpans, server: Server, client: OpenAI, reads_s: list[float]
) -> None:
    """First content token, largest gap and items; the consumer's time is in the latency and not in `busy_ms`."""
    server.answers(CHAT)
    with client:
        noted = Noted()
        stream = talk(client)
        assert not latency_tracker.metrics
        said = ""
        for item in noted.each(stream):
            said += item.choices[0].delta.content or ""
            sleep(0.01 if item.choices[0].finish_reason else 0)
        sleep(0.05)
    assert said == "Bonjour !"
    metric = only()
    assert metric.operation_name == "chat.completions.create"
    assert metric.items == 5
    assert 50 <= metric.time_to_first_output_ms <= noted.until_ms(1)
    least_ms, most_ms = noted.largest_gap_ms(server.sent_s, reads_s)
    assert least_ms <= metric.largest_gap_ms <= most_ms
    assert 140 <= metric.latency_ms <= noted.until_ms(-1)
    (span,) = wrapped()
    assert span.attributes is not None
    assert span.attributes["busy_ms"] == metric.busy_ms
    assert metric.latency_ms - metric.busy_ms >= 9
    assert (metric.bytes, metric.audio_ms, metric.real_time_factor) == (None, None, None)


def test_an_async_chat_stream_is_timed_while_it_is_iterated(
    wrapped: FinishedSpans, server: Server, aclient: AsyncOpenAI
) -> None:
    """What is awaited first is iterated then, and is the AsyncStream that it was."""
    server.answers(CHAT)

    async def main() -> tuple[str, Noted]:
        async with aclient:
            noted = Noted()
            stream = await aclient.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            assert isinstance(stream, AsyncStream)
            return "".join([item.choices[0].delta.content or "" async for item in noted.each_later(stream)]), noted

    said, noted = asyncio.run(main())
    assert said == "Bonjour !"
    metric = only()
    assert metric.items == 5
    assert 50 <= metric.time_to_first_output_ms <= noted.until_ms(1)
    assert metric.latency_ms >= 140


def test_a_stream_keeps_its_type_and_methods(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """It is a Stream, has its response, may be read by next() and by for, and used in a with."""
    server.answers(CHAT)
    with client, talk(client) as stream:
        assert isinstance(stream, Stream)
        assert stream.response.status_code == 200
        first = next(stream)
        assert first.choices[0].delta.content == ""
        assert text_of(stream) == "Bonjour !"
    assert only().status is OperationStatus.SUCCESS


def end_by_close(stream: Any) -> None:
    next(stream)
    stream.close()


def end_by_with(stream: Any) -> None:
    with stream:
        next(stream)


def end_by_letting_go(stream: Any) -> None:
    next(stream)


@pytest.mark.parametrize("end", [end_by_close, end_by_with, end_by_letting_go])
def test_a_stream_that_is_broken_off_is_cancelled(
    wrapped: FinishedSpans, server: Server, client: OpenAI, end: Callable[[Any], None]
) -> None:
    """Closed, left, or let go: counted once, as cancelled."""
    server.answers(CHAT)
    with client:
        end(talk(client))
        gc.collect()
        assert only().status is OperationStatus.CANCELLED


def test_who_stops_at_the_finish_broke_nothing_off(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Reading up to `finish_reason` is a success; waiting for the garbage collector is not counted."""
    server.answers(CHAT)
    with client:
        began_s = perf_counter()
        stream = talk(client)
        while next(stream).choices[0].finish_reason is None:
            pass
        took_ms = (perf_counter() - began_s) * 1_000
        sleep(0.05)
        del stream
        gc.collect()
    metric = only()
    assert metric.status is OperationStatus.SUCCESS
    assert metric.latency_ms <= took_ms


def test_the_helper_that_accumulates_counts_once(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """`chat.completions.stream()` calls `create` itself."""
    server.answers(CHAT)
    with client, client.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == "Bonjour !"
    metric = only()
    assert (metric.items, metric.status) == (5, OperationStatus.SUCCESS)


def response_event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "sequence_number": 1, **fields})


RESPONSE: dict[str, Any] = {"id": "r1", "object": "response", "created_at": 1, "model": "gpt-4o", "output": []}
DELTA = response_event("response.output_text.delta", item_id="i", output_index=0, content_index=0, delta="Bon")


def test_a_response_stream_is_timed_to_its_first_text(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Events that announce something are no output."""
    created = response_event("response.created", response=RESPONSE)
    server.answers(events((0, created), (0.05, DELTA), (0.01, response_event("response.completed", response=RESPONSE))))
    with client:
        kinds = [event.type for event in client.responses.create(model="gpt-4o", input=PROMPT, stream=True)]
    assert kinds == ["response.created", "response.output_text.delta", "response.completed"]
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.RAG, "responses.create")
    assert metric.items == 3
    assert metric.time_to_first_output_ms >= 50


def test_a_response_that_fails_in_its_stream_is_an_error(
    wrapped: FinishedSpans, server: Server, client: OpenAI
) -> None:
    """Though no exception reaches the caller."""
    server.answers(events((0, DELTA), (0, response_event("response.failed", response=RESPONSE))))
    with client:
        assert len(list(client.responses.create(model="gpt-4o", input=PROMPT, stream=True))) == 2
    metric = only()
    assert (metric.status, metric.error_message) == (OperationStatus.ERROR, "response.failed")


def test_a_transcription_stream_is_timed_to_its_first_text(
    wrapped: FinishedSpans, server: Server, client: OpenAI
) -> None:
    """The first delta is the first output."""
    delta, done = ({"type": "transcript.text.delta", "delta": "Bon"}, {"type": "transcript.text.done", "text": "Bon"})
    server.answers(events((0.05, json.dumps(delta)), (0.02, json.dumps(done))))
    with client:
        noted = Noted()
        heard = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", b"RIFF"), stream=True)
        assert [event.type for event in noted.each(heard)] == ["transcript.text.delta", "transcript.text.done"]
    metric = only()
    assert (metric.operation_type, metric.items) == (OperationType.STT, 2)
    assert 50 <= metric.time_to_first_output_ms <= noted.until_ms(0)


SPEECH = streamed((0.04, bytes(4800)), (0.05, bytes(4800)), content_type="audio/pcm", head_after_s=0.02)


def test_streamed_speech_is_timed_to_its_first_byte(
    wrapped: FinishedSpans, server: Server, client: OpenAI, reads_s: list[float]
) -> None:
    """Time to first byte, largest gap, bytes and the audio's length, until the body is read."""
    server.answers(SPEECH)
    noted = Noted()
    with (
        client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=PROMPT, response_format="pcm"
        ) as answer,
    ):
        assert not latency_tracker.metrics
        assert sum(len(piece) for piece in noted.each(answer.iter_bytes())) == 9600
        assert len(latency_tracker.metrics) == 1
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.TTS, "speech.create")
    assert 60 <= metric.time_to_first_output_ms <= noted.until_ms(0)
    least_ms, most_ms = noted.largest_gap_ms(server.sent_s, reads_s)
    assert least_ms <= metric.largest_gap_ms <= most_ms
    assert metric.latency_ms >= 110
    assert metric.status is OperationStatus.SUCCESS
    (span,) = wrapped()
    assert span.attributes is not None
    assert (span.attributes["bytes"], span.attributes["audio_ms"]) == (metric.bytes, metric.audio_ms) == (9600, 200)
    assert span.attributes["real_time_factor"] == metric.real_time_factor == metric.busy_ms / 200
    assert metric.real_time_factor >= 0.5


def test_streamed_speech_of_the_async_client(wrapped: FinishedSpans, server: Server, aclient: AsyncOpenAI) -> None:
    """The async client is the same, chunks of a size included."""
    server.answers(SPEECH)
    noted = Noted()

    async def main() -> int:
        async with (
            aclient,
            aclient.audio.speech.with_streaming_response.create(
                model="tts-1", voice="alloy", input=PROMPT, response_format="pcm"
            ) as answer,
        ):
            return sum([len(piece) async for piece in noted.each_later(answer.iter_bytes(960))])

    assert asyncio.run(main()) == 9600
    metric = only()
    assert 60 <= metric.time_to_first_output_ms <= noted.until_ms(0)
    assert metric.latency_ms >= 110


SPOKEN = b64encode(bytes(4800)).decode()
EVENTS = events((0, json.dumps({"type": "speech.audio.delta", "audio": SPOKEN})))
PACKED = replace(whole(gzip.compress(bytes(9600))), headers={"Content-Type": "audio/pcm", "Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    ("answer", "stream_format", "whole_ms"),
    [(EVENTS, "sse", None), (PACKED, "audio", 200)],
    ids=["events", "packed"],
)
def test_bytes_that_are_not_samples_tell_no_length(
    wrapped: FinishedSpans,
    server: Server,
    client: OpenAI,
    answer: Answer,
    stream_format: Literal["sse", "audio"],
    whole_ms: float | None,
) -> None:
    """Events hold the audio as text, and a packed body has other bytes; one that came at once is unpacked already."""
    server.answers(answer)
    speech = client.audio.speech
    asked: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": PROMPT, "response_format": "pcm"}
    with client:
        at_once = speech.create(**asked, stream_format=stream_format)
        with speech.with_streaming_response.create(**asked, stream_format=stream_format) as streamed:
            assert b"".join(streamed.iter_bytes()) == at_once.content
    first, second = latency_tracker.metrics
    assert (first.audio_ms, first.bytes) == (whole_ms, len(at_once.content))
    assert (second.audio_ms, second.real_time_factor) == (None, None)
    assert second.bytes == sum(len(piece) for _, piece in answer.pieces)


def test_streamed_speech_may_be_read_at_once_or_left(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """read() is a success; leaving before the end is cancelled."""
    server.answers(SPEECH)
    speech = client.audio.speech.with_streaming_response
    with client:
        with speech.create(model="tts-1", voice="alloy", input=PROMPT) as answer:
            assert len(answer.read()) == 9600
        with speech.create(model="tts-1", voice="alloy", input=PROMPT) as answer:
            next(answer.iter_bytes())
    assert [metric.status for metric in latency_tracker.metrics] == [
        OperationStatus.SUCCESS,
        OperationStatus.CANCELLED,
    ]


def test_a_raw_response_counts_once(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Its body is there already."""
    server.answers(whole(COMPLETION))
    with client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
        assert raw.parse().choices[0].message.content == "Bonjour"
    assert only().status is OperationStatus.SUCCESS


# -- faults ---------------------------------------------------------------------------------------------------------


def test_an_error_reaches_the_caller_and_tells_no_content(
    wrapped: FinishedSpans, server: Server, client: OpenAI
) -> None:
    """The exception is the client's own; span and metric have its type and codes, not its text."""
    server.answers(whole(ERROR, status=400))
    with client, pytest.raises(openai.BadRequestError, match="Jeanne Moreau") as raised:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert raised.value.status_code == 400
    metric = only()
    assert metric.status is OperationStatus.ERROR
    assert metric.error_message == "BadRequestError (400, context_length_exceeded)"


@pytest.mark.promise("secrets")
def test_no_key_and_no_content_on_any_span(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Neither in attributes nor in events, after success, failure and a stream."""
    server.answers(whole(COMPLETION), whole(ERROR, status=401), CHAT)
    with client:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        text_of(talk(client))
    told = "".join(span.to_json() for span in wrapped()) + json.dumps([m.to_dict() for m in latency_tracker.metrics])
    assert len(latency_tracker.metrics) == 3
    for secret in (KEY, PROMPT, "Jeanne", "Bonjour", server.url):
        assert secret not in told


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_timeout_is_a_timeout(wrapped: FinishedSpans, server: Server, client: OpenAI, is_streamed: bool) -> None:
    """Before the answer and in the middle of its stream."""
    server.answers(streamed(*(CHAT.pieces or ())[:2], content_type="text/event-stream", hangs=True))
    with client, pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):  # of a stream the latter, before 3
        bounded = client.with_options(timeout=0.2)
        if is_streamed:
            text_of(talk(bounded))
        else:
            bounded.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert only().status is OperationStatus.TIMEOUT


def test_a_stream_that_breaks_off_is_an_error(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """With what came until then."""
    server.answers(streamed(*(CHAT.pieces or ())[:2], content_type="text/event-stream", breaks_off=True))
    with client, pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        text_of(talk(client))
    metric = only()
    assert (metric.status, metric.items) == (OperationStatus.ERROR, 2)


def test_a_cancelled_task_is_cancelled(wrapped: FinishedSpans, server: Server, aclient: AsyncOpenAI) -> None:
    """In the middle of a stream."""
    server.answers(streamed(*(CHAT.pieces or ())[:2], content_type="text/event-stream", hangs=True))

    async def main() -> None:
        async with aclient:
            stream = await aclient.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            await anext(stream)
            await anext(stream)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)

    asyncio.run(main())
    metric = only()
    assert (metric.status, metric.items) == (OperationStatus.CANCELLED, 2)


# -- wrapping -------------------------------------------------------------------------------------------------------


def test_a_stream_hangs_beneath_what_called_it(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """Its span's parent is the operation that was current, and nothing is left behind between its steps."""
    server.answers(CHAT)
    with client:
        with measure_latency_context("rag_inference", "answer"):
            stream = talk(client)
        text_of(stream)
    outer, inner = wrapped()
    assert outer.name == "rag_inference answer"
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_uninstrument_restores_exactly() -> None:
    """The very functions, though instrumented twice."""
    before = (vars(Completions)["create"], vars(AsyncCompletions)["create"])
    instrument("openai")
    instrument("openai")
    assert vars(Completions)["create"] is not before[0]
    uninstrument("openai")
    assert (vars(Completions)["create"], vars(AsyncCompletions)["create"]) == before
    uninstrument("openai")


def test_instrumented_twice_counts_once(wrapped: FinishedSpans, server: Server, client: OpenAI) -> None:
    """And not at all once it is taken off."""
    instrument("openai")
    server.answers(whole(COMPLETION))
    with client:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert len(latency_tracker.metrics) == 1
        uninstrument()
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert len(latency_tracker.metrics) == 1


def test_instrumented_before_init(server: Server, client: OpenAI, start: Callable[[], LatencyConfig]) -> None:
    """Clients wrapped, and made, before `init()` are measured after it."""
    instrument("openai")
    start()
    server.answers(whole(COMPLETION))
    with client:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert only().operation_name == "chat.completions.create"


def test_tracking_off_returns_the_clients_own(
    server: Server, client: OpenAI, start: Callable[..., LatencyConfig]
) -> None:
    """Nothing is measured, and a stream is the very object of the client."""
    instrument("openai")
    start(tracking_enabled=False)
    server.answers(CHAT)
    with client:
        stream = talk(client)
        assert type(stream) is Stream
        assert text_of(stream) == "Bonjour !"
    assert not latency_tracker.metrics


@pytest.mark.promise("cost-of-measuring")
def test_a_wrapped_call_makes_few_calls_while_tracking_is_off(
    start: Callable[..., LatencyConfig], monkeypatch: Any
) -> None:
    """Counted, not timed: two wrappers, of which one asks whether it is still applied, and the client."""
    start(tracking_enabled=False)
    monkeypatch.setattr(Completions, "create", lambda self, **_: None)
    instrument("openai")
    completions: Any = object.__new__(Completions)
    assert counted(lambda: completions.create(model="gpt-4o")) <= 4
    uninstrument()
