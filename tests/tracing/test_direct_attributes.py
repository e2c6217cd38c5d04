"""Attributes written past the SDK's checks are the ones that the SDK would have kept."""

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callbot_latency import call, latency_tracker, measure_latency_context
from callbot_latency.runtime import lifecycle as runtime_module
from callbot_latency.runtime.otel_providers import _OurTracerProvider, _resource
from callbot_latency.tracing.sdk_internals import MAX_DIRECT_ATTRIBUTES, AttributeWriting
from callbot_latency.tracing.spans import SpanFactory
from tests.support.subprocesses import facts_of, run_python

METADATA = {"model": "long", "ratio": 0.5, "retries": 3, "cached": True, "words": ["a", 1], "none": None, "raw": b"x"}


class Watching(SpanProcessor):
    """An application's processor, which looks at a span as it starts."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.started.append(dict(span.attributes or {}))


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def measure() -> None:
    with (
        call("CA1", stream_sid="MZ1", metadata=METADATA),
        measure_latency_context("rag_inference", "search", provider="api", metadata=METADATA) as handle,
    ):
        handle.set_metadata(hits=4)


@pytest.mark.usefixtures("measuring")
def test_both_ways_give_the_same_attributes() -> None:
    """On our own provider, before and after the application adds a processor to it."""
    running = runtime_module._runtime
    assert running is not None
    provider: Any = running.providers.tracers
    exporter, watching = InMemorySpanExporter(), Watching()
    TracerProvider.add_span_processor(provider, SimpleSpanProcessor(exporter))
    assert provider.writing.bypass_checks
    measure()
    provider.add_span_processor(watching)
    assert not provider.writing.bypass_checks
    try:
        measure()
    finally:
        provider.writing.bypass_checks = True
    direct, checked = exporter.get_finished_spans()[:2], exporter.get_finished_spans()[2:]
    assert [attributes_of(span) for span in direct] == [attributes_of(span) for span in checked]
    assert attributes_of(direct[0])["metadata.words"] == "['a', 1]"
    assert [started["call_sid"] for started in watching.started] == ["CA1", "CA1"]


@pytest.mark.usefixtures("measuring")
def test_many_facts_take_no_attribute_of_the_operation_along() -> None:
    """Two hundred facts: 64 stand on the span, beside all that it must show, and each is cut to a length."""
    running = runtime_module._runtime
    assert running is not None
    exporter, many = InMemorySpanExporter(), {f"k{n}": "x" * 5_000 for n in range(200)}
    TracerProvider.add_span_processor(running.providers.tracers, SimpleSpanProcessor(exporter))  # type: ignore[arg-type]
    with measure_latency_context("rag_inference", "at once", call_sid="CA1", metadata=many):
        pass
    with measure_latency_context("rag_inference", "one by one", call_sid="CA1") as handle:
        handle.set_metadata(**many)
    for span in exporter.get_finished_spans():
        attributes = attributes_of(span)
        assert {"operation_type", "operation_name", "call_sid", "status"} <= set(attributes)
        assert sum(name.startswith("metadata.") for name in attributes) == 64
        assert len(attributes["metadata.k0"]) == 1_001
    assert all(len(metric.metadata) == 200 for metric in latency_tracker.metrics)


@pytest.mark.usefixtures("measuring")
def test_what_changes_afterwards_is_kept_as_it_was() -> None:
    """A bot's own session, given as a fact, goes on changing; the file has it as it was then."""
    session = {"steps": [1]}
    with measure_latency_context("rag_inference", "ask", metadata={"session": session}) as run:
        run.set_metadata(later=session)
        session["steps"].append(2)
    (metric,) = latency_tracker.metrics
    assert metric.metadata == {"session": {"steps": [1]}, "later": {"steps": [1]}}


@pytest.mark.parametrize("limit", [MAX_DIRECT_ATTRIBUTES, MAX_DIRECT_ATTRIBUTES - 1])
def test_small_limits_are_the_sdks_to_keep(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider whose attribute limit ours could reach is written to through the SDK."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", str(limit))
    assert _OurTracerProvider(_resource()).writing.bypass_checks is (limit == MAX_DIRECT_ATTRIBUTES)
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "40")
    assert not _OurTracerProvider(_resource()).writing.bypass_checks


def test_an_applications_provider_is_written_to_through_the_sdk() -> None:
    """Nothing of its internals is touched."""
    factory = SpanFactory.on(TracerProvider(shutdown_on_exit=False))
    assert factory._writing.bypass_checks is False


def test_an_sdk_that_keeps_attributes_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe at `init()` looks where the attributes would be written."""
    monkeypatch.setattr("callbot_latency.tracing.sdk_internals.getattr", lambda *_: None, raising=False)
    assert not _OurTracerProvider(_resource()).writing.bypass_checks


@pytest.mark.real_time
def test_a_disabled_sdk_has_nothing_to_write_to(tmp_path: Any) -> None:
    """OTEL_SDK_DISABLED: no span keeps attributes, and the metric is whole all the same."""
    done = run_python(
        """
init()
with measure_latency_context("rag_inference", "search", provider="api"):
    pass
(metric,) = latency_tracker.metrics
tell(provider=metric.provider, status=metric.status.value)
""",
        tmp_path,
        {"OTEL_SDK_DISABLED": "true"},
    )
    assert facts_of(done) == {"provider": "api", "status": "success"}


def test_writing_is_off_unless_said() -> None:
    """The safe way is the default."""
    assert AttributeWriting().bypass_checks is False
