"""The call of the demo, through the Collector into Jaeger, Prometheus and InfluxDB: ``make demo-stack``."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from callbot_latency import init, shutdown
from devservers.stack import Stack, command, missing_servers, until_told_to_end

from .demo import make_calls, prepare_alerts
from .run import CallResult
from .slow import add_slow_option

T = TypeVar("T")

SERVERS: Final = ("collector", "jaeger", "prometheus", "influxdb")
SERVICE: Final = "callbot-demo"
WAIT_S: Final = 30.0
P95: Final = (
    "histogram_quantile(0.95, sum by (le, operation_type, operation_name) (callbot_operation_duration_seconds_bucket))"
)
PARTS: Final = (
    "sort_desc(sum by (part) (callbot_turn_contribution_seconds_sum)"
    ' / scalar(sum(callbot_turn_response_seconds_count{until="heard"})))'
)
IN_INFLUXDB: Final = (
    'SELECT last("count") FROM "callbot.operation.duration_s_histogram" GROUP BY operation_type, operation_name'
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the servers, make a call, show where it can be seen, and stay until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.callbot.demo_stack", description=__doc__)
    add_slow_option(parser)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    missing = missing_servers(SERVERS, say=console.print)
    if missing:
        console.print("\n".join(missing.values()), style="red")
        return 1
    with Stack(SERVERS, say=console.print) as stack:
        os.environ.update(stack.environment())
        os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE)
        slow = prepare_alerts(options)
        init()
        console.print()
        try:
            (result,) = make_calls(console, slow)
        finally:
            shutdown()
        _show_jaeger(console, stack, result)
        _show_prometheus(console, stack)
        _show_influxdb(console, stack)
        console.print("\nThe servers stay up. Ctrl-C ends them.", style="bold")
        until_told_to_end()
    return 0


def _show_jaeger(console: Console, stack: Stack, result: CallResult) -> None:
    address = f"{stack.url('jaeger_query')}/trace/{result.trace_id}"
    spans = _polled(lambda: _spans_of(stack, result.trace_id))
    console.print("\nJaeger", style="bold")
    if not _has_ui(stack):
        console.print("  built from source it has no pages (the compose stack's has); its API says:")
        address = f"{stack.url('jaeger_query')}/api/v3/traces/{result.trace_id}"
    console.print(Text(f"  {address}"), soft_wrap=True)
    if spans is None:
        console.print(f"  the trace was not there after {WAIT_S:g} s", style="red")
    else:
        console.print(_tree(spans))


def _has_ui(stack: Stack) -> bool:
    return "not the Jaeger UI" not in httpx.get(stack.url("jaeger_query")).text


def _spans_of(stack: Stack, trace_id: str) -> list[dict[str, Any]] | None:
    answer = httpx.get(f"{stack.url('jaeger_query')}/api/v3/traces/{trace_id}")
    if not answer.is_success:
        return None
    resources = answer.json()["result"]["resourceSpans"]
    spans = [span for resource in resources for scope in resource["scopeSpans"] for span in scope["spans"]]
    # The call's own span ends, and so arrives, last.
    return spans if any(not span.get("parentSpanId") for span in spans) else None


def _tree(spans: list[dict[str, Any]]) -> Tree:
    """The spans beneath their parents, in the order in which they began."""
    by_time = sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))
    nodes: dict[str, Tree] = {}
    (root,) = (span for span in by_time if not span.get("parentSpanId"))
    tree = nodes[root["spanId"]] = Tree(Text(f"  {_line(root)}"))
    for span in by_time:
        if span is not root:
            nodes[span["spanId"]] = nodes.get(span["parentSpanId"], tree).add(Text(_line(span)))
    return tree


def _line(span: dict[str, Any]) -> str:
    took_ms = (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6
    attributes = {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}
    return f"{span['name']}  {attributes.get('provider', attributes.get('call_sid', ''))}  {took_ms:.1f} ms"


def _show_prometheus(console: Console, stack: Stack) -> None:
    console.print("\nPrometheus, p95 of each operation", style="bold")
    console.print(Text(f"  {stack.url('prometheus')}/graph?g0.tab=1&g0.expr={quote(P95)}"), soft_wrap=True)
    rows = _polled(lambda: _asked(stack, P95))
    for row in rows or []:
        name = f"{row['metric']['operation_type']}/{row['metric']['operation_name']}"
        console.print(Text(f"  {name:36} {float(row['value'][1]) * 1000:7.1f} ms"))

    console.print("\nPrometheus, what the caller waited for in a turn, on average", style="bold")
    console.print(Text(f"  {stack.url('prometheus')}/graph?g0.tab=1&g0.expr={quote(PARTS)}"), soft_wrap=True)
    for row in _polled(lambda: _asked(stack, PARTS)) or []:
        console.print(Text(f"  {row['metric']['part']:36} {float(row['value'][1]) * 1000:7.1f} ms"))


def _asked(stack: Stack, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = httpx.get(f"{stack.url('prometheus')}/api/v1/query", params={"query": query}).json()[
        "data"
    ]["result"]
    return rows


def _show_influxdb(console: Console, stack: Stack) -> None:
    console.print("\nInfluxDB, measurements so far", style="bold")
    console.print(Text(f"  {stack.url('influxdb')}  {IN_INFLUXDB}"), soft_wrap=True)
    for series in _polled(lambda: stack.influxdb_query(IN_INFLUXDB)["results"][0].get("series")) or []:
        name = f"{series['tags']['operation_type']}/{series['tags']['operation_name']}"
        console.print(Text(f"  {name:36} {series['values'][0][1]:7}"))


def _polled(ask: Callable[[], T | None]) -> T | None:
    """The answer as soon as there is one, or None after `WAIT_S`."""
    deadline_s = time.monotonic() + WAIT_S
    while not (answer := ask()) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return answer


if __name__ == "__main__":
    sys.exit(command(main))
