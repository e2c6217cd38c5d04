"""What pipecat knows of a turn, told to callbot_latency: an observer, and a processor that sends Twilio's marks."""

from typing import Any

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputTransportMessageFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from callbot_latency import turn
from callbot_latency.twilio import TwilioMediaStream


class TurnObserver(BaseObserver):
    """Opens a turn where the caller has stopped speaking, and closes it once the bot has answered."""

    def __init__(self, stream: TwilioMediaStream) -> None:
        super().__init__(observe_every_push=False)
        self._stream = stream
        self._turn: turn | None = None
        self._is_answered = False
        self.pipecat_turn = 0
        """Pipecat's own number of the turn, which its spans carry: it counts the greeting too."""

    async def on_push_frame(self, data: FramePushed) -> None:
        if data.direction is not FrameDirection.DOWNSTREAM:
            return  # what is broadcast comes in both directions
        match data.frame:
            case VADUserStartedSpeakingFrame(start_secs=seconds):
                self._stream.speech_started(onset_delay_ms=seconds * 1000)
            case VADUserStoppedSpeakingFrame(stop_secs=seconds):
                self._stream.speech_ended(source="vad_minus_hangover", hangover_ms=seconds * 1000)
                if self._turn is None or self._is_answered:
                    self._close()
                    self._open()
            case BotStartedSpeakingFrame():
                self._is_answered = True
            case BotStoppedSpeakingFrame() | EndFrame() | CancelFrame():
                self._close()

    def _open(self) -> None:
        self._is_answered, self._turn = False, turn(metadata={"pipecat_turn": self.pipecat_turn})
        self._turn.__enter__()

    def _close(self) -> None:
        ended, self._turn = self._turn, None
        if ended is not None:
            ended.__exit__(None, None, None)


class Marks(FrameProcessor):
    """Sends a mark behind the first sound of an answer and behind its last. Its place is before transport.output()."""

    def __init__(self, stream: TwilioMediaStream) -> None:
        super().__init__()
        self._stream = stream
        self._speaks = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            self._speaks = False
        elif isinstance(frame, TTSAudioRawFrame) and not self._speaks:
            self._speaks = True
            await self._mark("first")
        elif isinstance(frame, TTSStoppedFrame):
            self._speaks = False
            await self._mark("last")

    async def _mark(self, name: str) -> None:
        message: dict[str, Any] = {"event": "mark", "streamSid": self._stream.stream_sid, "mark": {"name": name}}
        await self.push_frame(OutputTransportMessageFrame(message))
