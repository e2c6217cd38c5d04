"""The direct reporters and the real servers: Prometheus answers as by the Collector, InfluxDB has every point."""

import csv
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from callbot_latency import Anchor, InfluxDBReporter, LatencyMetric, PrometheusReporter, Thresholds, TurnMetric
from callbot_latency.base.drop_counters import dropped, unmeasured
from callbot_latency.pipeline.histograms import Histograms, views
from callbot_latency.reporters import PermanentError, TransientError
from callbot_latency.timeline import BargeIn
from devservers.stack import DATABASE, USER, Stack
from tests.e2e.reading import eventually, prometheus_query
from tests.support import measured as one
from tests.support.subprocesses import facts_of, run_python

ROOT = Path(__file__).parents[2]
BUCKET = f"{DATABASE}/autogen"
THRESHOLDS = Thresholds()


def measured() -> list[LatencyMetric]:
    """Some 200 operations of every kind, quick and slow, with and without a provider."""
    made = []
    for kind in ("speech_to_text", "text_to_speech", "salesforce_api", "rag_inference"):
        for i in range(50):
            latency_ms = 40.0 + 37.5 * i + (6000.0 if i % 17 == 0 else 0.0)
            status = "cancelled" if i % 13 == 5 else "error" if i % 11 == 5 else "timeout" if i % 19 == 5 else "success"
            made.append(
                LatencyMetric(
                    kind,  # type: ignore[arg-type]
                    f"{kind}_{i % 3}",
                    latency_ms,
                    status,  # type: ignore[arg-type]
                    call_sid=f"CA{i}",
                    provider=None if i % 7 == 0 else ("google", "openai")[i % 2],
                    severity=None if status == "cancelled" else THRESHOLDS.severity(kind, latency_ms),
                    time_to_first_output_ms=latency_ms / 4 if kind == "text_to_speech" else None,
                )
            )
    return made


def turns() -> list[TurnMetric]:
    """Forty turns: by every anchor, heard or only sent, and some that could not be measured."""
    anchors = list(Anchor)
    return [
        one.turn(
            n,
            anchor=None if n % 10 == 9 else anchors[n % len(anchors)],
            response_ms=None if n % 4 == 3 else 300.0 + 75 * n,
            response_sent_ms=200.0 + 75 * n,
            parts_ms={"endpointing": 150.0, "speech_to_text": 50.0 + 75 * n},
        )
        for n in range(40)
    ]


@dataclass(frozen=True)
class Both:
    """The same operations and turns, by the Collector and by the Pushgateway."""

    collector: str
    pushgateway: str


@pytest.fixture(scope="module")
def both(stack: Stack) -> Iterator[Both]:
    """Sent in two parts, so that rates and increases have something to see."""
    # A reason that a bot had, before either side reads them.
    dropped.add("test_without_collector", 2)
    unmeasured.add("test_without_collector", 3)
    jobs = Both(f"by-collector-{uuid.uuid4().hex[:6]}", f"by-push-{uuid.uuid4().hex[:6]}")
    exporter = OTLPMetricExporter(endpoint=stack.url("otlp_grpc"), insecure=True)
    provider = MeterProvider(
        metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=1000)],
        resource=Resource.create({"service.name": jobs.collector, "service.instance.id": "1"}),
        views=views(THRESHOLDS),
        shutdown_on_exit=False,
    )
    histograms = Histograms(provider.get_meter("callbot_latency"), THRESHOLDS)
    pushed = PrometheusReporter(stack.url("pushgateway"), job=jobs.pushgateway)
    try:
        for parts in (1, 2):
            histograms.report(measured())
            histograms.report_turns(turns())
            provider.force_flush()
            pushed.report_turns(turns())
            pushed.report(measured())
            for job in (jobs.collector, jobs.pushgateway):
                eventually(partial(_has_come, stack, job, parts * len(measured())))
        yield jobs
    finally:
        provider.shutdown()


