"""The parts of the example callbot, each for itself, with real sound."""

import asyncio
import io
import tomllib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from simple_salesforce.exceptions import SalesforceExpiredSession
from starlette.applications import Starlette
from starlette.routing import Route

from callbot_latency import (
    LatencyConfig,
    OperationStatus,
    OperationType,
    TurnMetric,
    call,
    latency_tracker,
)
from callbot_latency.timeline import BargeIn
from callbot_latency.twilio import TwilioMediaStream
from examples.callbot import demo, serve
from examples.callbot.audio import (
    FRAME_BYTES,
    PHONE_RATE,
    SILENCE,
    Resampler,
    frames,
    mulaw_decode,
    mulaw_encode,
    resample,
)
from examples.callbot.knowledge import KnowledgeBase, KnowledgeClient, knowledge_app
from examples.callbot.playback import Playback, PlaybackBuffer
from examples.callbot.salesforce import CustomerRecords, connect
from examples.callbot.salesforce_stub import PHONES, SESSION_ID, SalesforceStub
from examples.callbot.servers import serving
from examples.callbot.speech import Endpointer, GrammarRecognizer, Heard, HybridRecognizer, SphinxRecognizer
from examples.callbot.turn_table import TurnTable, shares
from examples.callbot.voice import Voice, sentences
from tests.support.subprocesses import ROOT

pytestmark = pytest.mark.real_time

CALL, STREAM = "CA" + "1" * 32, "MZ" + "2" * 32
QUESTION = "Where is my order?"
BAD_SLOW = [
    (["--slow", "twilio=4s"], "expected one of rag, salesforce, stt, tts, such as salesforce=4s; got 'twilio=4s'"),
    (["--slow", "=4s"], "expected one of rag, salesforce, stt, tts, such as salesforce=4s; got '=4s'"),
    (["--slow", "salesforce_orders=4s"], "expected one of rag, salesforce, stt, tts"),
    *(
        (["--slow", f"rag={time}"], f"expected a time from 1ms to 30s, such as rag=4s or rag=900ms; got 'rag={time}'")
        for time in ("", "4", "s", "0s", "-1s", "31s", "4 s", "4m", "1e1s", "nans", "٤s")
    ),
    (["--slow"], "expected one argument"),
]


# -- sound ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=200))
def test_mulaw_keeps_a_sample_within_half_a_step(values: list[int]) -> None:
    samples = np.array(values, dtype=np.int16)
    back = mulaw_decode(mulaw_encode(samples)).astype(np.int32)
    # The step doubles with each of the eight segments; beyond 32,635 the format clips.
    step = 2.0 ** (np.floor(np.log2(np.minimum(np.abs(samples.astype(np.int32)), 32_635) + 132)) - 4)
    assert (np.abs(back - samples) <= np.maximum(step / 2, np.abs(samples.astype(np.int32)) - 32_124)).all()


def test_every_mulaw_byte_survives_but_negative_zero() -> None:
    every = bytes(range(256))
    assert mulaw_encode(mulaw_decode(every)) == every.replace(b"\x7f", SILENCE)


