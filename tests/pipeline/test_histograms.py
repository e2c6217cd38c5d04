"""The instruments: units, edges, labels, exemplars."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from callbot_latency import (
    LatencyConfig,
    LatencyMetric,
    OperationType,
    Thresholds,
    measure_latency_context,
)
from callbot_latency.base.drop_counters import dropped, unmeasured
from callbot_latency.model.operation import ThresholdsMs
from callbot_latency.pipeline.histograms import Histograms, views
from callbot_latency.pipeline.instruments import bucket_bounds_s
from callbot_latency.semconv import DURATION_EDGES_S, MAX_NAMES
from tests.support import measured

DURATION = "callbot.operation.duration"
FIRST_OUTPUT = "callbot.operation.time_to_first_output"
BREACHES = "callbot.threshold.breaches"

metric = partial(measured.metric, provider="google")


class Recorder:
    """Histograms on a meter provider of their own, with our Views, or with the instruments' advice alone."""

    def __init__(self, thresholds: Thresholds | None = None, with_views: bool = True) -> None:
        thresholds = thresholds or Thresholds()
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            metric_readers=[self.reader],
            views=views(thresholds) if with_views else (),
            exemplar_filter=AlwaysOnExemplarFilter(),
            shutdown_on_exit=False,
        )
        self.histograms = Histograms(self.provider.get_meter("callbot_latency"), thresholds)

    def report(self, *metrics: LatencyMetric) -> None:
        self.histograms.report(metrics)

    def instruments(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def points(self, name: str) -> Sequence[Any]:
        return list(self.instruments()[name].data.data_points)


def test_a_response_is_recorded_as_heard_and_as_sent_with_its_parts(with_views: bool) -> None:
    """In seconds; by anchor, and the parts by their name. What was not measured is nowhere."""
    recorder = Recorder(with_views=with_views)
    recorder.histograms.report_turns([measured.turn(), measured.turn(response_ms=None), measured.turn(anchor=None)])
    response = {tuple(sorted(p.attributes.items())): (p.count, p.sum) for p in recorder.points("callbot.turn.response")}
    assert response == {
        (("anchor", "stt_final"), ("until", "heard")): (1, 1.5),
        (("anchor", "stt_final"), ("until", "sent")): (2, 2.8),
    }
    parts = {p.attributes["part"]: (p.count, p.sum) for p in recorder.points("callbot.turn.contribution")}
    assert parts == {"endpointing": (2, 0.6), "speech_to_text": (2, 2.4)}


@pytest.fixture(params=[True, False], ids=["views", "advice"])
def with_views(request: pytest.FixtureRequest) -> bool:
    """By Views on a provider of ours, and by the instruments' advice on an application's."""
    return bool(request.param)


def test_instruments_have_their_kind_and_unit(with_views: bool) -> None:
    """Seconds for what OpenTelemetry speaks; each count says what it counts."""
    dropped.add("test_histograms")
    unmeasured.add("test_histograms")
    recorder = Recorder(with_views=with_views)
    recorder.report(metric(5000, time_to_first_output_ms=100, severity="critical"))
    recorder.histograms.report_turns([measured.turn()])
    told = {name: (type(m.data).__name__, m.unit) for name, m in recorder.instruments().items()}
    assert told == {
        DURATION: ("Histogram", "s"),
        FIRST_OUTPUT: ("Histogram", "s"),
        "callbot.turn.response": ("Histogram", "s"),
        "callbot.turn.contribution": ("Histogram", "s"),
        "callbot.turns.unmeasured": ("Sum", "{turn}"),
        BREACHES: ("Sum", "{breach}"),
        "callbot.operations.active": ("Sum", "{operation}"),
        "callbot.telemetry.dropped": ("Sum", "{item}"),
    }
    assert recorder.instruments()[BREACHES].data.is_monotonic
    assert recorder.instruments()["callbot.telemetry.dropped"].data.is_monotonic
    assert not recorder.instruments()["callbot.operations.active"].data.is_monotonic


def test_values_are_in_seconds(with_views: bool) -> None:
    """1500 ms is 1.5."""
    recorder = Recorder(with_views=with_views)
    recorder.report(metric(1500, time_to_first_output_ms=250))
    (duration,) = recorder.points(DURATION)
    (first,) = recorder.points(FIRST_OUTPUT)
    assert (duration.sum, duration.count) == (1.5, 1)
    assert (first.sum, first.count) == (0.25, 1)


@pytest.mark.usefixtures("fresh_types")
def test_every_threshold_is_an_edge(with_views: bool) -> None:
    """Defaults, configured and registered ones."""
    OperationType.register("crm_lookup", warning_ms=777, critical_ms=1234.5)
    config = LatencyConfig(stt_warning_ms=1111, stt_critical_ms=2222.25, metrics_file_path="unused")  # type: ignore[arg-type]
    recorder = Recorder(config.thresholds, with_views)
    recorder.report(metric(1, time_to_first_output_ms=1))
    wanted = {0.777, 1.2345, 1.111, 2.22225, 1.5, 3.0, 1.0, 8.0, *DURATION_EDGES_S}
    for name in (DURATION, FIRST_OUTPUT):
        (point,) = recorder.points(name)
        assert set(point.explicit_bounds) == wanted
        assert list(point.explicit_bounds) == sorted(point.explicit_bounds)


def test_a_threshold_that_is_an_edge_already_is_there_once() -> None:
    """Edges are strictly ascending."""
    edges = bucket_bounds_s(Thresholds({"speech_to_text": ThresholdsMs(100, 200)}))
    assert len(edges) == len(set(edges))


def test_a_value_equal_to_an_edge_is_in_the_bucket_that_ends_there(with_views: bool) -> None:
    """An edge is `le`: the bucket up to and including it."""
    recorder = Recorder(with_views=with_views)
    recorder.report(metric(2000))
    (point,) = recorder.points(DURATION)
    assert point.bucket_counts[list(point.explicit_bounds).index(2.0)] == 1


@pytest.mark.promise("cardinality")
def test_labels_are_exactly_these(with_views: bool) -> None:
    """No id of a call ever becomes a label."""
    recorder = Recorder(with_views=with_views)
    recorder.report(
        metric(
            5000, call_sid="CA1", stream_sid="MZ1", time_to_first_output_ms=1, severity="critical", metadata={"a": 1}
        )
    )
    labels = {"operation_type": "speech_to_text", "operation_name": "f", "provider": "google"}
    assert dict(recorder.points(DURATION)[0].attributes) == {**labels, "status": "success"}
    assert dict(recorder.points(FIRST_OUTPUT)[0].attributes) == labels
    assert dict(recorder.points(BREACHES)[0].attributes) == {
        "operation_type": "speech_to_text",
        "provider": "google",
        "severity": "critical",
    }


def test_an_unknown_provider_is_no_label() -> None:
    """Absent, not empty."""
    recorder = Recorder()
    recorder.report(metric(provider=None))
    assert "provider" not in recorder.points(DURATION)[0].attributes


def test_each_status_is_counted_for_itself() -> None:
    """Cancelled ones too: who reads chooses."""
    recorder = Recorder()
    recorder.report(*(metric(status=status) for status in ("success", "error", "timeout", "cancelled", "cancelled")))
    counts = {point.attributes["status"]: point.count for point in recorder.points(DURATION)}
    assert counts == {"success": 1, "error": 1, "timeout": 1, "cancelled": 2}


def test_breaches_are_counted_by_severity() -> None:
    """One each, and nothing for what breached nothing."""
    recorder = Recorder()
    recorder.report(*(metric(severity=severity) for severity in ("warning", "warning", "critical", None)))
    counts = {point.attributes["severity"]: point.value for point in recorder.points(BREACHES)}
    assert counts == {"warning": 2, "critical": 1}


def test_exemplars_lead_to_the_trace_and_carry_nothing_else() -> None:
    """Trace and span of the measured operation, on each histogram."""
    recorder = Recorder()
    recorder.report(
        metric(1500, call_sid="CA1", trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331",
               time_to_first_output_ms=1)
    )  # fmt: skip
    instruments = recorder.instruments()
    for name in (DURATION, FIRST_OUTPUT):
        (exemplar,) = instruments[name].data.data_points[0].exemplars
        assert exemplar.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
        assert exemplar.span_id == 0xB7AD6B7169203331
        assert not exemplar.filtered_attributes


def test_an_operation_without_a_sampled_span_has_no_trace_in_its_exemplar() -> None:
    """A link that leads nowhere is worse than none."""
    recorder = Recorder()
    recorder.report(metric(1500, trace_id="0af7651916cd43dd8448eb211c80319c"))
    (exemplar,) = recorder.points(DURATION)[0].exemplars
    assert not exemplar.trace_id


@pytest.mark.promise("cardinality")
def test_two_hundred_names_are_labels_and_the_rest_is_other() -> None:
    """The first 200 stay themselves for good; later ones are `other`, and counted."""
    broken = metric()
    object.__setattr__(broken, "latency_ms", "long")
    recorder, before = Recorder(), dropped.by_reason().get("operation_name_label", 0)
    names = [f"n{n}" for n in range(MAX_NAMES + 5)]
    recorder.report(*(metric(operation_name=name) for name in names))
    recorder.report(metric(operation_name="n0"))
    counts = {point.attributes["operation_name"]: point.count for point in recorder.points(DURATION)}
    assert MAX_NAMES == 200
    assert len(counts) == 201
    assert counts["other"] == 5
    assert counts["n0"] == 2
    assert dropped.by_reason()["operation_name_label"] - before == 5


def test_what_runs_now_is_a_gauge(measuring: LatencyConfig) -> None:
    """By type; a type of which nothing runs is 0."""
    recorder = Recorder()

    def active() -> dict[str, int]:
        return {p.attributes["operation_type"]: p.value for p in recorder.points("callbot.operations.active")}

    nothing = {"speech_to_text": 0, "text_to_speech": 0, "salesforce_api": 0, "rag_inference": 0}
    assert active() == nothing
    with (
        measure_latency_context("speech_to_text", "a"),
        measure_latency_context("speech_to_text", "b"),
        measure_latency_context("rag_inference", "c"),
    ):
        assert active() == {**nothing, "speech_to_text": 2, "rag_inference": 1}
    assert active() == nothing


def test_what_was_dropped_is_told_by_reason() -> None:
    """As a total that only grows."""
    recorder = Recorder()
    dropped.add("test_told", 3)

    def told() -> int:
        (value,) = [
            point.value
            for point in recorder.points("callbot.telemetry.dropped")
            if point.attributes["reason"] == "test_told"
        ]
        return int(value)

    before = told()
    dropped.add("test_told", 2)
    assert told() == before + 2


def test_one_metric_that_cannot_be_recorded_takes_no_other_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted."""
    monkeypatch.setattr("callbot_latency.base.internal_errors.raise_internal_errors.enabled", False)
    broken = metric()
    object.__setattr__(broken, "latency_ms", "long")
    recorder, before = Recorder(), dropped.by_reason().get("internal_error", 0)
    recorder.report(metric(), broken, metric())
    assert recorder.points(DURATION)[0].count == 2
    assert dropped.by_reason()["internal_error"] - before == 1