def _has_come(stack: Stack, job: str, wanted: int) -> None:
    (row,) = prometheus_query(stack, f'sum(callbot_operation_duration_seconds_count{{job="{job}"}})') or [{}]
    assert row
    assert float(row["value"][1]) == wanted


Vector = dict[frozenset[tuple[str, str]], float]


def asked(stack: Stack, query: str) -> Vector:
    """The answer by labels; edges as numbers, since the two ways may write 2 and 2.0."""
    return {
        frozenset((k, str(float(v)) if k == "le" else v) for k, v in row["metric"].items()): float(row["value"][1])
        for row in prometheus_query(stack, query)
    }


def of_job(expression: str, job: str) -> str:
    """A rule's expression over one job: each selector of a metric of ours gets the job."""

    def with_job(found: re.Match[str]) -> str:
        inner = (found[2] or "").strip("{}")
        return f'{found[1]}{{job="{job}"{"," if inner else ""}{inner}}}'

    return re.sub(r"(?<![:\w])(callbot_\w+)(\{[^}]*\})?(?![:\w])", with_job, expression)


QUERIES = {
    "every bucket": (
        "sum by (le, operation_type, operation_name, provider, status)"
        ' (callbot_operation_duration_seconds_bucket{job="$job"})'
    ),
    "every first output": (
        "sum by (le, operation_type, operation_name, provider)"
        ' (callbot_operation_time_to_first_output_seconds_bucket{job="$job"})'
    ),
    "sums": 'sum by (operation_type, provider, status) (callbot_operation_duration_seconds_sum{job="$job"})',
    "p95": (
        "histogram_quantile(0.95, sum by (le, operation_type, operation_name)"
        ' (callbot_operation_duration_seconds_bucket{job="$job", status!="cancelled"}))'
    ),
    "breaches": 'sum by (operation_type, provider, severity) (callbot_threshold_breaches_total{job="$job"})',
    "active": 'sum by (operation_type) (callbot_operations_active{job="$job"})',
    "dropped": 'sum by (reason) (callbot_telemetry_dropped_total{job="$job", reason="test_without_collector"})',
    "every response": 'sum by (le, anchor, until) (callbot_turn_response_seconds_bucket{job="$job"})',
    "p95 of what was heard": (
        "histogram_quantile(0.95, sum by (le, anchor)"
        ' (callbot_turn_response_seconds_bucket{job="$job", until="heard"}))'
    ),
    "every part": 'sum by (le, part) (callbot_turn_contribution_seconds_bucket{job="$job"})',
    "share of each part": (
        'sum by (part) (callbot_turn_contribution_seconds_sum{job="$job"})'
        ' / scalar(sum(callbot_turn_contribution_seconds_sum{job="$job"}))'
    ),
    "unmeasured": 'sum by (reason) (callbot_turns_unmeasured_total{job="$job", reason="test_without_collector"})',
}


@pytest.mark.parametrize("name", QUERIES)
def test_prometheus_answers_the_same(stack: Stack, both: Both, name: str) -> None:
    """The same numbers by the same labels, to the last bucket."""
    by_collector, by_push = (
        asked(stack, QUERIES[name].replace("$job", job)) for job in (both.collector, both.pushgateway)
    )
    assert by_collector
    assert by_push == pytest.approx(by_collector)


def test_the_series_have_the_same_labels(stack: Stack, both: Both) -> None:
    """Besides job and instance, none more and none less."""

    def labels(job: str) -> set[tuple[str, ...]]:
        rows = prometheus_query(stack, f'{{__name__=~"callbot_.*", job="{job}"}}')
        assert rows
        return {tuple(sorted(row["metric"])) + (row["metric"]["__name__"],) for row in rows}

    assert labels(both.pushgateway) == labels(both.collector)


def test_counts_above_a_threshold_are_exact(stack: Stack, both: Both) -> None:
    """A threshold is an edge, and its breaches can be read off the histogram as well."""
    for job in (both.collector, both.pushgateway):
        (row,) = prometheus_query(
            stack,
            f'sum(callbot_operation_duration_seconds_count{{job="{job}",operation_type="salesforce_api",status!="cancelled"}})'
            f' - sum(callbot_operation_duration_seconds_bucket{{job="{job}",operation_type="salesforce_api",'
            f'status!="cancelled",le=~"1|1.0"}})',
        )
        slow = [m for m in measured() if m.operation_type.value == "salesforce_api" and m.severity]
        assert float(row["value"][1]) == 2 * len(slow)


