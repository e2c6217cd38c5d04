"""The real Google clients against a gRPC server that speaks their APIs: each call is measured once."""

import asyncio
import gc
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, sleep
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import speech_v1 as speech
from google.cloud import texttospeech_v1 as texttospeech
from google.cloud.speech_v1.services.speech import transports as speech_transports
from google.cloud.texttospeech_v1.services.text_to_speech import transports as tts_transports
from opentelemetry.instrumentation.utils import suppress_instrumentation

from callbot_latency import OperationStatus, OperationType, instrument, latency_tracker, uninstrument
from tests.conftest import FinishedSpans
from tests.support.noted import Noted

WORDS = "Jeanne Moreau owes us 12 euros"
MULAW = speech.RecognitionConfig(
    encoding=speech.RecognitionConfig.AudioEncoding.MULAW,
    sample_rate_hertz=8000,
    language_code="fr-FR",
    model="telephony",
)
STREAMING = speech.StreamingRecognitionConfig(config=MULAW, interim_results=True)
SECOND = speech.RecognitionAudio(content=bytes(8000))


def heard(text: str, *, is_final: bool = True) -> speech.StreamingRecognizeResponse:
    alternative = speech.SpeechRecognitionAlternative(transcript=text)
    result = speech.StreamingRecognitionResult(alternatives=[alternative], is_final=is_final)
    return speech.StreamingRecognizeResponse(results=[result])


@dataclass
class Engines:
    """What the server plays: functions of a request, or of the requests, and the context."""

    recognize: Callable[..., Any] = lambda request, context: speech.RecognizeResponse()
    streaming_recognize: Callable[..., Any] = lambda requests, context: iter(())
    synthesize: Callable[..., Any] = lambda request, context: texttospeech.SynthesizeSpeechResponse()
    streaming_synthesize: Callable[..., Any] = lambda requests, context: iter(())
    target: str = ""
    closing: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def engines() -> Iterator[Engines]:
    """A gRPC server whose engines the test sets."""
    playing = Engines()

    def engine(name: str) -> Callable[[Any, Any], Any]:
        """Looked up when it is called: the test sets it after the server has started."""

        def play(given: Any, context: Any) -> Any:
            return getattr(playing, name)(given, context)

        return play

    handlers = (
        grpc.method_handlers_generic_handler(
            "google.cloud.speech.v1.Speech",
            {
                "Recognize": grpc.unary_unary_rpc_method_handler(
                    engine("recognize"),
                    speech.RecognizeRequest.deserialize,
                    speech.RecognizeResponse.serialize,
                ),
                "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                    engine("streaming_recognize"),
                    speech.StreamingRecognizeRequest.deserialize,
                    speech.StreamingRecognizeResponse.serialize,
                ),
            },
        ),
        grpc.method_handlers_generic_handler(
            "google.cloud.texttospeech.v1.TextToSpeech",
            {
                "SynthesizeSpeech": grpc.unary_unary_rpc_method_handler(
                    engine("synthesize"),
                    texttospeech.SynthesizeSpeechRequest.deserialize,
                    texttospeech.SynthesizeSpeechResponse.serialize,
                ),
                "StreamingSynthesize": grpc.stream_stream_rpc_method_handler(
                    engine("streaming_synthesize"),
                    texttospeech.StreamingSynthesizeRequest.deserialize,
                    texttospeech.StreamingSynthesizeResponse.serialize,
                ),
            },
        ),
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(handlers)
    playing.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield playing
    finally:
        playing.closing.set()
        server.stop(0.1).wait()


@pytest.fixture
def hearing(engines: Engines) -> Iterator[speech.SpeechClient]:
    with grpc.insecure_channel(engines.target) as channel:
        yield speech.SpeechClient(transport=speech_transports.SpeechGrpcTransport(channel=channel))


@pytest.fixture
def speaking(engines: Engines) -> Iterator[texttospeech.TextToSpeechClient]:
    with grpc.insecure_channel(engines.target) as channel:
        transport = tts_transports.TextToSpeechGrpcTransport(channel=channel)
        yield texttospeech.TextToSpeechClient(transport=transport)


@pytest.fixture
def wrapped(spans: FinishedSpans) -> FinishedSpans:
    """Measuring is on, and the clients are wrapped."""
    instrument("google")
    return spans