@given(st.integers(0, 3_000), st.sampled_from([(22_050, 8_000), (8_000, 16_000), (16_000, 8_000)]))
def test_resampling_gives_as_much_sound_as_went_in(count: int, rates: tuple[int, int]) -> None:
    assert len(resample(np.zeros(count, dtype=np.int16), *rates)) == -(-count * rates[1] // rates[0])


@given(st.lists(st.integers(1, 900), min_size=1, max_size=8))
def test_resampling_in_pieces_is_the_same_as_at_once(sizes: list[int]) -> None:
    noise = np.random.default_rng(1).integers(-9_000, 9_000, sum(sizes)).astype(np.int16)
    resampler = Resampler(22_050, 8_000)
    pieces = [resampler.feed(piece) for piece in np.split(noise, np.cumsum(sizes)[:-1])]
    assert (np.concatenate([*pieces, resampler.flush()]) == resample(noise, 22_050, 8_000)).all()


def _tone(hertz: float, rate: int) -> np.ndarray:
    return (10_000 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype(np.int16)


def test_resampling_keeps_the_level_of_what_fits_and_removes_what_does_not() -> None:
    def level(hertz: float) -> float:
        return float(resample(_tone(hertz, 22_050), 22_050, 8_000)[500:-500].std())

    assert level(440) == pytest.approx(10_000 / 2**0.5, rel=0.01)
    assert level(6_000) < 100


def test_frames_are_whole() -> None:
    assert [len(frame) for frame in frames(b"\x00" * (FRAME_BYTES + 1))] == [FRAME_BYTES, FRAME_BYTES]
    assert frames(b"") == []


def test_the_voice_is_cut_into_sentences_and_heard_as_it_is_made(measuring: LatencyConfig) -> None:
    async def speak() -> list[bytes]:
        return [chunk async for chunk in Voice().synthesize_stream("We are open. Come by!")]

    chunks = asyncio.run(speak())
    assert sentences("We are open. Come by!") == ["We are open.", "Come by!"]
    assert len(chunks) > 10
    assert 1 < sum(map(len, chunks)) / PHONE_RATE < 4
    [metric] = latency_tracker.metrics
    assert (metric.operation_type, metric.provider) == (OperationType.TTS, "espeak-ng")
    assert metric.time_to_first_output_ms is not None
    assert metric.time_to_first_output_ms < metric.latency_ms


def test_an_unknown_voice_says_so() -> None:
    with pytest.raises(ValueError, match="knows none called 'nobody'"):
        asyncio.run(Voice("nobody").speak("Hello."))


# -- hearing ----------------------------------------------------------------------------------------------------------


def _spoken(text: str) -> bytes:
    return asyncio.run(Voice("en-us+f3", 150).speak(text))


def _utterances(sound: bytes) -> list[bytes]:
    endpointer, found = Endpointer(), []
    for frame in frames(SILENCE * PHONE_RATE + sound + SILENCE * PHONE_RATE):
        noticed = endpointer.feed(frame)
        if noticed is Heard.SPEECH_STARTED:
            found.append(endpointer.before)
        elif endpointer.speaking:
            found[-1] += frame
    return found


def test_the_endpointer_finds_each_sentence_and_no_more() -> None:
    sound = _spoken(QUESTION)
    found = _utterances(sound + SILENCE * PHONE_RATE + sound)
    assert len(found) == 2
    for utterance in found:
        # With what is kept before, and half a second of silence behind.
        assert len(sound) * 0.8 < len(utterance) < len(sound) + PHONE_RATE
    assert _utterances(SILENCE * PHONE_RATE) == []


@pytest.fixture(scope="module")
def knowledge() -> Iterator[KnowledgeBase]:
    opened = KnowledgeBase()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def second() -> SphinxRecognizer:
    return SphinxRecognizer()


@pytest.mark.parametrize("text", [QUESTION, "What are your opening hours?", "How long does delivery take?"])
def test_a_synthesised_question_is_heard_word_for_word(text: str, knowledge: KnowledgeBase) -> None:
    recognizer = GrammarRecognizer(knowledge.questions())
    [utterance] = _utterances(_spoken(text))
    recognizer.begin()
    for frame in frames(utterance):
        recognizer.feed(frame)
    assert recognizer.end() == text.lower().rstrip("?")


def test_an_utterance_nobody_asked_about_does_not_mix_into_the_next(knowledge: KnowledgeBase) -> None:
    recognizer = GrammarRecognizer(knowledge.questions())
    recognizer.begin()
    recognizer.feed(_utterances(_spoken("When are you open?"))[0])
    recognizer.begin()
    recognizer.feed(_utterances(_spoken(QUESTION))[0])
    assert recognizer.end() == "where is my order"


def _transcribe(hybrid: HybridRecognizer, text: str) -> str:
    async def run() -> str:
        hybrid.begin()
        for frame in frames(_utterances(spoken)[0]):
            hybrid.feed(frame)
        with call(CALL, stream_sid=STREAM):
            return await hybrid.transcribe()

    spoken = _spoken(text)
    try:
        return asyncio.run(run())
    finally:
        hybrid.close()


@pytest.mark.parametrize(
    ("text", "provider"),
    [(QUESTION, "pocketsphinx-grammar"), ("I bought a yellow bicycle for my sister.", "pocketsphinx")],
)
def test_the_provider_on_record_is_the_engine_that_answered(
    text: str, provider: str, measuring: LatencyConfig, knowledge: KnowledgeBase, second: SphinxRecognizer
) -> None:
    heard = _transcribe(HybridRecognizer(GrammarRecognizer(knowledge.questions()), second), text)
    assert heard
    *tried, metric = latency_tracker.metrics
    assert {m.attempt for m in tried} == set(range(1, (metric.attempts or 0) + 1))
    assert metric.provider_requested == "pocketsphinx-grammar"
    assert metric.switch_reason == ("not understood" if provider == "pocketsphinx" else None)
    assert (metric.operation_type, metric.provider, metric.call_sid) == (OperationType.STT, provider, CALL)
    assert (metric.stream_sid, metric.status) == (STREAM, OperationStatus.SUCCESS)


def test_the_second_engine_answers_where_the_first_breaks(measuring: LatencyConfig, second: SphinxRecognizer) -> None:
    class Broken(SphinxRecognizer):
        def end(self) -> str:
            super().end()
            raise RuntimeError("the engine stopped")

    assert _transcribe(HybridRecognizer(Broken(), second), QUESTION)
    failed, answered, metric = latency_tracker.metrics
    assert (metric.provider, metric.status) == ("pocketsphinx", OperationStatus.SUCCESS)
    assert (metric.switch_reason, metric.attempts) == ("RuntimeError", 2)
    assert (failed.status, answered.status) == (OperationStatus.ERROR, OperationStatus.SUCCESS)
    assert metric.lost_ms is not None
    assert failed.latency_ms <= metric.lost_ms < metric.latency_ms


# -- knowing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("what are your opening hours", "Opening hours"),
        ("at which hour do you open", "Opening hours"),
        ("where is my order", "Order status"),
        ("i would like to send back an item", "Return policy"),
        ("what does the warranty cover", "Warranty"),
        ("thank you very much goodbye", "Goodbye"),
        ("whether we like to come out again", None),
        ("what is it", None),
        ('" OR NEAR( *', None),
    ],
)
def test_the_knowledge_base_finds_the_article(question: str, title: str | None, knowledge: KnowledgeBase) -> None:
    found = knowledge.search(question)
    assert (found and found.title) == title