def dashboard_expressions() -> list[str]:
    panels = json.loads((ROOT / "deploy/grafana/dashboards/callbot-latency.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", []) if "expr" in target]
    assert len(found) > 10
    return found


def rule_expressions() -> list[str]:
    found = [
        rule["expr"]
        for file in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    return [expression for expression in found if of_job(expression, "x") != expression and "absent" not in expression]


GRAFANA = {"$__rate_interval": "1m", "$__range": "5m", "$operation_type": ".*", "$provider": ".*"}


@pytest.mark.parametrize("kind", ["dashboard", "rules"])
def test_what_was_written_for_the_collector_works_unchanged(stack: Stack, both: Both, kind: str) -> None:
    """Each expression of the Grafana dashboard and of the rules has an answer for the same labels by both ways."""

    def answers(expression: str, job: str) -> set[frozenset[tuple[str, str]]]:
        query = expression.replace("$job", job) if kind == "dashboard" else of_job(expression, job)
        for variable, value in GRAFANA.items():
            query = query.replace(variable, value)
        return {
            frozenset(pair for pair in labels if pair[0] not in ("job", "instance")) for labels in asked(stack, query)
        }

    expressions = dashboard_expressions() if kind == "dashboard" else rule_expressions()
    assert expressions

    def the_same() -> None:
        for expression in expressions:
            assert answers(expression, both.pushgateway) == answers(expression, both.collector), expression

    eventually(the_same)
    # Alerts that do not fire have none.
    assert sum(bool(answers(expression, both.pushgateway)) for expression in expressions) >= 4


def test_a_second_worker_and_a_second_push_are_counted_once_each(stack: Stack) -> None:
    """Groups of two processes stand side by side; a push replaces its own group."""
    job = f"workers-{uuid.uuid4().hex[:6]}"
    one, two = (
        PrometheusReporter(stack.url("pushgateway"), job=job, grouping_key={"instance": name}, delete_at_close=True)
        for name in ("one", "two")
    )
    for reporter in (one, two):
        reporter.report(measured()[:10])
        reporter.report(measured()[:5])
    eventually(partial(_has_come, stack, job, 30))
    one.close()
    two.close()
    groups = httpx.get(f"{stack.url('pushgateway')}/api/v1/metrics").json()["data"]
    assert job not in {group["labels"]["job"] for group in groups}


def test_a_clash_of_types_is_refused_with_what_to_do(binary: Callable[[str], Path], tmp_path: Path) -> None:
    """The real Pushgateway's 400; once the other group is gone, the next push carries everything."""
    binary("pushgateway")
    with Stack(["pushgateway"], folder=tmp_path) as alone:
        metrics = f"{alone.url('pushgateway')}/metrics"
        other = "# TYPE callbot_operations_active counter\ncallbot_operations_active 1\n"
        httpx.put(f"{metrics}/job/other", content=other).raise_for_status()
        reporter = PrometheusReporter(alone.url("pushgateway"))
        with pytest.raises(PermanentError, match=r"400 \(pushed metrics are.*another program pushes"):
            reporter.report(measured()[:3])
        httpx.delete(f"{metrics}/job/other").raise_for_status()
        reporter.report(measured()[3:5])
        counts = [line for line in httpx.get(metrics).text.splitlines() if "operation_duration_seconds_count{" in line]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in counts) == 5


# -- InfluxDB ---------------------------------------------------------------------------------------------------------


def influx(stack: Stack, **more: Any) -> InfluxDBReporter:
    given = {"influxdb_url": stack.url("influxdb"), "token": stack.influxdb_token, "org": "callbot", "bucket": BUCKET}
    return InfluxDBReporter(**{**given, **more})


