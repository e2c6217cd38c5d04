"""One turn of a bot on the real pipecat, its engines played by stubs with set delays: ``python -m pipecat_bot``.

Run it in an environment of its own with pipecat-ai installed, and with this folder and the repository on PYTHONPATH.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import recording

recording.begin()

from pipecat.frames.frames import (  # type: ignore[import-not-found]  # noqa: E402
    EndFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # type: ignore[import-not-found]  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # type: ignore[import-not-found]  # noqa: E402
from pipecat.processors.aggregators.llm_context import LLMContext  # type: ignore[import-not-found]  # noqa: E402
from pipecat.services.llm_service import LLMService  # type: ignore[import-not-found]  # noqa: E402
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings  # type: ignore[import-not-found]  # noqa: E402
from pipecat.services.stt_service import STTService  # type: ignore[import-not-found]  # noqa: E402
from pipecat.services.tts_service import TTSService  # type: ignore[import-not-found]  # noqa: E402
from pipecat.utils.tracing.service_decorators import traced_llm, traced_stt, traced_tts  # type: ignore[import-not-found]  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # type: ignore[import-not-found]  # noqa: E402

CALL = "CA" + "0123456789abcdef" * 2


class GoogleSTTService(STTService):
    def __init__(self) -> None:
        super().__init__(settings=STTSettings(model="latest_long", language=None), sample_rate=16_000)

    def can_generate_metrics(self) -> bool:
        return True

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await self.start_processing_metrics()
        yield None

    @traced_stt
    async def _handle_transcription(self, text: str) -> None:
        """The decorator stands where the services have it."""

    async def process_frame(self, frame: Frame, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            await asyncio.sleep(0.2)
            await self.push_frame(TranscriptionFrame("where is my order", "caller", "now", finalized=True))


class OpenAILLMService(LLMService):
    def __init__(self) -> None:
        super().__init__(settings=LLMSettings(model="gpt-4o"))

    def can_generate_metrics(self) -> bool:
        return True

    @traced_llm
    async def _process_context(self, context: LLMContext) -> None:
        await self.start_ttfb_metrics()
        await asyncio.sleep(0.1)
        await self.stop_ttfb_metrics()
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame("It is on its way."))
        await asyncio.sleep(0.05)
        await self.push_frame(LLMFullResponseEndFrame())

    async def process_frame(self, frame: Frame, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            await self._process_context(frame.context)
        else:
            await self.push_frame(frame, direction)


class CartesiaTTSService(TTSService):
    def __init__(self) -> None:
        super().__init__(
            settings=TTSSettings(model="sonic", voice="anna", language=None),
            sample_rate=16_000,
            push_start_frame=True,
            push_stop_frames=True,
        )

    def can_generate_metrics(self) -> bool:
        return True

    @traced_tts
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(0.08)
        await self.stop_ttfb_metrics()
        yield TTSAudioRawFrame(bytes(3200), 16_000, 1, context_id=context_id)


async def main() -> None:
    pipeline = Pipeline([GoogleSTTService(), OpenAILLMService(), CartesiaTTSService()])
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(enable_metrics=True),
        enable_tracing=True,
        conversation_id=CALL,
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")  # type: ignore[untyped-decorator]
    async def on_pipeline_started(worker: Any, frame: Any) -> None:
        started.set()

    async def talk() -> None:
        await started.wait()
        await worker.queue_frame(VADUserStartedSpeakingFrame(start_secs=0.2))
        await worker.queue_frame(UserStartedSpeakingFrame())
        await asyncio.sleep(0.4)
        await worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.1))
        await asyncio.sleep(0.3)
        await worker.queue_frame(UserStoppedSpeakingFrame())
        await worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "where is my order"}])))
        await asyncio.sleep(1.0)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), talk())


asyncio.run(main())
recording.end()
