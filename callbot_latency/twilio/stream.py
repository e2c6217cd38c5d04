"""A call's Media Stream, read along: from Twilio's messages and the bot's reports to the call's timeline."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

from ..base.internal_errors import call_safely
from ..model.units import NS_PER_MS, NS_PER_S
from ..timeline import Anchor, Timeline
from . import reasons
from .barge_in import Interruptions
from .caller import Caller
from .media_clock import milliseconds_of
from .mulaw import base64_length, leading_silence
from .playback import Playback
from .timeline_notifier import TimelineNotifier
from .webhook import custom_parameters

__all__ = ["TwilioMediaStream"]

Message = Mapping[str, Any] | str | bytes | bytearray

_RATE: Final = 8_000
_MULAW: Final = "audio/x-mulaw"
_NOTHING: Final[Mapping[str, Any]] = {}


class TwilioMediaStream:
    """Derives from the messages of one WebSocket when the caller and the bot spoke, and tells the call's timeline.

    Hand it every message that comes (`on_message`) and every one that is about to be sent (`on_send`), or wrap the
    WebSocket (`measured_websocket`). It does no I/O, never raises, and ignores what it does not know. Call it from one
    thread at a time: the one that runs the WebSocket.

    Args:
        timeline: is told what happens; if None, that of the call which is bound where the messages are handed in.
        clock: the time in nanoseconds; another one than `time.perf_counter_ns` is for tests alone.

    """

    def __init__(self, timeline: Timeline | None = None, *, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._notifier = TimelineNotifier(timeline)
        self._stream_sid: str | None = None
        self._parameters: dict[str, str] = {}
        self._is_over = False
        self._reset(clock())

    def _reset(self, at_ns: int) -> None:
        self._caller = Caller(at_ns, self._notifier)
        self._playback = Playback(self._notifier)
        self._interruptions = Interruptions(self._playback, self._notifier)
        self._sample_ns = NS_PER_S // _RATE
        self._is_mulaw = True

    @property
    def timeline(self) -> Timeline | None:
        """Who is told; unless it is set, that of the bound call, once there is one. Another call's begins anew."""
        return self._notifier.timeline

    @timeline.setter
    def timeline(self, timeline: Timeline | None) -> None:
        self._notifier.timeline = timeline

    @property
    def call_sid(self) -> str | None:
        """The call's id, ``CA...``, once ``start`` came."""
        return self._notifier.call_sid

    @property
    def stream_sid(self) -> str | None:
        """The stream's id, ``MZ...``, once ``start`` came."""
        return self._stream_sid

    @property
    def custom_parameters(self) -> dict[str, str]:
        """What the TwiML gave the stream as ``<Parameter>``."""
        return dict(self._parameters)

    @property
    def media_ms(self) -> float:
        """How much of the caller's audio has come: its place on the media clock, in milliseconds.

        Note it where you begin to feed a recogniser, and add it to the times that this gives its words.
        """
        return self._caller.clock.position_ns / NS_PER_MS

    # -- the messages -----------------------------------------------------------------------------------------------

    def on_message(self, received: Message) -> None:
        """A message came from Twilio: a dict, or the JSON as it came."""
        call_safely(self._received, self._clock(), received)

    def on_send(self, sent: Message) -> None:
        """A message is about to be sent to Twilio. Before it is, since a mark may be back before sending returns."""
        call_safely(self._sent, self._clock(), sent)

    def closed(self) -> None:
        """The WebSocket is closed, which `stop` may have told before."""
        call_safely(self._hang_up, self._clock())

    def _received(self, at_ns: int, received: Message) -> None:
        message = _parsed(received)
        event = message.get("event")
        if event == "start":
            self._start(at_ns, message)
        if self._is_over or not self._is_ours(message):
            return
        self._playback.lapse(at_ns)
        if event == "media":
            self._hear(at_ns, _part(message, "media"))
        elif event == "mark":
            self._playback.returned(at_ns, _name(message))
        elif event == "stop":
            self._hang_up(at_ns)
        self._interruptions.review()

    def _sent(self, at_ns: int, sent: Message) -> None:
        message = _parsed(sent)
        event = message.get("event")
        if self._is_over or not self._is_ours(message):
            return
        self._playback.lapse(at_ns)
        if event == "media":
            self._say(at_ns, _part(message, "media").get("payload"))
        elif event == "mark":
            self._playback.mark(at_ns, _name(message))
        elif event == "clear":
            self._interruptions.cleared(self._playback.clear(at_ns))
        self._interruptions.review()

    def _is_ours(self, message: Mapping[str, Any]) -> bool:
        stream_sid = message.get("streamSid")
        if stream_sid is None or self._stream_sid is None or stream_sid == self._stream_sid:
            return True
        self._notifier.unmeasured(reasons.OTHER_STREAM)
        return False

    def _start(self, at_ns: int, message: Mapping[str, Any]) -> None:
        start = _part(message, "start")
        stream_sid = _text(start.get("streamSid")) or _text(message.get("streamSid"))
        call_sid = _text(start.get("callSid"))
        if self._stream_sid is not None and stream_sid in (None, self._stream_sid):
            return  # the same once more
        if self._stream_sid is not None or self._is_over:
            self._begin_anew(at_ns, call_sid)
        self._stream_sid, self._notifier.call_sid = stream_sid, call_sid
        self._parameters = custom_parameters(message)
        media_format = _part(start, "mediaFormat")
        rate = media_format.get("sampleRate", _RATE)
        self._sample_ns = NS_PER_S // (rate if type(rate) is int and 1_000 <= rate <= 192_000 else _RATE)
        self._is_mulaw = media_format.get("encoding", _MULAW) == _MULAW

    def _begin_anew(self, at_ns: int, call_sid: str | None) -> None:
        """Another stream on this connection: of the same call it goes on, of another one it is another timeline's."""
        if self._notifier.call_sid is not None and call_sid != self._notifier.call_sid:
            self._hang_up(at_ns)
            self._notifier.timeline = None
        else:
            self._finish()
        self._is_over = False
        self._reset(at_ns)

    def _hear(self, at_ns: int, media: Mapping[str, Any]) -> None:
        payload = media.get("payload")
        if media.get("track", "inbound") == "inbound" and isinstance(payload, str):
            length_ns = base64_length(payload) * self._sample_ns
            self._caller.clock.feed(at_ns, milliseconds_of(media.get("timestamp")), length_ns)

    def _say(self, at_ns: int, payload: Any) -> None:
        length_ns = base64_length(payload) * self._sample_ns if isinstance(payload, str) else 0
        if length_ns <= 0:
            return
        playback = self._playback
        if is_first := playback.audio(at_ns, length_ns):
            self._interruptions.bot_spoke()
        utterance = playback.utterance
        if utterance is None or (utterance.audible and not is_first):
            return
        silence_ns = self._leading_silence_ns(payload)
        if is_first:
            self._notifier.notify(
                Timeline.audio_sent, at_ns, leading_silence_ns=silence_ns, is_filler=utterance.is_filler
            )
            utterance.audible = silence_ns is not None or not self._is_mulaw
        elif silence_ns is not None:
            self._notifier.notify(Timeline.audible_after, utterance.silence_ns + silence_ns)
            utterance.audible = True
        if not utterance.audible:
            utterance.silence_ns += length_ns

    def _leading_silence_ns(self, payload: str) -> int | None:
        silent = leading_silence(payload) if self._is_mulaw else None
        return None if silent is None else silent * self._sample_ns

    def _hang_up(self, at_ns: int) -> None:
        if not self._is_over:
            self._finish()
            self._is_over = True
            self._notifier.notify(Timeline.hung_up, at_ns)

    def _finish(self) -> None:
        self._playback.hung_up()
        self._interruptions.hung_up()

    # -- what the bot reports ---------------------------------------------------------------------------------------

    def speech_started(self, *, onset_delay_ms: float = 0.0, audio_ms: float | None = None) -> None:
        """The caller began to speak: as the last audio came, less the `onset_delay_ms` that your detector needs.

        Args:
            onset_delay_ms: in milliseconds.
            audio_ms: where in the caller's audio the detector is, if that is known: see `media_ms`.

        """
        call_safely(self._speech_started, self._clock(), onset_delay_ms, audio_ms)

    def _speech_started(self, at_ns: int, onset_delay_ms: float, audio_ms: float | None) -> None:
        self._settle(at_ns)
        began_ns = None if self._is_over else self._caller.speech_started(at_ns, onset_delay_ms, audio_ms)
        if began_ns is not None:
            self._interruptions.speech_started(began_ns, at_ns)

    def speech_ended(
        self,
        *,
        source: Anchor | str,
        hangover_ms: float = 0.0,
        uncertainty_ms: float | None = None,
        audio_ms: float | None = None,
    ) -> None:
        """The caller has stopped speaking. Say it once, as soon as the bot knows.

        Args:
            source: how it is known. `vad_minus_hangover` and `stt_final`: now, less `hangover_ms`. `stt_word_end`: the
                end of the last word, at `audio_ms`. `twilio_media_clock`: at `audio_ms`, or where the audio has come
                to. `last_frame`: when the last audio came.
            hangover_ms: silence that the detector waited for, in milliseconds; is taken off.
            uncertainty_ms: how far that may be from the truth, in milliseconds; by default that of the source
                (`DEFAULT_UNCERTAINTY_MS`).
            audio_ms: a place in the caller's audio, in milliseconds of the media clock: see `media_ms`.

        """
        call_safely(self._speech_ended, self._clock(), source, hangover_ms, uncertainty_ms, audio_ms)

    def _speech_ended(
        self, at_ns: int, source: Anchor | str, hangover_ms: float, uncertainty_ms: float | None, audio_ms: float | None
    ) -> None:
        if self._is_over:
            return
        self._settle(at_ns)
        self._playback.answers = True
        self._interruptions.said(something=True)
        self._interruptions.review()
        try:
            anchor = Anchor(source)
        except ValueError:
            self._notifier.unmeasured(reasons.UNKNOWN_ANCHOR)
            return
        self._caller.speech_ended(at_ns, anchor, hangover_ms, uncertainty_ms, audio_ms)

    def no_speech(self) -> None:
        """What began was no speech: a cough, the television. An interruption by it counts as false."""
        call_safely(self._no_speech, self._clock())

    def _no_speech(self, at_ns: int) -> None:
        self._settle(at_ns)
        self._interruptions.said(something=False)
        self._interruptions.review()

    def _settle(self, at_ns: int) -> None:
        """What was all played has ended, before something else is told."""
        self._playback.lapse(at_ns)
        utterance = self._playback.utterance
        if utterance is not None and utterance.is_played:
            self._playback.end()
        self._interruptions.review()

    def filler(self, on: bool = True) -> AbstractContextManager[object]:
        """What is sent from now on is a filler, or cached: no answer. ``with stream.filler():`` ends that again."""
        self._playback.is_filler = bool(on)
        block = ExitStack()
        block.callback(self.filler, on=False)
        return block

    def new_utterance(self) -> None:
        """What is sent next is something new, though the bot may not have fallen silent before."""
        self._playback.begins_anew = True


def _parsed(message: Message) -> Mapping[str, Any]:
    if isinstance(message, str | bytes | bytearray):
        try:
            message = json.loads(message)
        except (ValueError, RecursionError):
            return _NOTHING
    return message if isinstance(message, Mapping) else _NOTHING


def _part(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = message.get(name)
    return part if isinstance(part, Mapping) else _NOTHING


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _name(message: Mapping[str, Any]) -> str:
    name = _part(message, "mark").get("name")
    return name if isinstance(name, str) else ""