def of_provider(provider: str, n: int, **more: Any) -> list[LatencyMetric]:
    """So many measurements of one instant."""
    instant = datetime.now(UTC)
    return [
        LatencyMetric(
            **{
                "operation_type": "rag_inference",
                "operation_name": "query",
                "latency_ms": float(i),
                "status": "success",
                "timestamp": instant,
                "provider": provider,
                "call_sid": f"CA{i}",
                **more,
            }
        )
        for i in range(n)
    ]


def rows(stack: Stack, provider: str) -> list[dict[str, Any]]:
    """Every point, by InfluxQL."""
    answer = stack.influxdb_query(f'SELECT * FROM "callbot.operation" WHERE "provider" = \'{provider}\'')
    (result,) = answer["results"]
    return [dict(zip(s["columns"], row, strict=True)) for s in result.get("series", []) for row in s["values"]]


def flux(stack: Stack, query: str) -> list[dict[str, str]]:
    """The rows of an answer to Flux, from its CSV."""
    answer = httpx.post(
        f"{stack.url('influxdb')}/api/v2/query",
        params={"org": "callbot"},
        headers={"Authorization": f"Token {stack.influxdb_token}", "Content-Type": "application/vnd.flux"},
        content=query,
        timeout=60,
    ).raise_for_status()
    lines = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
    return list(csv.DictReader(lines))


@pytest.fixture
def provider() -> str:
    return f"p-{uuid.uuid4().hex[:8]}"


def test_every_measurement_of_one_instant_is_a_point(stack: Stack, provider: str) -> None:
    """1,000 of one microsecond, equal but for their ids, read back by InfluxQL and by Flux."""
    batch = of_provider(provider, 1000)
    influx(stack).report(batch)
    found = rows(stack, provider)
    assert {(row["call_sid"], row["latency_ms"]) for row in found} == {(m.call_sid, m.latency_ms) for m in batch}
    assert len(found) == 1000
    query = (
        f'from(bucket: "{BUCKET}") |> range(start: -1h) '
        f'|> filter(fn: (r) => r._measurement == "callbot.operation" and r.provider == "{provider}")'
        ' |> filter(fn: (r) => r._field == "latency_ms") |> group() |> count()'
    )
    (row,) = flux(stack, query)
    assert row["_value"] == "1000"


def test_the_query_of_the_documentation_is_answered(stack: Stack, provider: str) -> None:
    """docs/metrics.md has a p95 in Flux."""
    influx(stack).report(of_provider(provider, 100))
    answers = flux(stack, documented("callbot.operation"))
    (row,) = [row for row in answers if row["provider"] == provider]
    assert float(row["_value"]) == pytest.approx(95, abs=1)


