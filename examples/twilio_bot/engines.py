"""What the bot needs of others, as stubs that sleep. A real bot has its providers here, decorated the same way."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import cycle
from typing import Final

from callbot_latency import OperationType, measure_latency

FRAME_MS: Final = 20
ONSET_MS: Final = 60
"""So much speech makes the detector sure that the caller speaks."""
HANGOVER_MS: Final = 200
"""So much silence makes it sure that the caller has stopped."""
SOUND_200_MS: Final = b"\x10" * 1_600
"""A tone would do; the bot's voice, as μ-law of 8 kHz."""

_looking_up_s = cycle([0.15, 0.6])


@measure_latency(OperationType.SALESFORCE, provider="stub")
async def find_queue() -> str:
    """Which queue the caller belongs to."""
    await asyncio.sleep(0.02)
    return "orders"


@measure_latency(OperationType.STT, provider="stub")
async def transcribe(speech: bytes) -> str:
    """What the caller said."""
    await asyncio.sleep(0.08)
    return f"{len(speech)} bytes of speech"


@measure_latency(OperationType.RAG, provider="stub")
async def ask(question: str) -> str:
    """The answer; every second one takes long."""
    await asyncio.sleep(next(_looking_up_s))
    return f"This is what I know of {question}"


@measure_latency(OperationType.TTS, provider="stub")
async def speak(text: str) -> AsyncGenerator[bytes, None]:
    """The answer as sound, chunk by chunk: the first one, short, is what the caller waits for."""
    await asyncio.sleep(0.06)
    for _ in text.split():
        yield SOUND_200_MS


class Detector:
    """Voice activity detection, as Silero or webrtcvad do it. This one takes for speech whatever is loud."""

    def __init__(self) -> None:
        self.speech = b""
        self._speaks = False
        self._other_frames = 0

    def feed(self, frame: bytes) -> str | None:
        """Take the next 20 ms of μ-law; says ``started`` or ``ended`` once it is sure, and keeps the `speech`."""
        is_loud = max(~sample & 0x7F for sample in frame) > 40
        self._other_frames = self._other_frames + 1 if is_loud is not self._speaks else 0
        self.speech += frame
        if self._other_frames * FRAME_MS < (HANGOVER_MS if self._speaks else ONSET_MS):
            return None
        self._speaks, self._other_frames = not self._speaks, 0
        if self._speaks:
            self.speech = frame
        return "started" if self._speaks else "ended"
