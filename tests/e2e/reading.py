"""Reads back from the real servers what arrived there, counted the same way for each."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx

from devservers.stack import Stack

T = TypeVar("T")

Key = tuple[str, str, str, str]
"""operation_type, operation_name, provider and status of an operation."""
KEYS = ("operation_type", "operation_name", "provider", "status")


def eventually(check: Callable[[], T], timeout_s: float = 60) -> T:
    """The result of `check` as soon as it holds; its last AssertionError when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


@dataclass(frozen=True)
class Span:
    """A span as Jaeger gave it back."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int

    @property
    def key(self) -> Key:
        return _key(self.attributes)


def _key(values: Any) -> Key:
    one, two, three, four = (str(values.get(name) or "") for name in KEYS)
    return one, two, three, four


def _value(value: dict[str, Any]) -> Any:
    return next(iter(value.values()))


def spans_of(stack: Stack, trace_id: str) -> list[Span]:
    """Every span of a trace, from Jaeger's `/api/v3/traces/{id}`; none while it is not there."""
    answer = httpx.get(f"{stack.url('jaeger_query')}/api/v3/traces/{trace_id}", timeout=60)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    return _spans(answer.raise_for_status().json())


def search_spans(stack: Stack, service: str) -> list[Span]:
    """Every span of a service in the last hour."""
    now = datetime.now(UTC)
    query = {
        "query.service_name": service,
        "query.start_time_min": (now - timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
        "query.start_time_max": (now + timedelta(minutes=1)).isoformat().replace("+00:00", "Z"),
        "query.num_traces": "5000",
    }
    answer = httpx.get(f"{stack.url('jaeger_query')}/api/v3/traces", params=query, timeout=60)
    return [] if answer.status_code == httpx.codes.NOT_FOUND else _spans(answer.raise_for_status().json())


def _spans(answer: Any) -> list[Span]:
    return [
        Span(
            span["name"],
            span["traceId"],
            span["spanId"],
            span.get("parentSpanId", ""),
            {item["key"]: _value(item["value"]) for item in span.get("attributes", [])},
            int(span["startTimeUnixNano"]),
            int(span["endTimeUnixNano"]),
        )
        for resource in answer["result"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def operations(spans: Iterable[Span]) -> Counter[Key]:
    """How many spans of operations there are of each kind; attempts are none."""
    return Counter(
        span.key for span in spans if "operation_type" in span.attributes and "attempt" not in span.attributes
    )


def prometheus_query(stack: Stack, query: str) -> list[dict[str, Any]]:
    """The instant vector that Prometheus answers."""
    answer = httpx.get(f"{stack.url('prometheus')}/api/v1/query", params={"query": query}, timeout=60)
    result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
    return result


def prometheus_exemplars(stack: Stack, query: str) -> list[dict[str, Any]]:
    """The exemplars of the last hour."""
    now = time.time()
    parameters = {"query": query, "start": str(now - 3600), "end": str(now + 60)}
    answer = httpx.get(f"{stack.url('prometheus')}/api/v1/query_exemplars", params=parameters, timeout=60)
    return [exemplar for series in answer.raise_for_status().json()["data"] for exemplar in series["exemplars"]]


def counted_by_prometheus(stack: Stack, service: str) -> Counter[Key]:
    """The counts of the duration histogram."""
    rows = prometheus_query(
        stack, f'sum by ({", ".join(KEYS)}) (callbot_operation_duration_seconds_count{{job="{service}"}})'
    )
    return Counter({_key(row["metric"]): int(float(row["value"][1])) for row in rows})


def counted_by_influxdb(stack: Stack, service: str) -> Counter[Key]:
    """The counts of the duration histogram: the newest point of each series."""
    answer = stack.influxdb_query(
        'SELECT last("count") FROM "callbot.operation.duration_s_histogram" '
        f'WHERE "service.name" = \'{service}\' GROUP BY {", ".join(KEYS)}, "service.instance.id"'
    )
    counts: Counter[Key] = Counter()
    for series in answer["results"][0].get("series", []):
        counts[_key(series["tags"])] += int(series["values"][0][1])
    return counts


def counted_in_file(path: Path) -> Counter[Key]:
    """The operations of a metrics file; attempts are none, nor are turns."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return Counter(_key(line) for line in lines if "attempt" not in line and "kind" not in line)


TURN_HISTOGRAMS = {"callbot.turn.response": ("anchor", "until"), "callbot.turn.contribution": ("part",)}
Sums = dict[tuple[str, ...], tuple[int, float]]
"""Name and labels of a histogram's series; its count, and its sum in seconds."""


def turns_in_file(turns: Iterable[dict[str, Any]]) -> Sums:
    """What the histograms of turns must hold, by the lines of the metrics file."""
    sums: Sums = {}

    def add(ms: float, *series: str) -> None:
        count, sum_s = sums.get(series, (0, 0.0))
        sums[series] = count + 1, sum_s + ms / 1000

    for turn in turns:
        for until, key in (("heard", "response_ms"), ("sent", "response_sent_ms")):
            if key in turn:
                add(turn[key], "callbot.turn.response", turn["anchor"], until)
        for part, ms in turn.get("parts_ms", {}).items():
            add(ms, "callbot.turn.contribution", part)
    return sums


def turns_by_prometheus(stack: Stack, service: str) -> Sums:
    """The same as Prometheus has it."""
    sums: Sums = {}
    for name, labels in TURN_HISTOGRAMS.items():
        metric = name.replace(".", "_") + "_seconds"
        found = {
            suffix: {
                (name, *(row["metric"][label] for label in labels)): float(row["value"][1])
                for row in prometheus_query(
                    stack, f'sum by ({", ".join(labels)}) ({metric}_{suffix}{{job="{service}"}})'
                )
            }
            for suffix in ("count", "sum")
        }
        sums |= {series: (int(count), found["sum"].get(series, 0.0)) for series, count in found["count"].items()}
    return sums


def turns_by_influxdb(stack: Stack, service: str) -> Sums:
    """The same as InfluxDB has it: the newest point of each series."""
    sums: Sums = {}
    for name, labels in TURN_HISTOGRAMS.items():
        answer = stack.influxdb_query(
            f'SELECT last("count"), "sum" FROM "{name}_s_histogram" '
            f'WHERE "service.name" = \'{service}\' GROUP BY {", ".join(labels)}, "service.instance.id"'
        )
        for series in answer["results"][0].get("series", []):
            _, count, sum_s = series["values"][0]
            sums[name, *(series["tags"][label] for label in labels)] = int(count), float(sum_s)
    return sums
