"""Both name sets on our spans, where the opt-in asks for them."""

from collections.abc import Iterator
from typing import Any

import pytest

from callbot_latency import LatencyConfig, OperationType, attempt, call, measure_latency, measure_latency_context
from callbot_latency.interop.gen_ai import GenAISession
from callbot_latency.runtime import lifecycle as runtime_module
from tests.conftest import Start
from tests.interop.test_framework_spans import exported

SID = "CA" + "0" * 32
OPT_IN = ("http", "gen_ai_latest_experimental")


def gen_ai(attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key.startswith("gen_ai.")}


def test_the_names_stand_beside_ours(start: Start) -> None:
    """Operation, provider, model, call and time to the first chunk, in OpenTelemetry's words and units."""
    start(semconv_opt_in=OPT_IN)
    spans = exported()

    @measure_latency(OperationType.TTS, provider="openai", metadata={"model": "tts-1"})
    def speak() -> Iterator[bytes]:
        yield b""

    with call(SID):
        list(speak())
    spoken = next(span for span in spans() if span.name.startswith("text_to_speech"))
    attributes = dict(spoken.attributes or {})
    first_s = attributes["time_to_first_output_ms"] / 1000
    assert attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(first_s)
    assert gen_ai(attributes) | {"gen_ai.response.time_to_first_chunk": 0} == {
        "gen_ai.operation.name": "text_to_speech",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tts-1",
        "gen_ai.conversation.id": SID,
        "gen_ai.response.time_to_first_chunk": 0,
    }
    assert (attributes["operation_type"], attributes["provider"]) == ("text_to_speech", "openai")


def test_what_the_run_tells_is_told(start: Start) -> None:
    """The provider that answered and the model that it named; attempts carry theirs."""
    start(semconv_opt_in=OPT_IN)
    spans = exported()
    with measure_latency_context(OperationType.STT, "transcribe") as handle:
        handle.set_metadata(model="latest_long")
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"):
            pass
    first, second, operation = (gen_ai(span.attributes) for span in spans())
    assert first == {"gen_ai.operation.name": "speech_to_text", "gen_ai.provider.name": "google"}
    assert second == {"gen_ai.operation.name": "speech_to_text", "gen_ai.provider.name": "openai"}
    assert operation == {
        "gen_ai.operation.name": "speech_to_text",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "latest_long",
    }


def test_a_failure_is_the_providers_that_was_tried(start: Start) -> None:
    """Both names say the same, also where that is known only as the operation ends."""
    start(semconv_opt_in=OPT_IN)
    spans = exported()
    with pytest.raises(TimeoutError), measure_latency_context(OperationType.STT, "transcribe"), attempt("google"):
        raise TimeoutError
    _, operation = (dict(span.attributes or {}) for span in spans())
    assert (operation["provider"], operation["gen_ai.provider.name"]) == ("google", "google")


def test_what_is_no_generative_ai_has_no_such_names(start: Start) -> None:
    """Salesforce is none; RAG inference is a chat."""
    start(semconv_opt_in=OPT_IN)
    spans = exported()
    for kind in (OperationType.SALESFORCE, OperationType.RAG):
        with measure_latency_context(kind, "ask"):
            pass
    assert [gen_ai(span.attributes) for span in spans()] == [{}, {"gen_ai.operation.name": "chat"}]


def test_without_the_opt_in_nothing_of_it_runs(measuring: LatencyConfig) -> None:
    """The session that knows these names is another one."""
    spans = exported()
    with call(SID), measure_latency_context(OperationType.STT, "transcribe", provider="google"):
        pass
    assert all(gen_ai(span.attributes) == {} for span in spans())
    running = runtime_module._runtime
    assert running is not None
    assert not isinstance(running.session, GenAISession)
