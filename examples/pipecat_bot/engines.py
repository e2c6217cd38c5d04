"""Stubs of pipecat's services, which sleep. A real bot has GoogleSTTService, OpenAILLMService and the like here."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import STTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_llm, traced_stt, traced_tts

_NOT_OURS = (
    "system_instruction",
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "filter_incomplete_user_turns",
    "user_turn_completion_config",
)


class StubDetector(VADAnalyzer):
    """Voice activity detection, as SileroVADAnalyzer does it. This one takes for speech whatever is loud."""

    def __init__(self) -> None:
        super().__init__(params=VADParams(start_secs=0.1, stop_secs=0.2, min_volume=0.0))

    def num_frames_required(self) -> int:
        return int(self.sample_rate / 50)

    def voice_confidence(self, buffer: bytes) -> float:
        return float(any(abs(int.from_bytes(buffer[at : at + 2], "little", signed=True)) > 1_000 for at in (0, -2)))


class StubSTTService(STTService):
    """Is done 80 ms after the caller's last word was heard."""

    def __init__(self) -> None:
        super().__init__(settings=STTSettings(model="stub", language=None), ttfs_p99_latency=0.3)

    def can_generate_metrics(self) -> bool:
        return True

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        yield None

    @traced_stt
    async def _handle_transcription(self, text: str) -> None:
        """The decorator stands where pipecat's services have it."""

    async def process_frame(self, frame: Frame, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            await asyncio.sleep(0.08)
            text = "where is my order"
            await self.push_frame(TranscriptionFrame(text, "caller", time_now_iso8601(), finalized=True))
            await self._handle_transcription(text)


class StubLLMService(LLMService):
    """Says its first word after 150 ms."""

    def __init__(self) -> None:
        super().__init__(settings=LLMSettings(model="stub", **dict.fromkeys(_NOT_OURS)))

    def can_generate_metrics(self) -> bool:
        return True

    @traced_llm
    async def _process_context(self, context: LLMContext) -> None:
        await self.start_ttfb_metrics()
        await asyncio.sleep(0.15)
        await self.stop_ttfb_metrics()
        await self.push_frame(LLMTextFrame("It is on its way and will be there tomorrow."))

    async def process_frame(self, frame: Frame, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            await self.push_frame(LLMFullResponseStartFrame())
            await self._process_context(frame.context)
            await self.push_frame(LLMFullResponseEndFrame())
        else:
            await self.push_frame(frame, direction)


class StubTTSService(TTSService):
    """Has its first sound after 60 ms, and says two seconds of it."""

    def __init__(self) -> None:
        settings = TTSSettings(model="stub", voice="stub", language=None)
        super().__init__(settings=settings, push_start_frame=True, push_stop_frames=True)

    def can_generate_metrics(self) -> bool:
        return True

    @traced_tts
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(0.06)
        await self.stop_ttfb_metrics()
        for _ in range(10):
            yield TTSAudioRawFrame(b"\x00\x40" * (self.sample_rate // 5), self.sample_rate, 1, context_id=context_id)