def only() -> Any:
    (metric,) = latency_tracker.metrics
    return metric


def attributes(spans: FinishedSpans) -> Any:
    (span,) = spans()
    return span.attributes


def audio(count: int, gap_s: float = 0.0) -> Iterator[speech.StreamingRecognizeRequest]:
    for _ in range(count):
        sleep(gap_s)
        yield speech.StreamingRecognizeRequest(audio_content=bytes(160))


class Speaker:
    """Speaks three pieces of audio; after the first of them it waits until an interim result was seen."""

    def __init__(self) -> None:
        self.was_understood = threading.Event()
        self.ended_s = 0.0
        """When all was said, on the clock of perf_counter."""

    def speaks(self) -> Iterator[speech.StreamingRecognizeRequest]:
        for number, request in enumerate(audio(3, 0.04)):
            if number == 1:
                assert self.was_understood.wait(60)
            yield request
        self.ended_s = perf_counter()


# -- whole answers --------------------------------------------------------------------------------------------------


def test_recognize_is_one_measurement(wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient) -> None:
    """Its type, name, provider, model and language, and how long the audio lasts."""

    def recognize(request: Any, context: Any) -> speech.RecognizeResponse:
        sleep(0.05)
        alternative = speech.SpeechRecognitionAlternative(transcript=WORDS)
        return speech.RecognizeResponse(results=[speech.SpeechRecognitionResult(alternatives=[alternative])])

    engines.recognize = recognize
    began_s = perf_counter()
    answer = hearing.recognize(config=MULAW, audio=SECOND)
    took_ms = (perf_counter() - began_s) * 1_000
    assert answer.results[0].alternatives[0].transcript == WORDS
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.STT, "recognize")
    assert metric.provider == "google"
    assert metric.metadata == {"model": "telephony", "language": "fr-FR"}
    assert 50 <= metric.latency_ms <= took_ms
    assert attributes(wrapped)["audio_ms"] == metric.audio_ms == 1000
    assert metric.real_time_factor == metric.latency_ms / 1000
    assert "Jeanne" not in wrapped()[0].to_json()


@pytest.mark.parametrize(("channels", "audio_ms"), [(0, 1000), (1, 1000), (2, 500)])
def test_samples_of_all_channels_are_of_one_moment(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient, channels: int, audio_ms: float
) -> None:
    """Audio of two channels lasts half as long as so many samples of one, which is what none said means."""
    config = speech.RecognitionConfig(
        encoding=speech.RecognitionConfig.AudioEncoding.LINEAR16, sample_rate_hertz=8000, audio_channel_count=channels
    )
    hearing.recognize(config=config, audio=speech.RecognitionAudio(content=bytes(16_000)))
    assert only().audio_ms == audio_ms


def test_a_request_may_be_one_object_or_a_dictionary(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """As the client allows."""
    hearing.recognize(speech.RecognizeRequest(config=MULAW, audio=SECOND))
    hearing.recognize(
        request={"config": {"language_code": "fr-FR", "model": "telephony"}, "audio": {"uri": "gs://a/b"}}
    )
    assert [metric.metadata["model"] for metric in latency_tracker.metrics] == ["telephony", "telephony"]


def test_recognize_of_the_asyncio_client(wrapped: FinishedSpans, engines: Engines) -> None:
    """The same."""

    async def main() -> None:
        async with grpc.aio.insecure_channel(engines.target) as channel:
            transport = speech_transports.SpeechGrpcAsyncIOTransport(channel=channel)
            await speech.SpeechAsyncClient(transport=transport).recognize(config=MULAW, audio=SECOND)

    asyncio.run(main())
    assert (only().operation_name, only().metadata["model"]) == ("recognize", "telephony")


def test_synthesis_is_one_measurement(
    wrapped: FinishedSpans, engines: Engines, speaking: texttospeech.TextToSpeechClient
) -> None:
    """Its voice, bytes and how long the audio lasts; not its text."""
    engines.synthesize = lambda request, context: texttospeech.SynthesizeSpeechResponse(
        audio_content=b"RIFF" + bytes(40 + 4000)
    )
    speaking.synthesize_speech(
        input=texttospeech.SynthesisInput(text=WORDS),
        voice=texttospeech.VoiceSelectionParams(language_code="fr-FR", name="fr-FR-Neural2-A"),
        audio_config=texttospeech.AudioConfig(audio_encoding=texttospeech.AudioEncoding.MULAW, sample_rate_hertz=8000),
    )
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.TTS, "synthesize_speech")
    assert metric.metadata == {"voice": "fr-FR-Neural2-A", "language": "fr-FR"}
    assert (attributes(wrapped)["bytes"], attributes(wrapped)["audio_ms"]) == (4044, 500)
    assert (metric.bytes, metric.audio_ms, metric.real_time_factor) == (4044, 500, metric.latency_ms / 500)
    assert "Jeanne" not in wrapped()[0].to_json()


