"""The alerts: what wakes whom, and what it says."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ..model.operation import Severity, ThresholdsMs
from .recording_rules import (
    BAD,
    BREACHED,
    DURATION,
    FAILED,
    OPERATIONS_ACTIVE,
    SLOW,
    TELEMETRY_DROPPED,
    TOTAL,
    TOTAL_OF_TYPE,
    Rule,
    Thresholds,
    over,
)

__all__ = ["TIERS", "Tier", "budget_alerts", "latency_alerts", "telemetry_alerts", "tiers"]

SLOW_SHARE: Final = 0.05
"""Above it a type is slow: the p95 is over the warning threshold."""
FAILED_SHARE: Final = 0.1
LEAST_OPERATIONS: Final = 20
"""Among fewer operations, the slowest twentieth is one operation."""
LEAST_FAILURES: Final = 3

_WHAT: Final = "{{ $labels.operation_type }}{{ with $labels.provider }} ({{ . }}){{ end }}"
_P95: Final = (
    f'{{{{ with printf "operation_type_provider:{DURATION}:p95_5m{{operation_type=%q, provider=%q}} * 1000" '
    "$labels.operation_type $labels.provider | query }}"
    '; the p95 is {{ . | first | value | printf "%.0f" }} ms{{ end }}'
)


class Tier(NamedTuple):
    """One row of the SRE workbook's multi-window, multi-burn-rate alerts, for a budget of 30 days.

    https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts
    """

    severity: Severity
    long: str
    short: str
    factor: float
    hold: str


TIERS: Final = (
    Tier(Severity.CRITICAL, "1h", "5m", 14.4, "2m"),
    Tier(Severity.CRITICAL, "6h", "30m", 6, "2m"),
    Tier(Severity.WARNING, "1d", "2h", 3, "5m"),
    Tier(Severity.WARNING, "3d", "6h", 1, "5m"),
)


def tiers(objective: float) -> list[Tier]:
    """The rows that can fire: with a loose objective, some would need more than every operation to be bad."""
    return [tier for tier in TIERS if tier.factor * (1 - objective) < 1]


def alert(
    name: str, expr: str, hold: str, severity: Severity, annotations: dict[str, str], **labels: str
) -> dict[str, Any]:
    """An alert rule; `hold` is how long it must last before anyone is told."""
    return {
        "alert": name,
        "expr": expr,
        "for": hold,
        "labels": {"severity": severity.value, **labels},
        "annotations": annotations,
    }


def _said(summary: str, description: str, runbook: str, link: str) -> dict[str, str]:
    return {"summary": summary, "description": description, "runbook": runbook, "dashboard": link}


def _ms(threshold_ms: float) -> str:
    """A threshold as people write it: ``3000 ms``."""
    return f"{int(threshold_ms) if threshold_ms == int(threshold_ms) else threshold_ms} ms"


def _of_type(grafana_url: str) -> str:
    """The dashboard, with what the alert is about already chosen."""
    return (
        f"{grafana_url}/d/callbot-latency?var-operation_type={{{{ $labels.operation_type | urlquery }}}}"
        "{{ with $labels.provider }}&var-provider={{ . | urlquery }}{{ end }}"
    )


def latency_alerts(thresholds: Thresholds, grafana_url: str) -> list[Rule]:
    """Of each type: an operation that took critically long, and too many that were slow; of all: failures."""
    rules: list[Rule] = []
    for operation_type, both in thresholds.items():
        rules.append(_critical(operation_type, both, grafana_url))
        rules.append(_slow(operation_type, both, grafana_url))
    return [*rules, _failing(grafana_url), _out_of_step(thresholds, grafana_url)]


def _critical(operation_type: str, thresholds: ThresholdsMs, grafana_url: str) -> Rule:
    annotations = _said(
        f"{_WHAT} took critically long",
        f'{{{{ $value | printf "%.0f" }}}} operation(s) took {_ms(thresholds.critical_ms)} or longer within 5 minutes; '
        "callers heard silence.",
        "Search Jaeger for severity=critical, open the trace, and look which span fills the time. A single provider: "
        "its status page, then the fallback provider. All types at once: this host's CPU and network.",
        _of_type(grafana_url),
    )
    expr = f'{BREACHED}{{operation_type="{operation_type}", severity="critical"}} > 0'
    return alert("CallbotOperationCritical", expr, "0s", Severity.CRITICAL, annotations, operation_type=operation_type)


def _slow(operation_type: str, thresholds: ThresholdsMs, grafana_url: str) -> Rule:
    annotations = _said(
        f"{_WHAT} is slow",
        "{{ $value | humanizePercentage }} of the last 5 minutes took "
        f"longer than {_ms(thresholds.warning_ms)} (at most {SLOW_SHARE:.0%} should){_P95}.",
        'Open the dashboard "Callbot latency" and click an exemplar: it leads to a slow call\'s trace. Compare '
        "providers and operation names there.",
        _of_type(grafana_url),
    )
    expr = (
        f'{SLOW}:ratio_increase5m{{operation_type="{operation_type}", severity="warning"}} > {SLOW_SHARE:g}\n'
        f"and on (operation_type, provider) {TOTAL}:increase5m >= {LEAST_OPERATIONS}"
    )
    return alert("CallbotOperationSlow", expr, "5m", Severity.WARNING, annotations, operation_type=operation_type)


def _failing(grafana_url: str) -> Rule:
    annotations = _said(
        f"{_WHAT} fails",
        "{{ $value | humanizePercentage }} of the last 5 minutes ended in an error or a timeout "
        f"(at most {FAILED_SHARE:.0%} should).",
        "Search Jaeger for error=true and this operation_type; error.type on the span names the exception. Check "
        "credentials and quotas of the provider first.",
        _of_type(grafana_url),
    )
    expr = (
        f"sum by (operation_type, provider) ({FAILED}:ratio_increase5m) > {FAILED_SHARE:g}\n"
        f"and sum by (operation_type, provider) ({FAILED}:increase5m) >= {LEAST_FAILURES}"
    )
    return alert("CallbotOperationFailing", expr, "5m", Severity.WARNING, annotations)


def _out_of_step(thresholds: Thresholds, grafana_url: str) -> Rule:
    """Nothing to compare with is not the same as nothing slow."""
    annotations = _said(
        f"The rules do not know the thresholds of {_WHAT}",
        "Its histogram has no bucket at a threshold of the rules, or its type is none of "
        f"{', '.join(thresholds)}: nothing tells when it is slow.",
        "Generate the rules anew with the bot's settings: python -m callbot_latency.deploy prometheus-rules, with "
        "--import for the module that registers operation types.",
        _of_type(grafana_url),
    )
    known = " and on (operation_type, provider) ".join(
        f'{SLOW}:increase5m{{severity="{severity.value}"}}' for severity in Severity
    )
    expr = f"{TOTAL}:increase5m > 0\nunless on (operation_type, provider) ({known})"
    return alert("CallbotRulesOutOfStep", expr, "10m", Severity.WARNING, annotations)


def budget_alerts(objective: float, grafana_url: str) -> list[Rule]:
    """How fast the error budget burns; each over a long window, and a short one that says it still does."""
    return [_burning(tier, objective, grafana_url) for tier in tiers(objective)]


def _burning(tier: Tier, objective: float, grafana_url: str) -> Rule:
    limit = f"{tier.factor * (1 - objective):.6g}"
    annotations = _said(
        "{{ $labels.operation_type }} uses up its error budget",
        f"{{{{ $value | humanizePercentage }}}} of the last {tier.long} failed or took longer than the warning "
        f"threshold. {objective * 100:g}% are to be good over 30 days: at this pace the budget is used up within "
        f"{30 / tier.factor:.3g} days.",
        "See which provider and operation name it is on the dashboard; slow ones are breaches of the warning "
        "threshold, failed ones have status error or timeout.",
        _of_type(grafana_url),
    )
    expr = (
        f"{BAD}:ratio_increase{tier.long} > {limit}\n"
        f"and on (operation_type) {BAD}:ratio_increase{tier.short} > {limit}\n"
        f"and on (operation_type) {over(f'{TOTAL_OF_TYPE}:increase5m', tier.long)} >= {LEAST_OPERATIONS}"
    )
    return alert("CallbotErrorBudgetBurning", expr, tier.hold, tier.severity, annotations, window=tier.long)


def telemetry_alerts(grafana_url: str) -> Sequence[Rule]:
    """What means that the other alerts cannot be trusted: nothing arrives, or not everything."""
    link = f"{grafana_url}/d/callbot-latency"
    return [_nothing(link), _dropped(link), *_collector(link)]


def _nothing(link: str) -> Rule:
    annotations = _said(
        "No bot reports measurements",
        "For 5 minutes or more, no metric of callbot_latency has arrived in Prometheus.",
        "Is a bot running, with LATENCY_TRACKING_ENABLED not false and OTEL_EXPORTER_OTLP_ENDPOINT at the Collector? "
        'Then look at the Collector\'s log and at up{job="otel-collector"}.',
        link,
    )
    # Every running bot exports the first even while nobody calls, so a quiet night is no alert.
    expr = f'absent({{__name__=~"{OPERATIONS_ACTIVE}|{DURATION}_count"}})'
    return alert("CallbotNoMeasurements", expr, "5m", Severity.WARNING, annotations)


def _dropped(link: str) -> Rule:
    annotations = _said(
        "Measurements are dropped: {{ $labels.reason }}",
        '{{ $value | printf "%.0f" }} item(s) were dropped within 5 minutes; what you see is not complete.',
        "The reason names the place: *_lane_full and *_failed are the exporter of that name (is its server up?), "
        "queue_full is too many measurements at once, operation_name_label and provider_label are names made at run "
        "time.",
        link,
    )
    return alert("CallbotTelemetryDropped", f"{TELEMETRY_DROPPED} > 0", "1m", Severity.WARNING, annotations)


def _collector(link: str) -> list[Rule]:
    down = _said(
        "The Collector does not answer",
        "Prometheus cannot scrape {{ $labels.job }}. Calls go on unharmed, but their traces and metrics are lost once "
        "the bots' buffers are full.",
        "docker compose ps and docker compose logs otel-collector. Killed for memory: COLLECTOR_MEMORY_LIMIT_MIB and "
        "the container's limit belong together.",
        link,
    )
    filling = _said(
        "The Collector's queue to {{ $labels.exporter }} is {{ $value | humanizePercentage }} full",
        "The server behind it is away or too slow. When the queue is full, new data is lost.",
        "Bring the server back; the queue is on disk and empties by itself.",
        link,
    )
    return [
        alert(
            "CallbotCollectorDown",
            'up{job=~"otel-collector.*"} == 0 or absent(up{job="otel-collector"})',
            "1m",
            Severity.CRITICAL,
            down,
        ),
        alert(
            "CallbotCollectorQueueFilling",
            "max by (exporter, data_type) (otelcol_exporter_queue_size / otelcol_exporter_queue_capacity) > 0.5",
            "5m",
            Severity.WARNING,
            filling,
        ),
        *_lost_by_collector(link),
    ]


def _lost_by_collector(link: str) -> list[Rule]:
    lost = '{{ $value | printf "%.0f" }} {{ $labels.signal }} '
    failing = _said(
        "{{ $labels.exporter }} refuses data",
        f"{lost}were refused within 5 minutes and are lost.",
        "Refused for good, such as by a wrong token or a missing bucket: this is not sent again. docker compose logs "
        "otel-collector shows the answer of the server; check INFLUXDB_TOKEN and the bucket.",
        link,
    )
    full = _said(
        "The Collector's queue to {{ $labels.exporter }} is full",
        f"{lost}found no room within 5 minutes; what the bots cannot send again is lost.",
        "Bring the server behind it back. Where it is up, it is too slow, or the queue too small.",
        link,
    )
    refusing = _said(
        "The Collector takes no more from the bots",
        f"{lost}were sent back within 5 minutes; the bots send them again until their buffers are full.",
        "Its memory limit is reached, or a queue is full: COLLECTOR_MEMORY_LIMIT_MIB, and more Collectors where the "
        "load is real.",
        link,
    )
    return [
        alert(name, f"{series}:increase5m > 0", "1m", Severity.WARNING, annotations)
        for name, series, annotations in (
            ("CallbotCollectorExportFailing", "exporter:otelcol_exporter_send_failed", failing),
            ("CallbotCollectorQueueFull", "exporter:otelcol_exporter_enqueue_failed", full),
            ("CallbotCollectorRefusing", "receiver:otelcol_receiver_refused", refusing),
        )
    ]