def test_each_question_leads_to_its_own_article(knowledge: KnowledgeBase) -> None:
    for article in knowledge._articles:
        for question in article["questions"]:
            found = knowledge.search(question)
            assert found is not None
            assert found.title == article["title"], question


def test_the_rag_api_answers_over_http(measuring: LatencyConfig, knowledge: KnowledgeBase) -> None:
    async def ask() -> None:
        async with serving(knowledge_app(knowledge)) as address:
            client = KnowledgeClient(f"http://{address}")
            with call(CALL):
                found = await client.infer("when are you open")
                assert found is not None
                assert found.title == "Opening hours"
                assert await client.infer("tell of the mountains") is None
            await client.close()

    asyncio.run(ask())
    assert [(m.operation_name, m.provider, m.call_sid) for m in latency_tracker.metrics] == [
        ("infer", "sqlite-fts5", CALL)
    ] * 2


def test_salesforce_is_read_and_written_over_http(measuring: LatencyConfig) -> None:
    stub = SalesforceStub(delay_ms=(1, 2))

    async def use() -> None:
        async with serving(stub.app()) as address:
            salesforce = connect(f"http://{address}", SESSION_ID)
            records = CustomerRecords(salesforce, CALL)
            contact = await asyncio.to_thread(records.find_contact, PHONES[1])
            assert contact is not None
            assert contact["FirstName"] == "Grace"
            assert await asyncio.to_thread(records.find_contact, "it's nobody") is None
            order = await asyncio.to_thread(records.find_order, contact["Id"])
            assert order is not None
            assert order["Status"] == "being packed"
            task = await asyncio.to_thread(records.create_task, contact["Id"], "caller: hello")
            assert stub.records["Task"][0]["Id"] == task
            salesforce.session.close()

            stranger = connect(f"http://{address}", "wrong")
            with pytest.raises(SalesforceExpiredSession):
                await asyncio.to_thread(CustomerRecords(stranger, CALL).find_order, "003")
            stranger.session.close()

    asyncio.run(use())
    told = [(m.operation_name, m.status.value) for m in latency_tracker.metrics]
    assert told == [
        ("find_contact", "success"),
        ("find_contact", "success"),
        ("find_order", "success"),
        ("create_task", "success"),
        ("find_order", "error"),
    ]
    assert {(m.call_sid, m.provider) for m in latency_tracker.metrics} == {(CALL, "salesforce")}


# -- the line ---------------------------------------------------------------------------------------------------------


def test_a_mark_returns_when_the_sound_before_it_was_played() -> None:
    line = PlaybackBuffer()
    line.add(b"a" * 200)
    line.mark("first")
    line.add(b"b" * 100)
    line.mark("second")
    assert line.play(160) == (b"a" * 160, [])
    assert line.play(160) == (b"a" * 40 + b"b" * 100, ["first", "second"])
    line.mark("behind nothing")
    assert line.play(160) == (b"", ["behind nothing"])


def test_clear_empties_the_line_and_returns_every_mark() -> None:
    line = PlaybackBuffer()
    line.add(b"a" * 1_600)
    line.mark("first")
    line.mark("second")
    line.play(160)
    assert line.seconds == pytest.approx(0.18)
    assert line.clear() == ["first", "second"]
    assert line.play(160) == (b"", [])