# -- streams --------------------------------------------------------------------------------------------------------


def transcribes(delay_s: float) -> Callable[[Any, Any], Iterator[Any]]:
    """An interim result for the first audio, and the final one so long after the last."""

    def engine(requests: Any, context: Any) -> Iterator[Any]:
        for number, _ in enumerate(requests):
            if number == 1:
                yield heard("Jeanne", is_final=False)
        sleep(delay_s)
        yield heard(WORDS)

    return engine


def test_a_transcription_is_timed_from_the_end_of_its_audio(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """120 ms of speaking are the caller's; the span shows them, the latency does not."""
    engines.streaming_recognize = transcribes(0.06)
    speaker, noted, finals = Speaker(), Noted(), []
    for item in noted.each(hearing.streaming_recognize(STREAMING, speaker.speaks())):
        finals.append(item.results[0].is_final)
        speaker.was_understood.set()
    assert finals == [False, True]
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.STT, "streaming_recognize")
    assert metric.metadata == {"model": "telephony", "language": "fr-FR", "timed_from": "audio_end"}
    assert 60 <= metric.latency_ms <= noted.until_ms(-1, speaker.ended_s)
    assert 60 <= metric.time_to_first_output_ms <= noted.until_ms(1, speaker.ended_s)
    assert metric.items == 2
    (span,) = wrapped()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 175e6
    assert "Jeanne" not in span.to_json()