def documented(measurement: str) -> str:
    """The query of docs/metrics.md for points of this measurement."""
    queries = re.findall(r"^```flux\n(.*?)^```$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    (query,) = [query for query in queries if f'"{measurement}"' in query]
    return str(query).replace('"latency"', f'"{BUCKET}"')


def test_points_keep_their_time_to_the_microsecond(stack: Stack, provider: str) -> None:
    """The time of the point is when the operation ended."""
    batch = of_provider(provider, 3)
    influx(stack).report(batch)
    since = datetime(1970, 1, 1, tzinfo=UTC)
    for row in rows(stack, provider):
        assert row["time"] // 1000 == (batch[0].timestamp - since) // timedelta(microseconds=1)


def test_written_again_nothing_is_there_twice(stack: Stack, provider: str) -> None:
    """What a lane hands over again, because nobody answered, may have arrived the first time."""
    reporter, batch = influx(stack), of_provider(provider, 20)
    reporter.report(batch)
    kept = [(metric, reporter._line(metric)) for metric in batch]
    reporter._kept = kept
    reporter.report(batch)
    reporter._kept = kept
    reporter.report(batch)
    assert len(rows(stack, provider)) == 40


def test_ids_are_no_tags(stack: Stack, provider: str) -> None:
    """They are fields: a million calls make no series more."""
    batch = of_provider(provider, 5, trace_id="0af7651916cd43dd8448eb211c80319c", severity="critical", items=4)
    influx(stack).report(batch)
    (result,) = stack.influxdb_query('SHOW TAG KEYS FROM "callbot.operation"')["results"]
    tags = {key for (key,) in result["series"][0]["values"]}
    assert tags == {"operation_type", "operation_name", "provider", "status", "severity"}
    assert {row["trace_id"] for row in rows(stack, provider)} == {"0af7651916cd43dd8448eb211c80319c"}


@pytest.mark.promise("injection")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(min_size=1, max_size=40), st.text(max_size=40)), min_size=1, max_size=30))
def test_any_text_is_a_point_on_the_real_server(stack: Stack, texts: list[tuple[str, str]]) -> None:
    """Commas, quotes, newlines, halves of surrogates: as many points as measurements, ids as they were."""
    provider = f"p-{uuid.uuid4().hex[:8]}"
    template = of_provider(provider, len(texts))
    batch = [replace(m, operation_name=a, call_sid=b) for m, (a, b) in zip(template, texts, strict=True)]
    influx(stack).report(batch)
    found = {row["latency_ms"]: row for row in rows(stack, provider)}
    assert len(found) == len(texts)
    for metric in batch:
        if (metric.call_sid or "").isprintable():
            assert found[metric.latency_ms]["call_sid"] == metric.call_sid
        name = metric.operation_name
        if name.isprintable() and not name.endswith("\\"):
            assert found[metric.latency_ms]["operation_name"] == name


def test_a_wrong_token_is_refused_and_not_shown(stack: Stack) -> None:
    """The real server's 401."""
    with pytest.raises(PermanentError, match=r"401.*INFLUXDB_TOKEN") as told:
        influx(stack, token=f"{USER}:wr0ng-passw0rd").report(of_provider("unused", 3))
    assert told.value.refused == 3
    assert "wr0ng" not in str(told.value)


def test_a_missing_bucket_is_refused_by_name(stack: Stack) -> None:
    """The real server's 404."""
    with pytest.raises(PermanentError, match=r"404.*'nowhere/autogen'") as told:
        influx(stack, bucket="nowhere/autogen").report(of_provider("unused", 3))
    assert told.value.refused == 3


def test_of_a_batch_only_the_points_of_another_type_are_lost(stack: Stack, provider: str) -> None:
    """A field that somebody wrote as text before: the real server's partial write, and its exact number."""
    old = datetime(2020, 5, 4, 12, tzinfo=UTC)
    taken = f'callbot.operation,provider={provider} latency_ms="text" {int(old.timestamp()) * 10**9}'
    httpx.post(
        f"{stack.url('influxdb')}/api/v2/write",
        params={"org": "callbot", "bucket": BUCKET, "precision": "ns"},
        headers={"Authorization": f"Token {stack.influxdb_token}"},
        content=taken,
    ).raise_for_status()
    # A field has one type in each shard, and the other points are of another week.
    batch = of_provider(provider, 6)
    batch[2] = replace(batch[2], timestamp=old)
    batch[4] = replace(batch[4], timestamp=old)
    with pytest.raises(PermanentError, match=r"2 of 6 points.*field type conflict") as told:
        influx(stack).report(batch)
    assert told.value.refused == 2
    assert {row["call_sid"] for row in rows(stack, provider) if row["call_sid"]} == {"CA0", "CA1", "CA3", "CA5"}


