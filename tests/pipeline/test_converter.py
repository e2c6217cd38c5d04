"""From what the queue holds to the one event."""

from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode

from callbot_latency import LatencyMetric, OperationStatus, Severity, Thresholds
from callbot_latency.pipeline.converter import to_metric

THRESHOLDS = Thresholds()


def span(end_ns: int = 1_500_000_000, outcome: Status | None = None, **attributes: Any) -> Any:
    made: Any = (
        TracerProvider()
        .get_tracer("t")
        .start_span("a span", start_time=0, attributes={"operation_type": "speech_to_text", **attributes})
    )
    if outcome is not None:
        made.set_status(outcome)
    made.end(end_ns)
    return made


def test_what_still_runs_is_no_measurement() -> None:
    """`record()` cannot put a running operation among the finished ones."""
    running = LatencyMetric("speech_to_text", "listen", 5000, "running")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="status: what still runs is no measurement yet"):
        to_metric(running, Thresholds())


def test_a_foreign_span_with_the_least() -> None:
    """A type is enough: the span's name, times and ids are the rest."""
    made = span()
    told = to_metric(made, THRESHOLDS)
    assert (told.operation_name, told.latency_ms, told.status) == ("a span", 1500.0, OperationStatus.SUCCESS)
    assert told.timestamp == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert (told.call_sid, told.stream_sid, told.provider, told.metadata) == (None, None, None, {})
    assert told.trace_id == format(made.context.trace_id, "032x")
    assert told.severity is None


def test_a_foreign_spans_own_words_count() -> None:
    """Status, first output and metadata; what is no text becomes it."""
    told = to_metric(
        span(
            outcome=Status(StatusCode.ERROR, "no"),
            **{"status": "timeout", "time_to_first_output_ms": 5.0, "metadata.a": 1, "call_sid": 12, "provider": "x"},
        ),
        THRESHOLDS,
    )
    assert (told.status, told.error_message) == (OperationStatus.TIMEOUT, "no")
    assert (told.time_to_first_output_ms, told.metadata, told.call_sid) == (5.0, {"a": 1}, "12")


@pytest.mark.parametrize(
    ("end_ns", "severity"),
    [(1_999_999_999, None), (2_000_000_000, Severity.WARNING), (5_000_000_000, Severity.CRITICAL)],
)
def test_a_foreign_span_gets_its_severity(end_ns: int, severity: Severity | None) -> None:
    """From the same thresholds."""
    assert to_metric(span(end_ns), THRESHOLDS).severity is severity


def test_a_metric_handed_in_keeps_what_it_says() -> None:
    """Its severity is decided unless it has one, or was cancelled."""

    def metric(**more: Any) -> LatencyMetric:
        return LatencyMetric(
            **{
                "operation_type": "speech_to_text",
                "operation_name": "f",
                "latency_ms": 6000,
                "status": "success",
                **more,
            }
        )

    assert to_metric(metric(), THRESHOLDS).severity is Severity.CRITICAL
    assert to_metric(metric(severity="warning"), THRESHOLDS).severity is Severity.WARNING
    assert to_metric(metric(status="cancelled"), THRESHOLDS).severity is None
    quick = metric(latency_ms=1)
    assert to_metric(quick, THRESHOLDS) is quick


@pytest.mark.parametrize("nonsense", [None, 5, "text", object(), {}])
def test_nonsense_is_an_error(nonsense: Any) -> None:
    """The pipeline counts it."""
    with pytest.raises((AttributeError, TypeError, ValueError)):
        to_metric(nonsense, THRESHOLDS)


@pytest.mark.parametrize("wrong", [{"operation_type": "x"}, {"status": "fine"}, {"time_to_first_output_ms": "soon"}])
def test_a_foreign_span_that_makes_no_sense_is_an_error(wrong: dict[str, Any]) -> None:
    """A wrong word is not guessed at."""
    with pytest.raises((TypeError, ValueError)):
        to_metric(span(**wrong), THRESHOLDS)


@pytest.mark.promise("impossible-durations")
def test_a_span_that_ends_before_it_starts_is_an_error() -> None:
    """Unknown is absent, never 0."""
    with pytest.raises(ValueError, match="latency_ms"):
        to_metric(span(-1), THRESHOLDS)
