"""The pieces that the rules are made of, in Prometheus' query language (2.42 and newer)."""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.utils import floatToGoString

from .. import semconv

__all__ = [
    "BREACHES",
    "DROPPED",
    "DURATION",
    "NOT_CANCELLED",
    "OPERATIONS_ACTIVE",
    "Rule",
    "counted",
    "edge",
    "matching",
    "over",
    "record",
]

Rule = dict[str, Any]
"""A rule as it stands in the file."""

DURATION: Final = f"{semconv.OPERATION_DURATION.replace('.', '_')}_seconds"
BREACHES: Final = f"{semconv.THRESHOLD_BREACHES.replace('.', '_')}_total"
DROPPED: Final = f"{semconv.TELEMETRY_DROPPED.replace('.', '_')}_total"
OPERATIONS_ACTIVE: Final = semconv.OPERATIONS_ACTIVE.replace(".", "_")

NOT_CANCELLED: Final = f'{semconv.STATUS}!="cancelled"'
"""Who hangs up or interrupts is counted, and says nothing about how fast or sound we are."""


def edge(threshold_ms: float) -> str:
    """The matcher of the bucket whose edge is this threshold, whoever exposed the histogram.

    Prometheus takes ``le`` as it is written: ``2.0`` in OpenMetrics (the Collector's exporter; Prometheus 3 rewrites
    all to it), ``2`` in the older text format (a Pushgateway).
    """
    written: str = floatToGoString(threshold_ms / 1000.0)  # type: ignore[no-untyped-call]
    if not written.endswith(".0"):
        return f'le="{written}"'
    whole = written.removesuffix(".0")
    return f'le=~"{whole}|{whole}[.]0"'


def matching(metric: str, *matchers: str) -> str:
    """A selector."""
    return metric + "{" + ", ".join(matchers) + "}" if matchers else metric


def counted(selector: str) -> str:
    """By how much counters grew within five minutes.

    A counter of ours begins with its first event, and increase() does not see a first sample. So a series that is new
    counts with its whole value; one that was only away for a while (a Collector's outage) is not new.
    """
    return (
        f"  (last_over_time({selector}[5m])\n"
        f"    unless max_over_time({selector}[1h] offset 5m))\n"
        f"  or increase({selector}[5m])"
    )


def over(increase: str, window: str) -> str:
    """The sum over a window, of increases over five minutes: looked at each minute, so that each stands in five.

    As good as reading every sample of the window, at a hundredth of the cost.
    """
    return increase if window == "5m" else f"sum_over_time({increase}[{window}:1m]) / 5"


def record(name: str, expr: str, labels: Mapping[str, str] | None = None) -> Rule:
    """A recording rule; its name is level:metric:operations."""
    rule: Rule = {"record": name, "expr": expr}
    return {**rule, "labels": dict(labels)} if labels else rule
