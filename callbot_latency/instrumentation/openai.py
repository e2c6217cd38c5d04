"""The `openai` client: transcriptions, speech, chat completions and responses, sync and async, whole and streamed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from ..measuring.active_session import ActiveSession
from ..measuring.measurement import Measurement, Operation
from ..measuring.returned_streams import DEFAULT_SPEC, ReturnedStream, StreamSpec, is_stream, wrap_stream
from ..model.operation import OperationType
from .base import ClientInstrumentor
from .measured_call import CallPlan, Planner, ReportedError, body_measured, measured, measured_async, operation
from .patching import Target

__all__ = ["OpenAIInstrumentor"]

_PCM_BYTES_PER_S: Final = 48_000.0
"""`response_format="pcm"` is 24,000 samples a second of 16 bits
(https://platform.openai.com/docs/guides/text-to-speech#supported-output-formats)."""


class OpenAIInstrumentor(ClientInstrumentor):
    """`OpenAIInstrumentor().instrument()` measures every `OpenAI` and `AsyncOpenAI` client of the process."""

    requires: ClassVar[tuple[str, ...]] = ("openai >= 1.99",)

    def targets(self) -> Iterable[Target]:
        from openai.resources.audio.speech import AsyncSpeech, Speech
        from openai.resources.audio.transcriptions import AsyncTranscriptions, Transcriptions
        from openai.resources.chat.completions import AsyncCompletions, Completions
        from openai.resources.responses import AsyncResponses, Responses

        stt, tts, rag = OperationType.STT, OperationType.TTS, OperationType.RAG
        for name, kind, classes, spec in (
            ("transcriptions", stt, (Transcriptions, AsyncTranscriptions), _TRANSCRIPT),
            ("speech", tts, (Speech, AsyncSpeech), DEFAULT_SPEC),
            ("chat.completions", rag, (Completions, AsyncCompletions), _CHAT),
            ("responses", rag, (Responses, AsyncResponses), _RESPONSE),
        ):
            for owner, wrap in zip(classes, (measured, measured_async), strict=True):
                for method in ("create", "parse"):
                    if method in vars(owner):
                        is_awaited = wrap is measured_async
                        named = operation(kind, f"{name}.{method}", "openai", is_awaited=is_awaited)
                        yield Target(owner, method, wrap(_planner(named, spec)))


def _planner(named: Operation, spec: StreamSpec) -> Planner:
    spoken = replace(named, audio_bytes_per_s=_PCM_BYTES_PER_S)

    def plan(_instance: Any, _args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallPlan:
        model = kwargs.get("model")
        known = {"model": model} if isinstance(model, str) else {}
        is_pcm = named.type is OperationType.TTS and kwargs.get("response_format") == "pcm"
        return CallPlan(named, known, _result_hook(spec, spoken if is_pcm else None))

    return plan


def _result_hook(spec: StreamSpec, spoken: Operation | None) -> Callable[[ActiveSession, Measurement, Any], Any]:
    """`spoken` is the operation where the bytes of the answer are its audio, which only the answer tells."""

    def on_result(session: ActiveSession, measurement: Measurement, result: Any) -> Any:
        if is_stream(result):
            return wrap_stream(ReturnedStream(session, measurement, spec), result)
        http_response = getattr(result, "http_response", None)
        if spoken is not None and _is_sound(http_response or result.response, is_unpacked=http_response is None):
            measurement.operation = spoken
        if http_response is not None:
            return result if body_measured(session, measurement, http_response) else None
        _whole(measurement, result)
        return None

    return on_result


def _is_sound(response: Any, *, is_unpacked: bool) -> bool:
    """Whether the bytes of this answer of httpx are samples: no events, as of `stream_format="sse"`, and not packed."""
    headers = response.headers
    is_packed = not is_unpacked and headers.get("content-encoding", "identity") != "identity"
    return not is_packed and "event-stream" not in headers.get("content-type", "")


def _whole(measurement: Measurement, result: Any) -> None:
    """What an answer that came at once tells of its audio."""
    if measurement.operation.type is OperationType.TTS:
        measurement.set_audio(size_bytes=len(result.content))
    elif measurement.operation.type is OperationType.STT:
        usage = getattr(result, "usage", None)
        seconds = getattr(result, "duration", None) or getattr(usage, "seconds", None)
        if isinstance(seconds, (int, float)):
            measurement.set_audio(duration_ms=float(seconds) * 1000)


def _kind(event: Any) -> str:
    return str(getattr(event, "type", ""))


def _has_content(chunk: Any) -> bool:
    return any(
        choice.delta is not None
        and (choice.delta.content or choice.delta.tool_calls or getattr(choice.delta, "refusal", None))
        for choice in chunk.choices
    )


def _has_finished(chunk: Any) -> bool:
    return any(choice.finish_reason is not None for choice in chunk.choices)


def _is_answer(event: Any) -> bool:
    kind = _kind(event)
    return kind.endswith(".delta") and "reasoning" not in kind


_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "transcript.text.done"})
_FAILURES: Final = frozenset({"response.failed", "error"})


def _is_end(event: Any) -> bool:
    return _kind(event) in _ENDS


def _failure(event: Any) -> BaseException | None:
    return ReportedError(_kind(event)) if _kind(event) in _FAILURES else None


_CHAT: Final = StreamSpec(is_output=_has_content, is_last=_has_finished)
_RESPONSE: Final = StreamSpec(is_output=_is_answer, is_last=_is_end, failure=_failure)
_TRANSCRIPT: Final = StreamSpec(is_output=_is_answer, is_last=_is_end)
