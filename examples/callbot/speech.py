"""Speech-to-text: where speech begins and ends, and two engines of which the second answers where the first cannot."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import pocketsphinx  # type: ignore[import-untyped]
import webrtcvad  # type: ignore[import-untyped]

from callbot_latency import OperationType, attempt, bind, measure_latency_context

from .audio import FRAME_MS, PHONE_RATE, Resampler, mulaw_decode

_log = logging.getLogger(__name__)

_ENGINE_RATE: Final = 16_000
_PIECE_BYTES: Final = PHONE_RATE // 10

# The average spectrum of speech on a telephone line, which lacks what lies above 4 kHz. The engine would learn it from
# the first sentences, and misunderstand these.
_LINE_MEAN: Final = "56,20,-22,36,-33,15,-17,-13,0,-2,9,-8,2"


class Heard(Enum):
    """What the end-pointer noticed."""

    SPEECH_STARTED = "speech started"
    SPEECH_ENDED = "speech ended"


@dataclass(frozen=True, slots=True)
class EndpointerSettings:
    """How sure to be before saying that speech began or ended; a longer end delays every answer."""

    aggressiveness: int = 2
    starts_after_ms: int = 100
    ends_after_ms: int = 500
    kept_before_ms: int = 300


class Endpointer:
    """Finds where the caller's sentences begin and end, frame by frame of 20 ms."""

    def __init__(self, settings: EndpointerSettings | None = None) -> None:
        self.settings = settings or EndpointerSettings()
        self._detector = webrtcvad.Vad(self.settings.aggressiveness)
        self._voiced_ms = 0
        self._silent_ms = 0
        self.speaking = False
        self._before: deque[bytes] = deque(maxlen=self.settings.kept_before_ms // FRAME_MS)

    @property
    def before(self) -> bytes:
        """The sound up to where speech was noticed: the first syllable lies in it."""
        return b"".join(self._before)

    def feed(self, frame: bytes) -> Heard | None:
        """Take in 20 ms of μ-law."""
        self._before.append(frame)
        if self._detector.is_speech(mulaw_decode(frame).tobytes(), PHONE_RATE):
            self._voiced_ms, self._silent_ms = self._voiced_ms + FRAME_MS, 0
        else:
            self._silent_ms += FRAME_MS
            # One unvoiced frame within a word is no pause.
            self._voiced_ms = max(0, self._voiced_ms - FRAME_MS)
        if not self.speaking and self._voiced_ms >= self.settings.starts_after_ms:
            self.speaking = True
            return Heard.SPEECH_STARTED
        if self.speaking and self._silent_ms >= self.settings.ends_after_ms:
            self.speaking, self._voiced_ms = False, 0
            return Heard.SPEECH_ENDED
        return None


class Recognizer(Protocol):
    """An engine. It blocks, so it belongs in a thread; it hears one utterance at a time."""

    provider: str

    def begin(self) -> None:
        """An utterance begins."""

    def feed(self, sound: bytes) -> None:
        """More of it, as μ-law."""

    def end(self) -> str:
        """It is over: what was said, or nothing where the engine did not understand."""


class SphinxRecognizer:
    """pocketsphinx with the general English language model of its wheel: hears anything, none of it well."""

    provider = "pocketsphinx"

    def __init__(self) -> None:
        self._decoder = self._open()
        self._hears = False
        self._resampler = Resampler(PHONE_RATE, _ENGINE_RATE)

    def _open(self) -> Any:
        return pocketsphinx.Decoder(loglevel="FATAL", cmninit=_LINE_MEAN)

    def begin(self) -> None:
        if self._hears:
            # Nobody asked what the caller said before.
            self._decoder.end_utt()
        self._resampler = Resampler(PHONE_RATE, _ENGINE_RATE)
        self._decoder.start_utt()
        self._hears = True

    def feed(self, sound: bytes) -> None:
        self._decoder.process_raw(self._resampler.feed(mulaw_decode(sound)).tobytes())

    def end(self) -> str:
        self._decoder.process_raw(self._resampler.flush().tobytes())
        self._decoder.end_utt()
        self._hears = False
        hypothesis = self._decoder.hyp()
        return str(hypothesis.hypstr) if hypothesis else ""


class GrammarRecognizer(SphinxRecognizer):
    """pocketsphinx that knows a few sentences: quick and sure of these, and deaf to all others.

    Args:
        sentences: in lower case, of words that the dictionary has.

    """

    provider = "pocketsphinx-grammar"

    def __init__(self, sentences: Collection[str]) -> None:
        self._sentences = frozenset(sentences)
        super().__init__()

    def _open(self) -> Any:
        decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL", cmninit=_LINE_MEAN)
        decoder.add_jsgf_string("sentences", _grammar(self._sentences))
        decoder.activate_search("sentences")
        return decoder

    def end(self) -> str:
        heard = super().end()
        # What it heard may break off in the middle of a sentence: then the caller said something else.
        return heard if heard in self._sentences else ""


def _grammar(sentences: Collection[str]) -> str:
    return f"#JSGF V1.0; grammar sentences; public <sentence> = {' | '.join(sorted(sentences))};"


class HybridRecognizer:
    """Listens with one engine while the caller speaks, and asks another one where the first understood nothing.

    Args:
        first: hears along while the caller speaks, so that its text is there soon after the last word; this call's own.
        second: asked about the whole utterance afterwards; shared by all calls, one at a time.
        slow_s: how much longer than that it takes, in seconds.

    """

    _second_is_busy = threading.Lock()

    def __init__(self, first: Recognizer, second: Recognizer, slow_s: float = 0.0) -> None:
        self._first = first
        self._second = second
        self._slow_s = slow_s
        # One thread for each call: frames must reach the engine in their order.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recognizer")
        self._utterance = bytearray()

    def begin(self) -> None:
        """The caller begins to speak."""
        self._utterance = bytearray()
        self._thread.submit(self._first.begin)

    def feed(self, sound: bytes) -> None:
        """The caller speaks on."""
        self._utterance += sound
        self._thread.submit(self._first.feed, sound)

    async def transcribe(self) -> str:
        """What the caller said, as soon as an engine knows; measured from the end of speech on."""
        utterance = bytes(self._utterance)
        with measure_latency_context(OperationType.STT, "transcribe"):
            await asyncio.sleep(self._slow_s)
            return await self._ask_first() or await asyncio.to_thread(self._ask_second, utterance)

    async def _ask_first(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            with attempt(self._first.provider) as tried:
                # An executor knows nothing of the call, other than asyncio.to_thread: bind() carries it over.
                text = await loop.run_in_executor(self._thread, bind(self._first.end))
                if not text:
                    tried.reject("not understood")
                return text
        except RuntimeError as error:
            _log.warning("%s failed, asking %s: %s", self._first.provider, self._second.provider, error)
            return ""

    def _ask_second(self, utterance: bytes) -> str:
        with attempt(self._second.provider), self._second_is_busy:
            self._second.begin()
            # In pieces, because the engine holds Python's lock for as long as it works on one.
            for start in range(0, len(utterance), _PIECE_BYTES):
                self._second.feed(utterance[start : start + _PIECE_BYTES])
            return self._second.end()

    def close(self) -> None:
        """The call is over; what waits for its thread is forgotten."""
        self._thread.shutdown(wait=False, cancel_futures=True)
