"""Stubs of LiveKit's plugins, which sleep, and a caller in place of a room. A real bot has silero, deepgram, ..."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import llm, stt, tts, vad
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities

HANGOVER_MS = 200
"""So much silence makes the detector sure that the caller has stopped: silero.VAD.load(min_silence_duration=0.2)."""
_ONSET_MS = 60
_RATE = 16_000
_FRAME_S = 0.02
_SAMPLES = int(_RATE * _FRAME_S)
_LOUD, _SILENT = b"\x00\x40" * _SAMPLES, bytes(2 * _SAMPLES)


class StubDetector(vad.VAD):
    """Voice activity detection, as silero.VAD does it. This one takes for speech whatever is loud."""

    def __init__(self) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=_FRAME_S))

    def stream(self) -> "_Detecting":
        return _Detecting(self)


class _Detecting(vad.VADStream):
    async def _main_task(self) -> None:
        event = vad.VADEvent(vad.VADEventType.INFERENCE_DONE, 0, 0.0, speech_duration=0.0, silence_duration=0.0)
        other_s = 0.0
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            speaks, length_s = event.speaking, frame.duration
            other_s = other_s + length_s if any(bytes(frame.data[:2])) is not speaks else 0.0
            event = replace(
                event,
                samples_index=event.samples_index + frame.samples_per_channel,
                timestamp=time.time(),
                speech_duration=event.speech_duration + length_s if speaks else 0.0,
                silence_duration=other_s if speaks else 0.0,
                frames=[frame],
            )
            self._event_ch.send_nowait(event)
            if other_s * 1000 > (HANGOVER_MS if speaks else _ONSET_MS) - 1:
                event, other_s = replace(event, speaking=not speaks), 0.0
                kind = vad.VADEventType.END_OF_SPEECH if speaks else vad.VADEventType.START_OF_SPEECH
                self._event_ch.send_nowait(replace(event, type=kind))


class StubSTT(stt.STT):
    """Is done 80 ms after the caller has stopped."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))

    @property
    def provider(self) -> str:
        return "stub"

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        await asyncio.sleep(0.08)
        said = stt.SpeechData(language="en", text="where is my order")
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[said])


class StubLLM(llm.LLM):
    """Says its first word after 150 ms."""

    @property
    def model(self) -> str:
        return "stub"

    @property
    def provider(self) -> str:
        return "stub"

    def chat(
        self, *, chat_ctx: Any, tools: Any = None, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS, **_: Any
    ) -> "_Answer":
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        await asyncio.sleep(0.15)
        words = llm.ChoiceDelta(role="assistant", content="It is on its way and will be there tomorrow. ")
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=words))


class StubTTS(tts.TTS):
    """Has its sound after 60 ms: two seconds."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=_RATE, num_channels=1)

    @property
    def provider(self) -> str:
        return "stub"

    def synthesize(self, text: str, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS) -> "_Spoken":
        return _Spoken(tts=self, input_text=text, conn_options=conn_options)


class _Spoken(tts.ChunkedStream):
    async def _run(self, output_emitter: Any) -> None:
        await asyncio.sleep(0.06)
        output_emitter.initialize(request_id="1", sample_rate=_RATE, num_channels=1, mime_type="audio/pcm")
        output_emitter.push(b"\x00\x40" * _RATE * 2)
        output_emitter.flush()


class Mouth(AudioInput):
    """What the caller says: silence, but for the seconds that `say` is told."""

    def __init__(self) -> None:
        super().__init__(label="caller")
        self._due_s = 0.0
        self._frames = 0
        self._said = asyncio.Event()
        self.stopped_at: list[float] = []

    async def say(self, seconds: float) -> None:
        """Speak for so long."""
        self._frames = round(seconds / _FRAME_S)
        self._said.clear()
        await self._said.wait()

    async def __anext__(self) -> rtc.AudioFrame:
        now_s = time.perf_counter()
        self._due_s = max(self._due_s, now_s - 1) + _FRAME_S if self._due_s else now_s
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        is_loud, self._frames = self._frames > 0, max(0, self._frames - 1)
        if is_loud and not self._frames:
            self.stopped_at.append(time.perf_counter())
            self._said.set()
        return rtc.AudioFrame(_LOUD if is_loud else _SILENT, _RATE, 1, _SAMPLES)


class Ear(AudioOutput):
    """Plays what the bot says, as long as it takes."""

    def __init__(self) -> None:
        super().__init__(label="caller", capabilities=AudioOutputCapabilities(pause=False), sample_rate=_RATE)
        self._began_s: float | None = None
        self._length_s = 0.0
        self._playing: asyncio.TimerHandle | None = None
        self.heard_at: list[float] = []

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if self._began_s is None:
            self._began_s = time.perf_counter()
            self.heard_at.append(self._began_s)
            self.on_playback_started(created_at=time.time())
        self._length_s += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._began_s is not None and self._playing is None:
            left_s = self._began_s + self._length_s - time.perf_counter()
            self._playing = asyncio.get_running_loop().call_later(max(0.0, left_s), self._ended, False)

    def clear_buffer(self) -> None:
        if self._began_s is not None:
            self._ended(interrupted=True)

    def _ended(self, interrupted: bool) -> None:
        began_s, self._began_s = self._began_s or 0.0, None
        length_s, self._length_s = self._length_s, 0.0
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
        position_s = min(length_s, time.perf_counter() - began_s)
        self.on_playback_finished(playback_position=position_s, interrupted=interrupted)
