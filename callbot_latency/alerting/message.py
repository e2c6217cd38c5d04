"""An alert in words."""

from ..metric import LatencyMetric, OperationStatus
from .alert import Alert, AlertEvent

__all__ = ["said", "text_of"]


def said(metric: LatencyMetric) -> str:
    """What was measured, how long it took, and in which call."""
    provider = f" ({metric.provider})" if metric.provider else ""
    called = f" in call {metric.call_sid}" if metric.call_sid else ""
    verb = "for" if metric.status is OperationStatus.RUNNING else "took"
    return f"{metric.operation_type.value} {metric.operation_name}{provider} {verb} {metric.latency_ms:.0f} ms{called}"


def text_of(alert: Alert) -> str:
    """One line: what, which call, how long against which threshold, how many alike, and where to look."""
    words = {AlertEvent.BREACH: _breach, AlertEvent.RECOVERY: _recovery, AlertEvent.SUMMARY: _summary}
    if alert.rule is not None:
        words |= {AlertEvent.BREACH: _rule, AlertEvent.RECOVERY: _rule_over}
    link = f", {alert.trace_url}" if alert.trace_url else ""
    return words[alert.event](alert) + link


def _rule(alert: Alert) -> str:
    alike = f", and {alert.held_back} more like it" if alert.held_back else ""
    still = "still " if alert.lasts else ""
    return f"{still}{alert.severity.value}: rule {alert.rule}: {alert.text}{_call(alert)}{alike}"


def _rule_over(alert: Alert) -> str:
    fired = f", fired {alert.slow} times" if alert.slow > 1 else ""
    return f"recovered: rule {alert.rule} is over {alert.text}{fired}"


def _call(alert: Alert) -> str:
    call_sid = alert.metric.call_sid
    return f", see call {call_sid}" if call_sid and call_sid not in (alert.text or "") else ""


def _breach(alert: Alert) -> str:
    severity = alert.severity.value
    alike = f", and {alert.held_back} more like it" if alert.held_back else ""
    running = "still running: " if alert.in_flight else ""
    return f"{severity}: {running}{said(alert.metric)}, {severity} from {alert.threshold_ms:.0f} ms{alike}"


def _recovery(alert: Alert) -> str:
    metric = alert.metric
    after = f" after {_duration(alert)}" if alert.since else ""
    return (
        f"recovered: {metric.operation_type.value} {metric.operation_name} back under {alert.threshold_ms:.0f} ms"
        f"{after}, {alert.slow} slow, worst {alert.worst_ms or 0:.0f} ms"
    )


def _duration(alert: Alert) -> str:
    seconds = 0.0 if alert.since is None else (alert.metric.timestamp - alert.since).total_seconds()
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0.0, seconds):.0f} s"


def _summary(alert: Alert) -> str:
    last = said(alert.metric) if alert.rule is None else f"rule {alert.rule}: {alert.text}"
    return f"{alert.severity.value}: {alert.held_back} more slow operations, not told one by one; the last: {last}"
