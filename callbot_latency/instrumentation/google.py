"""The clients of `google-cloud-speech` and `google-cloud-texttospeech`, sync and asyncio, whole and streamed."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, Final

from ..measuring.active_session import ActiveSession
from ..measuring.measurement import Measurement
from ..measuring.returned_streams import StreamSpec
from ..model.operation import OperationType
from .base import ClientInstrumentor
from .measured_call import CallPlan, Planner, measured, measured_async, operation
from .patching import Target
from .streamed_requests import field_of, measure_streamed_requests, measure_streamed_requests_async, texts_of

__all__ = ["GoogleInstrumentor"]

_SPEECH: Final = "google-cloud-speech >= 2.33"
_TEXT_TO_SPEECH: Final = "google-cloud-texttospeech >= 2.27"


class GoogleInstrumentor(ClientInstrumentor):
    """`GoogleInstrumentor().instrument()` measures every client of either library that is installed, in each version
    of their APIs.
    """

    requires: ClassVar[tuple[str, ...]] = (_SPEECH, _TEXT_TO_SPEECH)
    any_of = True

    def targets(self) -> Iterable[Target]:
        present = self.present()
        if _SPEECH in present:
            for api in ("speech_v1", "speech_v1p1beta1", "speech_v2"):
                yield from _targets(f"google.cloud.{api}.services.speech", "Speech")
        if _TEXT_TO_SPEECH in present:
            for api in ("texttospeech_v1", "texttospeech_v1beta1"):
                yield from _targets(f"google.cloud.{api}.services.text_to_speech", "TextToSpeech")


def _targets(package: str, name: str) -> Iterator[Target]:
    module = import_module(package)
    for owner, is_awaited in ((getattr(module, f"{name}Client"), False), (getattr(module, f"{name}AsyncClient"), True)):
        unary, streamed = (
            (measured_async, measure_streamed_requests_async) if is_awaited else (measured, measure_streamed_requests)
        )
        for method, (kind, planner) in _UNARY.items():
            if method in vars(owner):
                named = operation(kind, method, "google", is_awaited=is_awaited)
                yield Target(owner, method, unary(planner(named)))
        for method, (kind, reading) in _STREAMED.items():
            if method in vars(owner):
                named = operation(kind, method, "google", is_awaited=is_awaited)
                yield Target(owner, method, streamed(named, reading))


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
    given = field_of(args[0] if args else kwargs.get("request"), name)
    return kwargs.get(name) or given


def _recognizing(named: Any) -> Planner:
    def plan(_instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallPlan:
        config, audio = _argument(args, kwargs, "config"), _argument(args, kwargs, "audio")

        def finish(_session: ActiveSession, measurement: Measurement, _result: Any) -> None:
            duration_ms = _audio_ms(config, field_of(audio, "content"), _BYTES_OF_HEARD, header=0)
            measurement.set_audio(duration_ms=duration_ms)

        return CallPlan(
            named, texts_of(model=field_of(config, "model"), language=field_of(config, "language_code")), finish
        )

    return plan


def _synthesizing(named: Any) -> Planner:
    def plan(_instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallPlan:
        voice, config = _argument(args, kwargs, "voice"), _argument(args, kwargs, "audio_config")

        def finish(_session: ActiveSession, measurement: Measurement, result: Any) -> None:
            audio = result.audio_content
            header = _WAV_HEADER if audio.startswith(b"RIFF") else 0
            duration_ms = _audio_ms(config, audio, _BYTES_OF_SPOKEN, header)
            measurement.set_audio(duration_ms=duration_ms, size_bytes=len(audio))

        return CallPlan(
            named, texts_of(voice=field_of(voice, "name"), language=field_of(voice, "language_code")), finish
        )

    return plan


_WAV_HEADER: Final = 44
_BYTES_OF_HEARD: Final = {1: 2, 3: 1}
"""Bytes a sample of RecognitionConfig.AudioEncoding: LINEAR16, MULAW."""
_BYTES_OF_SPOKEN: Final = {1: 2, 5: 1, 6: 1, 7: 2}
"""Bytes a sample of texttospeech.AudioEncoding: LINEAR16, MULAW, ALAW, PCM."""


def _audio_ms(config: Any, audio: Any, sample_bytes: Mapping[int, int], header: int) -> float | None:
    encoding, rate = (
        field_of(config, "audio_encoding") or field_of(config, "encoding"),
        field_of(config, "sample_rate_hertz"),
    )
    size = sample_bytes.get(encoding) if isinstance(encoding, int) else None
    if size is None or not rate or not isinstance(audio, bytes):
        return None
    channels = field_of(config, "audio_channel_count") or 1
    return float((len(audio) - header) / size / channels / rate * 1000)


def _is_final(response: Any) -> bool:
    return any(result.is_final for result in response.results)


def _audio_size(response: Any) -> int:
    return len(response.audio_content)


_UNARY: Final = {
    "recognize": (OperationType.STT, _recognizing),
    "long_running_recognize": (OperationType.STT, _recognizing),
    "batch_recognize": (OperationType.STT, _recognizing),
    "synthesize_speech": (OperationType.TTS, _synthesizing),
}
_STREAMED: Final = {
    "streaming_recognize": (OperationType.STT, StreamSpec(is_output=_is_final)),
    "streaming_synthesize": (OperationType.TTS, StreamSpec(size_of=_audio_size)),
}