@pytest.mark.promise("self-observation")
def test_where_instrumentations_are_off_neither_kind_of_call_is_measured(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """As on the thread of a reporter: what it asks for would be reported in turn."""
    engines.streaming_recognize = transcribes(0)
    with suppress_instrumentation():
        assert list(hearing.streaming_recognize(STREAMING, audio(1, 0)))
        hearing.recognize(config=speech.RecognitionConfig(), audio=speech.RecognitionAudio())
    assert not latency_tracker.metrics
    assert not wrapped()


def test_a_long_stream_raises_no_alarm_while_it_listens(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """It is not among what runs late until the provider is waited for."""
    from callbot_latency.measuring.active_session import active

    more: queue.Queue[Any] = queue.Queue()
    engines.streaming_recognize = transcribes(0)
    more.put(speech.StreamingRecognizeRequest(audio_content=b"a"))
    stream = hearing.streaming_recognize(STREAMING, iter(more.get, None))
    next(stream)
    assert active.session is not None
    assert not active.session.open_measurements
    more.put(None)
    assert len(list(stream)) == 1
    assert only().status is OperationStatus.SUCCESS


def test_the_end_of_speech_that_google_hears_starts_the_clock(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """While audio goes on, with `single_utterance`."""
    sent_s, has_come = [], threading.Event()

    def engine(requests: Any, context: Any) -> Iterator[Any]:
        next(requests)
        event = speech.StreamingRecognizeResponse.SpeechEventType.END_OF_SINGLE_UTTERANCE
        sent_s.append(perf_counter())
        yield speech.StreamingRecognizeResponse(speech_event_type=event)
        assert has_come.wait(60)
        sleep(0.05)
        yield heard(WORDS)

    engines.streaming_recognize = engine
    noted = Noted()
    for _ in noted.each(hearing.streaming_recognize(STREAMING, audio(1_000, 0.02))):
        has_come.set()
    metric = only()
    assert metric.items == 2
    assert metric.metadata["timed_from"] == "end_of_speech"
    assert 50 <= metric.latency_ms <= noted.until_ms(-1, sent_s[0])


async def listen(engines: Engines) -> tuple[list[bool], float, Noted]:
    """What came, when all had been said, and when that came."""
    was_understood, noted, ended_s = asyncio.Event(), Noted(), 0.0

    async def requests() -> AsyncIterator[speech.StreamingRecognizeRequest]:
        nonlocal ended_s
        yield speech.StreamingRecognizeRequest(streaming_config=STREAMING)
        for number, request in enumerate(audio(3)):
            if number == 1:
                await was_understood.wait()
            await asyncio.sleep(0.04)
            yield request
        ended_s = perf_counter()

    async with grpc.aio.insecure_channel(engines.target) as channel:
        transport = speech_transports.SpeechGrpcAsyncIOTransport(channel=channel)
        stream = await speech.SpeechAsyncClient(transport=transport).streaming_recognize(requests())
        finals = []
        async for item in noted.each_later(stream):
            finals.append(item.results[0].is_final)
            was_understood.set()
        return finals, ended_s, noted


def test_a_transcription_of_the_asyncio_client(wrapped: FinishedSpans, engines: Engines) -> None:
    """What is awaited first is iterated then."""
    engines.streaming_recognize = transcribes(0.06)
    finals, ended_s, noted = asyncio.run(listen(engines))
    assert finals == [False, True]
    metric = only()
    assert metric.metadata == {"model": "telephony", "language": "fr-FR", "timed_from": "audio_end"}
    assert 60 <= metric.latency_ms <= noted.until_ms(-1, ended_s)
    assert metric.items == 2


def texts(wait_s: float, said_s: list[float] | None = None) -> Iterator[texttospeech.StreamingSynthesizeRequest]:
    voice = texttospeech.VoiceSelectionParams(language_code="fr-FR", name="fr-FR-Chirp3-HD-Charon")
    config = texttospeech.StreamingSynthesizeConfig(voice=voice)
    yield texttospeech.StreamingSynthesizeRequest(streaming_config=config)
    sleep(wait_s)
    if said_s is not None:
        said_s.append(perf_counter())
    yield texttospeech.StreamingSynthesizeRequest(input=texttospeech.StreamingSynthesisInput(text=WORDS))


def speaks(requests: Any, context: Any, sent_s: list[float] | None = None) -> Iterator[Any]:
    sent_s = [] if sent_s is None else sent_s
    for number, _ in enumerate(requests):
        if number == 1:
            sleep(0.05)
            sent_s.append(perf_counter())
            yield texttospeech.StreamingSynthesizeResponse(audio_content=bytes(800))
            sleep(0.03)
            sent_s.append(perf_counter())
            yield texttospeech.StreamingSynthesizeResponse(audio_content=bytes(1600))


def test_speech_is_timed_from_its_first_text(
    wrapped: FinishedSpans, engines: Engines, speaking: texttospeech.TextToSpeechClient, reads_s: list[float]
) -> None:
    """The wait for the sentence is not the voice's; first audio, gap, items and bytes are."""
    said_s: list[float] = []
    sent_s: list[float] = []
    engines.streaming_synthesize = partial(speaks, sent_s=sent_s)
    noted = Noted()
    stream = speaking.streaming_synthesize(texts(0.1, said_s))
    assert sum(len(item.audio_content) for item in noted.each(stream)) == 2400
    metric = only()
    assert (metric.operation_type, metric.operation_name) == (OperationType.TTS, "streaming_synthesize")
    assert metric.metadata == {"voice": "fr-FR-Chirp3-HD-Charon", "language": "fr-FR", "timed_from": "first_text"}
    assert 50 <= metric.time_to_first_output_ms <= noted.until_ms(0, said_s[0])
    assert 80 <= metric.latency_ms <= noted.until_ms(-1, said_s[0])
    assert metric.items == 2
    least_ms, most_ms = noted.largest_gap_ms(sent_s, reads_s)
    assert least_ms <= metric.largest_gap_ms <= most_ms
    assert attributes(wrapped)["bytes"] == metric.bytes == 2400
    assert metric.busy_ms <= metric.latency_ms


def test_a_stream_keeps_its_methods_and_may_be_cancelled(
    wrapped: FinishedSpans, engines: Engines, speaking: texttospeech.TextToSpeechClient
) -> None:
    """It is the grpc.Call that it was; cancelling counts once, as cancelled."""
    engines.streaming_synthesize = speaks
    stream: Any = speaking.streaming_synthesize(texts(0))
    assert isinstance(stream, grpc.Call)
    next(stream)
    stream.cancel()
    del stream
    gc.collect()
    assert (only().status, only().items) == (OperationStatus.CANCELLED, 1)


# -- faults ---------------------------------------------------------------------------------------------------------


def test_an_error_reaches_the_caller_and_tells_no_content(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """The exception is google.api_core's own; span and metric have its type and codes."""
    engines.recognize = lambda request, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"bad: {WORDS}")
    with pytest.raises(exceptions.InvalidArgument, match="Jeanne"):
        hearing.recognize(config=MULAW, audio=SECOND)
    metric = only()
    assert metric.status is OperationStatus.ERROR
    assert metric.error_message == "InvalidArgument (INVALID_ARGUMENT, BAD_REQUEST)"
    assert "Jeanne" not in wrapped()[0].to_json()


def test_a_deadline_is_a_timeout(wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient) -> None:
    """Of a whole answer."""
    engines.recognize = lambda request, context: engines.closing.wait(60) and speech.RecognizeResponse()
    with pytest.raises(exceptions.DeadlineExceeded):
        hearing.recognize(config=MULAW, audio=SECOND, timeout=0.1, retry=None)
    assert only().status is OperationStatus.TIMEOUT


def test_a_stream_that_fails_is_an_error(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """With the results that came until then."""

    def engine(requests: Any, context: Any) -> Iterator[Any]:
        for _ in requests:
            pass
        yield heard("Jeanne", is_final=False)
        context.abort(grpc.StatusCode.UNAVAILABLE, WORDS)

    engines.streaming_recognize = engine
    with pytest.raises(exceptions.ServiceUnavailable):
        list(hearing.streaming_recognize(STREAMING, audio(2), retry=None))
    metric = only()
    assert (metric.status, metric.items) == (OperationStatus.ERROR, 1)
    assert metric.error_message == "ServiceUnavailable (UNAVAILABLE, SERVICE_UNAVAILABLE)"


def test_a_stream_that_is_refused_at_once_is_an_error(
    wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient
) -> None:
    """The call itself raises, since the client waits for the first result."""
    engines.streaming_recognize = lambda requests, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(exceptions.PermissionDenied):
        hearing.streaming_recognize(STREAMING, audio(2), retry=None)
    assert only().status is OperationStatus.ERROR


def test_what_the_callers_requests_do_is_not_part_of_it(wrapped: FinishedSpans, engines: Engines) -> None:
    """Operations in an asyncio generator of requests are measured, and hang beneath the caller."""
    from callbot_latency import measure_latency_context

    async def requests() -> AsyncIterator[Any]:
        for request in texts(0):
            with measure_latency_context("rag_inference", "sentence"):
                await asyncio.sleep(0)
            yield request

    async def main() -> None:
        async with grpc.aio.insecure_channel(engines.target) as channel:
            transport = tts_transports.TextToSpeechGrpcAsyncIOTransport(channel=channel)
            client = texttospeech.TextToSpeechAsyncClient(transport=transport)
            async for _ in await client.streaming_synthesize(requests()):
                pass

    engines.streaming_synthesize = speaks
    asyncio.run(main())
    assert sorted(span.name for span in wrapped()) == [
        "rag_inference sentence",
        "rag_inference sentence",
        "text_to_speech streaming_synthesize",
    ]
    assert all(span.parent is None for span in wrapped())


# -- wrapping -------------------------------------------------------------------------------------------------------


def test_uninstrument_restores_exactly(wrapped: FinishedSpans, engines: Engines, hearing: speech.SpeechClient) -> None:
    """The very functions; what was wrapped twice counted once."""
    uninstrument("google")
    before = [dict(vars(kind)) for kind in hearing.__class__.__mro__]
    instrument("google")
    instrument("google")
    hearing.recognize(config=MULAW, audio=SECOND)
    assert len(latency_tracker.metrics) == 1
    uninstrument("google")
    assert [dict(vars(kind)) for kind in hearing.__class__.__mro__] == before
    hearing.recognize(config=MULAW, audio=SECOND)
    assert len(latency_tracker.metrics) == 1
