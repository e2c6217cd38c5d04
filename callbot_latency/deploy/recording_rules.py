"""Recording rules of Prometheus, and the parts of PromQL that they and the alerts share."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client.utils import floatToGoString

from .. import semconv
from ..model.operation import Severity, ThresholdsMs

__all__ = [
    "BAD",
    "BREACHED",
    "BREACHES",
    "DROPPED",
    "DURATION",
    "FAILED",
    "NOT_CANCELLED",
    "OPERATIONS_ACTIVE",
    "SHARE_WINDOWS",
    "SLOW",
    "TELEMETRY_DROPPED",
    "TOTAL",
    "TOTAL_OF_TYPE",
    "Rule",
    "Thresholds",
    "budget_rules",
    "count_rules",
    "counted",
    "duration_rules",
    "edge",
    "loss_rules",
    "matching",
    "over",
    "record",
    "share_rules",
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


COUNT: Final = f"{DURATION}_count"
BUCKET: Final = f"{DURATION}_bucket"
RATE: Final = f"operation_type_provider_le:{BUCKET}:rate5m"
TOTAL: Final = "operation_type_provider:callbot_operations"
TOTAL_OF_TYPE: Final = "operation_type:callbot_operations"
SLOW: Final = "operation_type_provider_severity:callbot_operations_slow"
FAILED: Final = "operation_type_provider_status:callbot_operations_failed"
GOOD: Final = "operation_type:callbot_operations_good"
BAD: Final = "operation_type:callbot_operations_bad"
BREACHED: Final = "operation_type_provider_severity:callbot_threshold_breaches:increase5m"
TELEMETRY_DROPPED: Final = "reason:callbot_telemetry_dropped:increase5m"
SHARE_WINDOWS: Final = ("5m", "1h", "1d")
"""Over which a share of slow or failed operations is told."""

Thresholds = Mapping[str, ThresholdsMs]
"""Thresholds in milliseconds by the value of the operation type."""


def duration_rules() -> list[Rule]:
    """p50, p95 and p99 by operation type and provider, in seconds, over five minutes."""
    buckets = matching(BUCKET, NOT_CANCELLED)
    rules = [record(RATE, f"sum by (operation_type, provider, le) (rate({buckets}[5m]))")]
    for percent in (50, 95, 99):
        name = f"operation_type_provider:{DURATION}:p{percent}_5m"
        rules.append(record(name, f"histogram_quantile({percent / 100:g}, {RATE})"))
    return rules


def count_rules() -> list[Rule]:
    """How many operations there were, how many failed and in which way, how many breached."""
    total = counted(matching(COUNT, NOT_CANCELLED))
    failed = counted(matching(COUNT, 'status=~"error|timeout"'))
    return [
        record(f"{TOTAL}:increase5m", f"sum by (operation_type, provider) (\n{total})"),
        record(f"{FAILED}:increase5m", f"sum by (operation_type, provider, status) (\n{failed})"),
        *[_ratio(FAILED, window) for window in SHARE_WINDOWS],
        record(BREACHED, f"sum by (operation_type, provider, severity) (\n{counted(BREACHES)})"),
    ]


def share_rules(thresholds: Thresholds) -> list[Rule]:
    """The thresholds in force, in seconds, and the share of operations that took longer, by the bucket's exact edge."""
    rules = []
    for operation_type, both in thresholds.items():
        for severity, threshold_ms in zip((Severity.WARNING, Severity.CRITICAL), both, strict=True):
            of_type = f'operation_type="{operation_type}"'
            labels = {"operation_type": operation_type, "severity": severity.value}
            threshold = "operation_type_severity:callbot_operation_threshold_seconds:constant"
            rules.append(record(threshold, f"vector({threshold_ms / 1000.0!r})", labels))
            within = counted(matching(BUCKET, of_type, NOT_CANCELLED, edge(threshold_ms)))
            expr = (
                f"clamp_min(\n{TOTAL}:increase5m{{{of_type}}}\n"
                f"- on (operation_type, provider) sum by (operation_type, provider) (\n{within}), 0)"
            )
            rules.append(record(f"{SLOW}:increase5m", expr, labels))
    return [*rules, *[_ratio(SLOW, window) for window in SHARE_WINDOWS]]


def _ratio(part: str, window: str) -> Rule:
    expr = (
        f"({over(f'{part}:increase5m', window)})\n"
        f"/ on (operation_type, provider) group_left ()\n({over(f'{TOTAL}:increase5m', window)} > 0)"
    )
    return record(f"{part}:ratio_increase{window}", expr)


def budget_rules(thresholds: Thresholds, windows: Sequence[str]) -> list[Rule]:
    """By type, the share of operations that were not good: failed, or took longer than the warning threshold."""
    # Only what can be judged: while a histogram lacks the edge, nothing of it is bad for all we know.
    judged = f'{TOTAL}:increase5m and on (operation_type, provider) {SLOW}:increase5m{{severity="warning"}}'
    rules = [record(f"{TOTAL_OF_TYPE}:increase5m", f"sum by (operation_type) (\n{judged})")]
    for operation_type, (warning_ms, _) in thresholds.items():
        of_type = f'operation_type="{operation_type}"'
        good = counted(matching(BUCKET, of_type, 'status="success"', edge(warning_ms)))
        # Where nothing succeeded there is no such series, and it is 0.
        none = f"0 * {TOTAL_OF_TYPE}:increase5m{{{of_type}}}"
        expr = f"sum by (operation_type) (\n{good})\nor {none}"
        rules.append(record(f"{GOOD}:increase5m", expr, {"operation_type": operation_type}))
    for window in windows:
        good, total = over(f"{GOOD}:increase5m", window), over(f"{TOTAL_OF_TYPE}:increase5m", window)
        rules.append(record(f"{BAD}:ratio_increase{window}", f"clamp_min({total}\n- {good}, 0)\n/ ({total} > 0)"))
    return rules


def loss_rules() -> list[Rule]:
    """What the bots dropped, and what the Collector could not take or hand on.

    The Collector's counters begin with the first failure, like ours.
    """
    rules = [record(TELEMETRY_DROPPED, f"sum by (reason) (\n{counted(DROPPED)})")]
    for signal in ("spans", "metric_points"):
        for level, what in (
            ("exporter", "exporter_send_failed"),
            ("exporter", "exporter_enqueue_failed"),
            ("receiver", "receiver_refused"),
        ):
            expr = f"sum by ({level}) (\n{counted(f'otelcol_{what}_{signal}')})"
            rules.append(record(f"{level}:otelcol_{what}:increase5m", expr, {"signal": signal}))
    return rules