def test_of_a_batch_only_a_line_that_cannot_be_read_is_lost(
    stack: Stack, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real server writes the others and names no number: the batch is divided until the line is found."""
    reporter = influx(stack)
    write = reporter._line
    monkeypatch.setattr(reporter, "_line", lambda m: b"no line" if m.call_sid == "CA3" else write(m))
    with pytest.raises(PermanentError, match=r"1 of 20 points.*unable to parse") as told:
        reporter.report(of_provider(provider, 20))
    assert told.value.refused == 1
    assert len(rows(stack, provider)) == 19


@pytest.mark.promise("outage")
def test_an_outage_is_no_loss(stack: Stack, provider: str) -> None:
    """A server that is killed and comes back: handed over again, every point is there once."""
    reporter, batch = influx(stack, timeout_ms=2000), of_provider(provider, 50)
    reporter.report(batch[:10])
    stack.kill("influxdb")
    try:
        with pytest.raises(TransientError):
            reporter.report(batch[10:])
    finally:
        stack.start("influxdb")
    reporter.report(batch[10:])
    assert len(rows(stack, provider)) == 50


# -- turns in InfluxDB, and the whole way ---------------------------------------------------------------------------


def turn_rows(stack: Stack, call_sids: list[str]) -> list[dict[str, Any]]:
    """Every point of these calls' turns, by InfluxQL."""
    answer = stack.influxdb_query('SELECT * FROM "callbot.turn"')
    (result,) = answer["results"]
    found = [dict(zip(s["columns"], row, strict=True)) for s in result.get("series", []) for row in s["values"]]
    return [row for row in found if row["call_sid"] in call_sids]


def test_every_turn_of_one_instant_is_a_point(stack: Stack) -> None:
    """Of 500 equal but for their number, InfluxQL and Flux find each; handed over again, none is there twice."""
    call_sid, instant = f"CA{uuid.uuid4().hex}", datetime.now(UTC)
    batch = [one.turn(n, call_sid=call_sid, timestamp=instant, response_ms=1000.0 + n) for n in range(500)]
    reporter = influx(stack)
    lines = [(turn, reporter._line(turn)) for turn in batch]
    for _ in range(2):
        reporter._kept = lines
        reporter.report_turns(batch)
    found = turn_rows(stack, [call_sid])
    assert {(row["turn"], row["response_ms"]) for row in found} == {(turn.turn, turn.response_ms) for turn in batch}
    assert len(found) == 500
    query = (
        f'from(bucket: "{BUCKET}") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "callbot.turn")'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        f' |> filter(fn: (r) => r.call_sid == "{call_sid}") |> group() |> count(column: "turn")'
    )
    (row,) = flux(stack, query)
    assert row["turn"] == "500"


def test_a_turns_point_has_every_field_with_its_type(stack: Stack) -> None:
    """As docs/metrics.md says: numbers, a boolean, texts; ids are no tags."""
    call_sid = f"CA{uuid.uuid4().hex}"
    turn = one.turn(
        3,
        call_sid=call_sid,
        stream_sid="MZ1",
        timestamp=datetime.now(UTC),
        outcome="interrupted",
        operations=4,
        overlapped_ms={"salesforce_api": 120},
        barge_in=BargeIn(1, reaction_ms=80, silenced_ms=200.5, heard_share=0.5, is_false=True),
    )
    silent = one.turn(4, call_sid=call_sid, timestamp=turn.timestamp, anchor=None, unmeasured="no_anchor")
    influx(stack).report_turns([turn, silent])
    told, bare = sorted(turn_rows(stack, [call_sid]), key=lambda row: int(row["turn"]))
    wanted = {
        "anchor": "stt_final",
        "outcome": "interrupted",
        "unmeasured": None,
        "response_ms": 1500,
        "response_sent_ms": 1400,
        "part.endpointing": 300,
        "part.speech_to_text": 1200,
        "overlapped.salesforce_api": 120,
        "operations": 4,
        "barge_in.reaction_ms": 80,
        "barge_in.silenced_ms": 200.5,
        "barge_in.heard_share": 0.5,
        "barge_in.is_false": True,
        "stream_sid": "MZ1",
    }
    assert {name: told[name] for name in wanted} == wanted
    assert (bare["unmeasured"], bare["anchor"], bare["barge_in.is_false"]) == ("no_anchor", None, None)
    (result,) = stack.influxdb_query('SHOW TAG KEYS FROM "callbot.turn"')["results"]
    assert {key for (key,) in result["series"][0]["values"]} == {"anchor", "outcome", "unmeasured"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.text(max_size=40)] * 3), min_size=1, max_size=30))