async def _passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_playback_ends_when_its_last_mark_is_back_and_runs_ahead_no_further_than_allowed() -> None:
    sent: list[str] = []

    async def run() -> None:
        async def send(message: dict[str, object]) -> None:
            sent.append(str(message["event"]))

        async def speech() -> AsyncGenerator[bytes, None]:
            for _ in range(100):
                yield SILENCE * 800

        playback = Playback(STREAM, send, TwilioMediaStream())
        playing = asyncio.create_task(playback.play(speech()))
        # Sending to a list never waits, so that a hundred passes of the loop are more than it needs.
        await _passes(100)
        # Four seconds, and the tenth that overran them, of ten: a mark behind the first chunk, then every half second.
        assert sent.count("media") == 41
        await playback.acknowledge("of an earlier answer")
        for number in range(1, 21):
            await playback.acknowledge(f"sound-{number}")
            await _passes(1)
        await _passes(100)
        assert not playing.done()
        await playback.acknowledge("answered-21")
        await playing

    asyncio.run(run())
    assert sent.count("media") == 100
    # The last one says that the answer ends here.
    assert sent.count("mark") == 21


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=13), st.none() | st.integers(0, 500))
def test_shares_sum_to_the_whole(values: list[float], total: int | None) -> None:
    """Whole numbers, each within one of its exact share."""
    numbers = shares(values, total)
    wanted = round(sum(values)) if total is None else total
    assert sum(numbers) == (wanted if sum(values) else 0)
    if sum(values):
        exact = [value * wanted / sum(values) for value in values]
        assert all(abs(number - share) < 1 + 1e-6 for number, share in zip(numbers, exact, strict=True))


def shown(*turns: TurnMetric, width: int = 72) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(TurnTable(turns))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_turn_is_shown_as_a_sum() -> None:
    """Its bar is as long as its wait, next to those of the other turns."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    parts = {"endpointing": 500.6, "speech_to_text": 99.0, "rag_inference": 400.4}
    long = TurnMetric(CALL, 1, at, response_ms=1000.0, response_sent_ms=900.0, answer_sent_ms=2500.0, parts_ms=parts)
    short = TurnMetric(CALL, 2, at, response_sent_ms=500.0, parts_ms={"endpointing": 500.0})
    told = BargeIn(1, reaction_ms=120, heard_share=0.25)
    unmeasured = TurnMetric(CALL, 3, at, outcome="unanswered", unmeasured="no_audio")
    broken_into = replace(long, turn=4, barge_in=told)
    lines = shown(long, short, unmeasured, broken_into).splitlines()
    assert lines[0].strip() == "1  waited 1.00 s until the first sound, 2.50 s until the answer"
    assert lines[1].strip() == "█" * 33 + "▓" * 7 + "▒" * 26
    assert lines[2].strip() == "endpointing 501 + speech_to_text 99 + rag_inference 400 = 1,000 ms"
    assert lines[4].strip() == "2  waited 0.50 s until the first sound was sent"
    assert lines[5].strip() == "█" * 33
    assert lines[8].strip() == "3  unanswered; not measured: no_audio"
    assert "interrupted with 25% heard, silent after 120 ms" in shown(broken_into, width=120)
    assert shown().strip() == "no turn was measured"


def test_speech_can_be_slow_both_ways(measuring: LatencyConfig, knowledge: KnowledgeBase) -> None:
    async def speak() -> list[bytes]:
        return [chunk async for chunk in Voice(slow_s=0.2).synthesize_stream("Hello.")]

    recognizer = GrammarRecognizer(knowledge.questions())
    assert asyncio.run(speak())
    assert _transcribe(HybridRecognizer(recognizer, recognizer, slow_s=0.2), QUESTION) == "where is my order"
    operations = [metric for metric in latency_tracker.metrics if metric.attempt is None]
    assert [metric.latency_ms >= 200 for metric in operations] == [True, True]


# -- the programs' options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--calls", "0"], "expected a number from 1 to 20, got '0'"),
        (["--calls", "many"], "expected a number from 1 to 20, got 'many'"),
        (["--svg", "picture.png"], "ends in .svg"),
        (["--faster"], "unrecognized arguments"),
        *BAD_SLOW,
    ],
)
def test_a_bad_option_is_explained(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_the_webhook_tells_twilio_to_stream_the_call_here() -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=[Route("/twiml", serve.twiml, methods=["POST"])]))
        async with httpx.AsyncClient(transport=transport, base_url="http://bot.example") as client:
            return await client.post("/twiml", data={"From": PHONES[0], "CallSid": CALL})

    answer = asyncio.run(ask())
    assert answer.headers["content-type"].startswith("text/xml")
    assert '<Connect><Stream url="wss://bot.example/media">' in answer.text
    assert '<Parameter name="from" value="+14155550100"/></Stream></Connect>' in answer.text


def test_what_the_example_needs_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["example"]
    assert any(name.startswith("pocketsphinx") for name in declared)
