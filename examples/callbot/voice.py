"""Text-to-speech: espeak-ng, which the ``espeakng-loader`` wheel brings along, called through ctypes."""

import asyncio
import ctypes
import re
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import cache
from typing import Any, Final

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np

from callbot_latency import OperationType, bind, measure_latency

from .audio import PHONE_RATE, Resampler, Samples, mulaw_encode

_SYNCHRONOUS: Final = 2
_DO_NOT_EXIT: Final = 0x8000
_UTF_8: Final = 1
_RATE: Final = 1
_CHUNK_MS: Final = 60

OnAudio = Callable[[Samples], bool]
"""Takes a piece of sound, and says whether espeak-ng shall go on."""

_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The synthesiser. It keeps its state in C globals, so a process has one, and one thread alone enters it."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak-ng")
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, _CHUNK_MS, data, _DO_NOT_EXIT)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng cannot start with its data in {data.decode()}")
        self._on_audio: OnAudio = _refuse
        # ctypes keeps no reference of its own: without this one the callback would be collected while C holds it.
        self._callback = _CALLBACK(self._took)
        self._library.espeak_SetSynthCallback(self._callback)

    def synthesize(self, text: str, voice: str, words_per_minute: int, on_audio: OnAudio) -> None:
        """Speak `text`, piece by piece, to `on_audio`; to be run in `thread`."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"voice: espeak-ng knows none called {voice!r}")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._on_audio = on_audio
        spoken = text.encode()
        status = self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF_8, None, None)
        self._on_audio = _refuse
        if status != 0:
            raise RuntimeError(f"espeak-ng failed with status {status}")

    def _took(self, wave: Any, count: int, _events: int) -> int:
        if not wave or count <= 0:
            return 0
        # Numpy's own view of a pointer is left to the garbage collector, with every piece of sound.
        samples = np.frombuffer(ctypes.string_at(wave, count * ctypes.sizeof(ctypes.c_short)), dtype=np.int16)
        return 0 if self._on_audio(samples) else 1


def _refuse(_samples: Samples) -> bool:
    return False


@cache
def espeak() -> Espeak:
    """The synthesiser of this process, started on first use."""
    return Espeak()


class Voice:
    """A voice that speaks in phone quality.

    Args:
        name: one of espeak-ng's voices, such as ``en-us`` or, in a higher pitch, ``en-us+f3``.
        words_per_minute: how fast it speaks.
        slow_s: how much longer than that `synthesize_stream` takes to begin, in seconds.

    """

    def __init__(self, name: str = "en-us", words_per_minute: int = 165, slow_s: float = 0.0) -> None:
        self.name = name
        self.words_per_minute = words_per_minute
        self._slow_s = slow_s

    @measure_latency(OperationType.TTS, provider="espeak-ng")
    async def synthesize_stream(self, text: str) -> AsyncGenerator[bytes, None]:
        """Speak `text` as μ-law, chunk by chunk as it is synthesised; no later sentence before it is asked for."""
        await asyncio.sleep(self._slow_s)
        for sentence in sentences(text):
            async with aclosing(self._spoken(sentence)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def speak(self, text: str) -> bytes:
        """All of `text` as μ-law, not measured: it is how the example's callers speak."""
        return b"".join([chunk async for chunk in self._spoken(text)])

    async def _spoken(self, text: str) -> AsyncGenerator[bytes, None]:
        """The chunks of one sentence, handed from espeak-ng's thread to the event loop."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[bytes] = asyncio.Queue()
        stopped = threading.Event()

        def hand_over(chunk: bytes) -> None:
            if not stopped.is_set():
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        running = loop.run_in_executor(espeak().thread, bind(self._synthesize), text, hand_over, stopped)
        # The executor's result is set by a callback on the loop, so it lands behind the chunks of that thread.
        running.add_done_callback(lambda _: chunks.put_nowait(b""))
        try:
            while chunk := await chunks.get():
                yield chunk
            await running
        finally:
            stopped.set()

    def _synthesize(self, text: str, hand_over: Callable[[bytes], None], stopped: threading.Event) -> None:
        engine = espeak()
        resampler = Resampler(engine.rate, PHONE_RATE)

        def on_audio(samples: Samples) -> bool:
            if chunk := mulaw_encode(resampler.feed(samples)):
                hand_over(chunk)
            return not stopped.is_set()

        if not stopped.is_set():
            engine.synthesize(text, self.name, self.words_per_minute, on_audio)
            if chunk := mulaw_encode(resampler.flush()):
                hand_over(chunk)


def sentences(text: str) -> list[str]:
    """`text` cut behind each full stop, question mark and exclamation mark that ends a sentence."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]
