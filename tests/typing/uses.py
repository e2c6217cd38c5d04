"""What a user writes, as mypy and pyright see it under strict; a line that must be an error says which of mypy's."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, assert_type

from callbot_latency import (
    Alert,
    LatencyMetric,
    OperationType,
    ReporterStatus,
    Severity,
    add_alert_callback,
    bind,
    call,
    init,
    latency_config,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    record,
    report_manager,
    shutdown,
)


@measure_latency(OperationType.STT)
def function(audio: bytes, *, rate: int = 8000) -> str:
    return f"{audio!r} {rate}"


@measure_latency("speech_to_text", provider="google", call_sid_attr="call_sid", metadata={"model": "latest"})
async def coroutine(audio: bytes) -> str:
    return str(audio)


@measure_latency(OperationType.TTS, "speak")
def generator(text: str) -> Generator[bytes, int, bool]:
    sent = yield text.encode()
    return bool(sent)


@measure_latency(OperationType.TTS)
def iterator(text: str) -> Iterator[bytes]:
    yield text.encode()


@measure_latency(OperationType.TTS, audio_bytes_per_s=8000)
async def async_generator(text: str) -> AsyncGenerator[bytes, int]:
    yield text.encode()


@measure_latency(OperationType.TTS)
async def async_iterator(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


class Service:
    @measure_latency(OperationType.RAG)
    def method(self, question: str) -> list[str]:
        return [question]

    @measure_latency(OperationType.RAG)
    async def amethod(self, question: str) -> list[str]:
        return [question]

    @measure_latency(OperationType.RAG)
    @classmethod
    def outside_class(cls, question: str) -> int:
        return len(question)

    @classmethod
    @measure_latency(OperationType.RAG)
    def inside_class(cls, question: str) -> int:
        return len(question)

    @measure_latency(OperationType.RAG)
    @staticmethod
    def outside_static(question: str) -> int:
        return len(question)

    @staticmethod
    @measure_latency(OperationType.RAG)
    def inside_static(question: str) -> int:
        return len(question)

    @property
    @measure_latency(OperationType.RAG)
    def size(self) -> int:
        return 1


async def types_are_kept() -> None:
    assert_type(function(b""), str)
    assert_type(function(b"", rate=16000), str)
    as_coroutine: Coroutine[Any, Any, str] = coroutine(b"")
    assert_type(await as_coroutine, str)
    assert_type(generator(""), Generator[bytes, int, bool])
    assert_type(iterator(""), Iterator[bytes])
    assert_type(async_generator(""), AsyncGenerator[bytes, int])
    assert_type(async_iterator(""), AsyncIterator[bytes])
    service = Service()
    assert_type(service.method(""), list[str])
    assert_type(Service.method(service, ""), list[str])
    assert_type(await service.amethod(""), list[str])
    assert_type(Service.outside_class(""), int)
    assert_type(service.inside_class(""), int)
    assert_type(Service.outside_static(""), int)
    assert_type(service.outside_static(""), int)
    assert_type(service.inside_static(""), int)
    assert_type(service.size, int)
    as_callback: Callable[[bytes], Awaitable[str]] = coroutine
    assert_type(await as_callback(b""), str)
    assert_type(bind(function)(b"", rate=1), str)
    assert_type(measure_latency("rag_inference")(len)([]), int)


async def errors_are_found() -> None:
    function("text")  # type: ignore[arg-type]
    function()  # type: ignore[call-arg]
    function(b"", 8000)  # type: ignore[call-arg]
    function(b"", bits=8)  # type: ignore[call-arg]
    await coroutine(5)  # type: ignore[arg-type]
    await function(b"")  # type: ignore[misc]
    coroutine(b"").upper()  # type: ignore[attr-defined]
    generator(5)  # type: ignore[arg-type]
    async_generator(5)  # type: ignore[arg-type]
    Service().method(5)  # type: ignore[arg-type]
    Service().outside_static(5)  # type: ignore[arg-type]
    Service().inside_static(5)  # type: ignore[arg-type]
    Service().inside_class(5)  # type: ignore[arg-type]
    Service.outside_class(5)  # type: ignore[arg-type]
    measure_latency(5)  # type: ignore[arg-type]
    measure_latency(function)  # type: ignore[arg-type]
    measure_latency()  # type: ignore[call-arg]
    measure_latency("speech_to_text", "x", "google")  # type: ignore[call-arg]
    measure_latency("text_to_speech", audio_bytes_per_s="8000")  # type: ignore[arg-type]
    measure_latency_context("speech_to_text")  # type: ignore[call-arg]
    call(None)  # type: ignore[arg-type]
    call("CA1", "MZ1")  # type: ignore[call-arg]
    record({"operation_type": "speech_to_text"})  # type: ignore[arg-type]
    OperationType.register("crm_lookup")  # type: ignore[call-arg]


async def blocks() -> None:
    with measure_latency_context(OperationType.STT, "listen", call_sid="CA1", metadata={"a": 1}) as handle:
        handle.set_provider("google")
        handle.set_metadata(model="latest", n=1)
        handle.mark_first_output()
        handle.set_audio(duration_ms=1500, size_bytes=12_000)
        handle.set_audio(1500)  # type: ignore[call-arg]
        handle.set_audio(duration_ms="1500")  # type: ignore[arg-type]
        handle.set_provider(5)  # type: ignore[arg-type]
        handle.set_metadata({"a": 1})  # type: ignore[call-arg]
        handle.mark_last_output()  # type: ignore[attr-defined]
    async with measure_latency_context("rag_inference", "ask", audio_bytes_per_s=48_000.0) as later:
        later.mark_first_output()
    with call("CA1", stream_sid="MZ1", metadata={"queue": "sales"}) as opened:
        assert_type(opened, call)
        assert_type(opened.trace_id, str | None)
    async with call("CA1") as opened_later:
        assert_type(opened_later, call)


def heard(alert: Alert) -> None:
    assert_type(alert.severity, Severity)
    assert_type(alert.threshold_ms, float)
    assert_type(alert.metric, LatencyMetric)
    assert_type(alert.metric.call_sid, str | None)
    assert_type(alert.rule, str | None)
    alert.severity = Severity.WARNING  # type: ignore[misc]


def reads() -> None:
    init()
    add_alert_callback(heard)
    latency_tracker.add_alert_callback(heard, Severity.CRITICAL)
    add_alert_callback(reads)  # type: ignore[arg-type]
    assert_type(latency_tracker.get_average_latency("speech_to_text", minutes=1), float | None)
    assert_type(latency_tracker.get_recent_metrics(5, OperationType.STT), list[LatencyMetric])
    assert_type(latency_tracker.get_stats(), dict[str, dict[str, Any]])
    assert_type(latency_tracker.metrics[0], LatencyMetric)
    latency_tracker.enabled = False
    latency_tracker.metrics.clear()
    latency_tracker.export_metrics("m.json")
    latency_tracker.export_metrics("m.json", 5)  # type: ignore[arg-type]
    assert_type(OperationType.register("crm_lookup", warning_ms=1, critical_ms=2), OperationType)
    latency_config.thresholds.get_warning_threshold(OperationType.STT)
    assert_type(shutdown(1.5), bool)


class Reporting:
    def report(self, batch: Sequence[LatencyMetric]) -> None: ...


class Alerted:
    def notify(self, alert: Alert) -> None: ...


report_manager.add_reporter(Reporting(), name="mine", batch_size=500, interval_s=5)
report_manager.add_reporter(Alerted())
report_manager.add_reporter("mine")  # type: ignore[arg-type]
assert_type(report_manager.remove_reporter(Alerted()), bool)
assert_type(report_manager.status(), dict[str, ReporterStatus])
