"""A name made at run time, 30,000 times: labels, keys and memory are bounded, and each that is bounded is counted."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.scripted_http import OK, Answer, Server, scripted
from tests.support.subprocesses import facts_of, run_python

ROUNDS, AT_ONCE = 3, 10_000
NAMES = ROUNDS * AT_ONCE
ENOUGH = 12_000
"""As many fill every table."""
MAX_LABELS = 200
MAX_KEYS = 1_000

BOT = """
import gc, random
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from callbot_latency import LatencyMetric, record
from callbot_latency.runtime import lifecycle as runtime

reader, names = InMemoryMetricReader(), random.Random(20)
metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
init()
pipeline = runtime._runtime.pipeline

def slow():
    name, provider = (f"{names.getrandbits(64):x}" for _ in range(2))
    record(LatencyMetric("rag_inference", name, 4e3, "error", provider=provider, metadata={"name": name}))

def labels_of(data, name):
    made = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
    points = [point for m in made for point in m.data.data_points]
    return [(dict(point.attributes), getattr(point, "count", 0)) for point in points]

def objects_now():
    gc.collect()
    return len(gc.get_objects())

for n in range(%d):
    for _ in range(%d): slow()
    assert pipeline.flush(200)
    if n == 1: of_20_000 = objects_now()
# What some thread has in hand at the moment comes on top, and goes; what is kept would stay.
until(lambda: objects_now() < of_20_000 * 1.01)
data = reader.get_metrics_data()
durations, breaches = (labels_of(data, f"callbot.{name}") for name in ("operation.duration", "threshold.breaches"))
tell(
    of_20_000=of_20_000,
    names=len({labels["operation_name"] for labels, _ in durations}),
    providers=len({labels["provider"] for labels, _ in durations}),
    of_breaches=len({labels["provider"] for labels, _ in breaches}),
    counted=sum(count for _, count in durations),
    has_other=any(labels["operation_name"] == labels["provider"] == "other" for labels, _ in durations),
    keys=[len(latency_tracker.get_stats(by_provider=by)) for by in (False, True)],
    kept=len(latency_tracker.metrics),
    dropped=dropped.by_reason(),
)
shutdown()
"""


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """A Pushgateway and an InfluxDB that take everything."""
    with scripted(OK) as push, scripted(Answer(204)) as influx:
        yield push, influx


@pytest.mark.promise("cardinality")
@pytest.mark.timeout(300)
def test_names_and_providers_without_end(servers: tuple[Server, Server], tmp_path: Path) -> None:
    """At most 200 names and 200 providers, and `other`, in each exporter; nothing is lost from the counts.

    Memory: after the first 20,000, whose last 10,000 the tracker keeps, 10,000 more leave not one object in a hundred.
    """
    push, influx = servers
    environment = {
        "PROMETHEUS_PUSHGATEWAY_URL": push.url,
        "LATENCY_PUSHGATEWAY_INTERVAL_S": "2",
        "INFLUXDB_URL": influx.url,
        "INFLUXDB_TOKEN": "token",
        "INFLUXDB_ORG": "org",
        "INFLUXDB_BUCKET": "bucket",
        "LATENCY_FILE_LOGGING_ENABLED": "false",
        "LATENCY_LOGGING_ENABLED": "false",
    }
    facts = facts_of(run_python(BOT % (ROUNDS, AT_ONCE), tmp_path, environment, timeout_s=280))
    assert (facts["names"], facts["providers"], facts["of_breaches"]) == (MAX_LABELS + 1,) * 3
    assert (facts["counted"], facts["has_other"]) == (NAMES, True)
    assert facts["keys"] == [MAX_KEYS + 1] * 2
    assert facts["kept"] == 10_000
    assert facts["dropped"] == {"operation_name_label": NAMES - MAX_LABELS, "provider_label": NAMES - MAX_LABELS}
    # One more for each name of the last 10,000 would be more than one in a hundred.
    assert facts["of_20_000"] < 100 * AT_ONCE
    assert_is_bounded_in_prometheus(push.requests[-1].body.decode())
    assert_is_bounded_in_influxdb(b"\n".join(request.body for request in influx.requests).decode())


def assert_is_bounded_in_prometheus(pushed: str) -> None:
    samples = [sample for family in text_string_to_metric_families(pushed) for sample in family.samples]
    counts = [sample for sample in samples if sample.name == "callbot_operation_duration_seconds_count"]
    assert sum(sample.value for sample in counts) == NAMES
    for label in ("operation_name", "provider"):
        found = {sample.labels[label] for sample in counts}
        assert len(found) == MAX_LABELS + 1
        assert "other" in found
    reasons = {s.labels["reason"]: s.value for s in samples if s.name == "callbot_telemetry_dropped_total"}
    assert reasons["operation_name_label"] == reasons["provider_label"] == NAMES - MAX_LABELS


def assert_is_bounded_in_influxdb(written: str) -> None:
    lines = written.splitlines()
    assert len(lines) == NAMES
    for tag in ("operation_name", "provider"):
        found = {match[1] for line in lines if (match := re.search(rf",{tag}=([^, ]+)", line))}
        assert len(found) == MAX_LABELS + 1
        assert "other" in found


MEMORY = """
import gc, random, tracemalloc
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from callbot_latency import LatencyMetric, record
from callbot_latency.runtime import lifecycle as runtime

reader, names = InMemoryMetricReader(), random.Random(20)
metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
init()
pipeline = runtime._runtime.pipeline

def one(latency_ms=1.0):
    name, provider, sid = (f"{names.getrandbits(64):x}" for _ in range(3))
    record(LatencyMetric("rag_inference", name, latency_ms, "error", provider=provider, call_sid="CA" + sid))

def retained():
    assert pipeline.flush(200)
    kept = len(latency_tracker.metrics)
    latency_tracker.metrics.clear()
    for _ in range(3): gc.collect()
    return kept, tracemalloc.get_traced_memory()[0]

tracemalloc.start()
one(4e3)
_, before = retained()
for n in range(%d):
    one(4e3 if n %% 8 == 0 else 1.0)
    if n %% 5_000 == 0: assert pipeline.flush(200)
kept, after = retained()
tell(kept=kept, grown=after - before, counted=sum(row["count"] for row in latency_tracker.get_stats().values()))
shutdown()
"""


@pytest.mark.promise("cardinality")
@pytest.mark.timeout(300)
def test_ids_and_names_without_end_take_a_fixed_number_of_bytes(tmp_path: Path) -> None:
    """12,000 call ids, names and providers leave 2.5 MB at most, besides the 10,000 metrics that the tracker shows.

    With so many every table is full; that 10,000 more leave nothing is the other test's.
    """
    environment = {"LATENCY_FILE_LOGGING_ENABLED": "false", "LATENCY_LOGGING_ENABLED": "false"}
    facts = facts_of(run_python(MEMORY % ENOUGH, tmp_path, environment, timeout_s=280))
    print(facts)  # noqa: T201 - shown by -rP
    assert facts["kept"] == 10_000
    assert facts["counted"] == ENOUGH + 1
    assert facts["grown"] <= 2_500_000
