"""The main job: a phone call goes through, and is found in Jaeger, Prometheus, InfluxDB and the file."""

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devservers.stack import Stack
from tests.e2e.reading import (
    Span,
    counted_by_influxdb,
    counted_by_prometheus,
    counted_in_file,
    eventually,
    operations,
    prometheus_exemplars,
    prometheus_query,
    spans_of,
    turns_by_influxdb,
    turns_by_prometheus,
    turns_in_file,
)
from tests.support.subprocesses import ROOT, clean_environment

CALLS = 2
CODE = f"""
import asyncio, dataclasses, json
import callbot_latency
from examples.callbot.run import run_calls

callbot_latency.init()
results = asyncio.run(run_calls({CALLS}))
assert callbot_latency.shutdown(10)
print("RESULT " + json.dumps([dataclasses.asdict(result) for result in results]))
"""


@dataclass(frozen=True)
class Run:
    """What two callers said and heard, and where it was measured."""

    service: str
    calls: list[dict[str, Any]]
    file: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Those of operations and attempts."""
        return [row for row in self.rows if "kind" not in row]

    @property
    def turns(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row.get("kind") == "turn"]


@pytest.fixture(scope="module")
def run(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("calls")
    service, file = f"callbot-{uuid.uuid4().hex[:8]}", folder / "metrics.jsonl"
    settings = {**stack.environment(), "OTEL_SERVICE_NAME": service, "LATENCY_METRICS_FILE_PATH": str(file)}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=folder,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return Run(service, json.loads(told.removeprefix("RESULT ")), file)


@pytest.fixture(scope="module")
def spans(stack: Stack, run: Run) -> list[Span]:
    """Every span of the calls, as soon as Jaeger has as many operations as the file."""

    def all_there() -> list[Span]:
        found = [span for call in run.calls for span in spans_of(stack, call["trace_id"])]
        assert sum(operations(found).values()) == counted_in_file(run.file).total()
        return found

    return eventually(all_there)


def test_the_callers_were_understood_and_answered(run: Run) -> None:
    """It is a conversation: each caller was heard and got answers."""
    assert len(run.calls) == CALLS
    for call in run.calls:
        assert call["heard"]
        assert len(call["answered"]) >= len(call["heard"])


def test_every_kind_of_operation_was_measured(run: Run) -> None:
    """Speech-to-text, retrieval, Salesforce and text-to-speech stand in the file for each call."""
    for call in run.calls:
        kinds = {line["operation_type"] for line in run.lines if line["call_sid"] == call["call_sid"]}
        assert kinds == {"speech_to_text", "rag_inference", "salesforce_api", "text_to_speech"}


def test_jaeger_holds_each_call_as_one_trace(run: Run, spans: list[Span]) -> None:
    """call_sid, stream_sid and provider stand on each span; every parent is in the trace, and the root is the call."""
    for call in run.calls:
        of_call = [span for span in spans if span.trace_id == call["trace_id"]]
        by_id = {span.span_id: span for span in of_call}
        roots = [span for span in of_call if not span.parent_id]
        assert [root.name for root in roots] == ["call"]
        for span in of_call:
            assert span.attributes["call_sid"] == call["call_sid"]
            assert span.attributes["stream_sid"] == call["stream_sid"]
            assert not span.parent_id or span.parent_id in by_id
            assert span.start_ns >= roots[0].start_ns
            if "operation_type" in span.attributes:
                assert span.attributes["provider"]
                assert span.attributes["status"]
                assert span.name == f"{span.attributes['operation_type']} {span.attributes['operation_name']}"


def test_span_and_line_tell_the_same_duration(run: Run, spans: list[Span]) -> None:
    """Each line of the file leads to its span in Jaeger, and both say the same to the nanosecond's rounding."""
    by_id = {span.span_id: span for span in spans}
    for line in run.lines:
        span = by_id[line["span_id"]]
        assert span.trace_id == line["trace_id"]
        assert (span.end_ns - span.start_ns) / 1e6 == pytest.approx(line["latency_ms"], abs=1e-3)


