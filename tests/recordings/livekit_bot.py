"""One turn of a bot on the real LiveKit Agents, its engines played by stubs: ``python -m livekit_bot``.

Run it in an environment of its own with livekit-agents installed, and this folder and the repository on PYTHONPATH.
"""

import asyncio
import uuid
from typing import Any

import recording

recording.begin()

from livekit.agents import Agent, AgentSession, function_tool, llm, tts  # type: ignore[import-not-found]  # noqa: E402
from livekit.agents.llm import ChatChunk, ChoiceDelta, FunctionToolCall  # type: ignore[import-not-found]  # noqa: E402
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS  # type: ignore[import-not-found]  # noqa: E402
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities  # type: ignore[import-not-found]  # noqa: E402


class Stream(llm.LLMStream):
    async def _run(self) -> None:
        await asyncio.sleep(0.1)
        asked = any(item.type == "function_call_output" for item in self._chat_ctx.items)
        delta = ChoiceDelta(role="assistant", content="It is on its way. ")
        if not asked:
            call = FunctionToolCall(name="salesforce_find_order", arguments="{}", call_id=str(uuid.uuid4()))
            delta = ChoiceDelta(role="assistant", tool_calls=[call])
        self._event_ch.send_nowait(ChatChunk(id="1", delta=delta))
        await asyncio.sleep(0.05)


class Model(llm.LLM):
    @property
    def model(self) -> str:
        return "gpt-4o"

    @property
    def provider(self) -> str:
        return "openai"

    def chat(
        self, *, chat_ctx: Any, tools: Any = None, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS, **_: Any
    ) -> Stream:
        return Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class Spoken(tts.ChunkedStream):
    async def _run(self, output_emitter: Any) -> None:
        await asyncio.sleep(0.08)
        output_emitter.initialize(request_id="1", sample_rate=16_000, num_channels=1, mime_type="audio/pcm")
        output_emitter.push(bytes(6_400))
        output_emitter.flush()


class Voice(tts.TTS):
    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=16_000, num_channels=1)

    @property
    def model(self) -> str:
        return "sonic"

    @property
    def provider(self) -> str:
        return "cartesia"

    def synthesize(self, text: str, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS) -> Spoken:
        return Spoken(tts=self, input_text=text, conn_options=conn_options)


class Ear(AudioOutput):
    def __init__(self) -> None:
        super().__init__(label="ear", capabilities=AudioOutputCapabilities(pause=False), sample_rate=16_000)
        self._heard_s = 0.0

    async def capture_frame(self, frame: Any) -> None:
        await super().capture_frame(frame)
        self._heard_s += frame.duration

    def flush(self) -> None:
        super().flush()
        self.on_playback_finished(playback_position=self._heard_s, interrupted=False)

    def clear_buffer(self) -> None:
        """Nothing is buffered."""


class Bot(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer.")

    @function_tool
    async def salesforce_find_order(self) -> str:
        """Find the caller's order."""
        await asyncio.sleep(0.03)
        return "on its way"


async def main() -> None:
    session = AgentSession(llm=Model(), tts=Voice())
    session.output.audio = Ear()
    await session.start(Bot())
    await session.run(user_input="where is my order")
    await session.aclose()


asyncio.run(main())
recording.end()
