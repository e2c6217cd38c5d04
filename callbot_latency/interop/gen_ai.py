"""OpenTelemetry's names for generative AI on our spans, beside our own, where OTEL_SEMCONV_STABILITY_OPT_IN asks.

A session of its own, so that whoever does not ask pays nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

from .. import semconv
from ..base.internal_errors import call_safely
from ..measuring.measurement import Measurement
from ..measuring.session import Session
from ..model.operation import OperationType
from ..model.units import NS_PER_S
from .framework_spans import LLM, TOOL

__all__ = ["OPERATIONS", "GenAISession"]

OPERATIONS: Final[Mapping[str, str]] = {
    OperationType.STT.value: "speech_to_text",
    OperationType.TTS.value: "text_to_speech",
    OperationType.RAG.value: "chat",
    LLM: "chat",
    TOOL: "execute_tool",
}
"""``gen_ai.operation.name`` of an operation type; what is none of these is no generative AI, and gets no such name."""
_MODEL: Final = "model"


class GenAISession(Session):
    """A session whose spans carry both name sets."""

    def attributes_of(self, measurement: Measurement, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The span's attributes as it starts: a sampler sees the GenAI ones too."""
        return super().attributes_of(measurement, metadata) | _known(measurement)

    def end(self, measurement: Measurement, exc: BaseException | None) -> None:
        """What the run itself has told since: who answered, with which model, and when first."""
        if measurement.attempts is not None:
            call_safely(measurement.attempts.settle)  # says whose a failure is
        call_safely(_complete, measurement)
        super().end(measurement, exc)


def _known(measurement: Measurement) -> dict[str, Any]:
    name = OPERATIONS.get(measurement.operation.type_value)
    if name is None:
        return {}
    model = measurement.metadata.get(_MODEL)
    known = {
        semconv.GEN_AI_OPERATION_NAME: name,
        semconv.GEN_AI_PROVIDER_NAME: measurement.provider,
        semconv.GEN_AI_REQUEST_MODEL: model if isinstance(model, str) else None,
        semconv.GEN_AI_CONVERSATION_ID: measurement.call_sid,
    }
    return {key: value for key, value in known.items() if value is not None}


def _complete(measurement: Measurement) -> None:
    known = _known(measurement)
    if known and measurement.first_output_ns is not None:
        known[semconv.GEN_AI_TIME_TO_FIRST_CHUNK] = measurement.first_output_ns / NS_PER_S
    measurement.span.set_attributes(known)