def test_any_text_of_a_turn_is_a_point_on_the_real_server(stack: Stack, texts: list[tuple[str, str, str]]) -> None:
    """Commas, quotes, newlines, halves of surrogates, spaces at the end of the last tag: as many points as turns."""
    call_sid, instant = f"CA{uuid.uuid4().hex}", datetime.now(UTC)
    batch = [
        one.turn(n, call_sid=call_sid, timestamp=instant, outcome=outcome, unmeasured=why, stream_sid=stream_sid)
        for n, (outcome, why, stream_sid) in enumerate(texts)
    ]
    influx(stack).report_turns(batch)
    found = {row["turn"]: row for row in turn_rows(stack, [call_sid])}
    assert len(found) == len(batch)
    for turn in batch:
        if (turn.stream_sid or "").isprintable():
            assert found[turn.turn]["stream_sid"] == turn.stream_sid


CALLS = """
init()
for call_sid in {call_sids!r}:
    with cl.call(call_sid) as bound:
        at_ns = time.perf_counter_ns()
        bound.timeline.speech_ended(
            at_ns - 300_000_000, source=cl.Anchor.STT_FINAL, uncertainty_ms=20, reported_ns=at_ns
        )
        with cl.turn():
            listen()
            bound.timeline.audio_sent(time.perf_counter_ns(), leading_silence_ns=0, is_filler=False)
            bound.timeline.playback_started(time.perf_counter_ns() + 5_000_000, uncertainty_ms=10)
turns = [turn.to_dict() for turn in latency_tracker.get_turns()]
tell(turns=turns, ended=shutdown(20), lanes={{n: dict(s.dropped) for n, s in cl.report_manager.status().items()}})
"""


def test_a_bots_turns_are_found_by_every_way(stack: Stack, tmp_path: Path) -> None:
    """One bot, the Collector and both direct reporters by its settings: the same turns, by the same queries."""
    collector, pushed = f"by-collector-{uuid.uuid4().hex[:6]}", f"by-push-{uuid.uuid4().hex[:6]}"
    call_sids = [f"CA{uuid.uuid4().hex}" for _ in range(3)]
    bot_settings = {
        **stack.environment(),
        "OTEL_SERVICE_NAME": collector,
        "PROMETHEUS_PUSHGATEWAY_URL": stack.url("pushgateway"),
        "LATENCY_PUSHGATEWAY_JOB": pushed,
        "INFLUXDB_URL": stack.url("influxdb"),
        "INFLUXDB_TOKEN": stack.influxdb_token,
        "INFLUXDB_ORG": "callbot",
        "INFLUXDB_BUCKET": BUCKET,
    }
    facts = facts_of(run_python(CALLS.format(call_sids=call_sids), tmp_path, bot_settings, 60))
    assert facts["ended"]
    assert not any(facts["lanes"].values())
    assert [turn["call_sid"] for turn in facts["turns"]] == call_sids

    def the_same() -> None:
        for name in ("every response", "every part"):
            by_collector, by_push = (asked(stack, QUERIES[name].replace("$job", job)) for job in (collector, pushed))
            assert by_collector
            assert by_push == pytest.approx(by_collector)

    eventually(the_same)
    (row,) = prometheus_query(stack, f'sum(callbot_turn_response_seconds_count{{job="{pushed}", until="heard"}})')
    assert float(row["value"][1]) == len(call_sids)
    told = {turn["call_sid"]: turn for turn in facts["turns"]}
    found = {row["call_sid"]: row for row in turn_rows(stack, call_sids)}
    assert sorted(found) == sorted(call_sids)
    for call_sid, row in found.items():
        assert row["response_ms"] == told[call_sid]["response_ms"]
        assert {name.removeprefix("part."): ms for name, ms in row.items() if name.startswith("part.") and ms} == {
            name: ms for name, ms in told[call_sid]["parts_ms"].items() if ms
        }
    assert [answer["anchor"] for answer in flux(stack, documented("callbot.turn"))].count("stt_final") == 1