def test_a_turn_is_told_the_same_by_its_span_and_its_line(run: Run, spans: list[Span]) -> None:
    """Response, parts that sum to it, anchor; its operations hang beneath it, and it beneath the call."""
    by_id = {span.span_id: span for span in spans}
    assert len(run.turns) == 3 * CALLS
    for turn in run.turns:
        span = by_id[turn["span_id"]]
        assert (span.name, span.trace_id) == ("turn", turn["trace_id"])
        assert by_id[span.parent_id].name == "call"
        for key in ("call_sid", "outcome", "anchor", "response_ms", "response_sent_ms", "answer_sent_ms"):
            assert span.attributes[key] == turn[key]
        assert int(span.attributes["turn"]) == turn["turn"]
        parts = {key.removeprefix("part."): ms for key, ms in span.attributes.items() if key.startswith("part.")}
        assert parts == turn["parts_ms"]
        assert sum(parts.values()) == pytest.approx(turn["response_ms"], abs=1e-6)
        beneath = [each for each in spans if each.parent_id == span.span_id and "operation_type" in each.attributes]
        assert len(beneath) >= 3
        assert {int(each.attributes["turn"]) for each in beneath} == {turn["turn"]}


def test_the_turns_numbers_are_the_same_everywhere(stack: Stack, run: Run) -> None:
    """What the callers waited, and each part of it: the file, Prometheus and InfluxDB have the same counts and sums."""
    wanted = turns_in_file(run.turns)
    assert {series[1] for series in wanted if series[0] == "callbot.turn.contribution"} >= {
        "endpointing",
        "rag_inference",
        "twilio_buffer",
    }

    def agreed() -> None:
        for found in (turns_by_prometheus(stack, run.service), turns_by_influxdb(stack, run.service)):
            assert {series: count for series, (count, _) in found.items()} == {
                series: count for series, (count, _) in wanted.items()
            }
            for series, (_, sum_s) in wanted.items():
                assert found[series][1] == pytest.approx(sum_s, abs=1e-6)

    eventually(agreed)


def test_prometheus_answers_quantiles_by_operation(stack: Stack, run: Run) -> None:
    """A `histogram_quantile` by operation, between the smallest and the largest bucket."""
    query = (
        "histogram_quantile(0.95, sum by (le, operation_type, operation_name) "
        f'(callbot_operation_duration_seconds_bucket{{job="{run.service}"}}))'
    )

    def answered() -> list[dict[str, Any]]:
        rows = prometheus_query(stack, query)
        assert len(rows) == len({(kind, name) for kind, name, *_ in counted_in_file(run.file)})
        return rows

    for row in eventually(answered):
        assert 0 < float(row["value"][1]) <= 60


def test_an_exemplar_leads_to_the_call(stack: Stack, run: Run) -> None:
    """From a bucket in Prometheus to the call's trace in Jaeger."""
    query = f'callbot_operation_duration_seconds_bucket{{job="{run.service}"}}'

    def given() -> set[str]:
        found = {exemplar["labels"]["trace_id"] for exemplar in prometheus_exemplars(stack, query)}
        assert found
        return found

    assert eventually(given) <= {call["trace_id"] for call in run.calls}


def test_the_four_counts_agree(stack: Stack, run: Run, spans: list[Span]) -> None:
    """File, Jaeger, Prometheus and InfluxDB count the same operations, exactly."""
    wanted = counted_in_file(run.file)
    assert operations(spans) == wanted

    def agreed() -> None:
        assert counted_by_prometheus(stack, run.service) == wanted
        assert counted_by_influxdb(stack, run.service) == wanted

    eventually(agreed)


@pytest.mark.promise("cardinality")
def test_ids_are_no_labels(stack: Stack, run: Run) -> None:
    """A call's ids are on spans and in the file, and never multiply the series."""
    eventually(lambda: counted_by_prometheus(stack, run.service))
    (series, *_) = prometheus_query(stack, f'callbot_operation_duration_seconds_count{{job="{run.service}"}}')
    assert not {"call_sid", "stream_sid"} & set(series["metric"])
    tags = stack.influxdb_query('SHOW TAG KEYS FROM "callbot.operation.duration_s_histogram"')
    assert not {"call_sid", "stream_sid", "trace_id"} & {key for (key,) in tags["results"][0]["series"][0]["values"]}


def test_package_is_what_the_checkout_has() -> None:
    """The calls above ran the code of this checkout."""
    import callbot_latency

    assert Path(callbot_latency.__file__).parents[1] == ROOT
