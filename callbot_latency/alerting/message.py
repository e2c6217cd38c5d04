"""An alert in words, for every channel: one line, a title, and the facts beneath it."""

from datetime import datetime
from typing import Final, NamedTuple

from ..base.text import one_line
from ..model.alert import Alert, AlertEvent, Language
from ..model.metric import LatencyMetric
from ..model.operation import OperationStatus
from .display import UNNAMED, display_id, display_text, display_url
from .translations import say

__all__ = ["Field", "describe", "message_fields", "one_line_message", "title_of"]

RULE_TEXT_CHARS: Final = 400


class Field(NamedTuple):
    """A line of a message; `is_id` where the value is there to be copied."""

    label: str
    value: str
    is_id: bool = False


def describe(metric: LatencyMetric, language: Language = "en") -> str:
    """What was measured, how long it took, and in which call."""
    provider = f" ({display_text(metric.provider)})" if metric.provider else ""
    called = say(language, " in call {call_sid}", call_sid=display_id(metric.call_sid)) if metric.call_sid else ""
    is_running = metric.status is OperationStatus.RUNNING
    words = "{what} for {ms} ms{call}" if is_running else "{what} took {ms} ms{call}"
    return say(language, words, what=_what(metric) + provider, ms=_ms(metric.latency_ms), call=called)


def one_line_message(alert: Alert, language: Language = "en") -> str:
    """One line: what, which call, how long against which threshold, how many alike, and where to look."""
    url = display_url(alert.trace_url)
    lines = _LINES if alert.rule is None else _RULE_LINES
    line = _recoveries if _is_of_many(alert) else lines[alert.event]
    return line(alert, language) + (f", {url}" if url else "")


def title_of(alert: Alert, language: Language = "en") -> str:
    """What happened, in the few words that a telephone shows."""
    if alert.event is AlertEvent.TEST:
        return say(language, "Test of the alerts")
    severity = _severity(alert, language).capitalize()
    if alert.event is AlertEvent.SUMMARY:
        return say(language, "{severity}: {count} more slow operations", severity=severity, count=alert.held_back)
    if _is_of_many(alert):
        return say(language, "Recovered: {count} kinds", count=alert.recovered)
    if alert.rule is not None:
        words = "{severity}: rule {rule}" if alert.event is AlertEvent.BREACH else "Recovered: rule {rule}"
        return say(
            language, words, severity=_severity_of_rule(alert, language).capitalize(), rule=display_text(alert.rule)
        )
    what = _what(alert.metric)
    if alert.event is AlertEvent.RECOVERY:
        return say(language, "Recovered: {what} back under {ms} ms", what=what, ms=_ms(alert.threshold_ms))
    took, running = "{severity}: {what} took {ms} ms", "{severity}: {what} still running after {ms} ms"
    words = running if alert.in_flight else took
    return say(language, words, severity=severity, what=what, ms=_ms(alert.metric.latency_ms))


def message_fields(alert: Alert, language: Language = "en") -> list[Field]:
    """What a person on call asks next; what is unknown is not there."""
    if alert.event is AlertEvent.TEST:
        return [Field(say(language, "Message"), say(language, "this channel works; nothing is slow"))]
    metric, is_breach = alert.metric, alert.event is AlertEvent.BREACH
    if alert.event is AlertEvent.SUMMARY:
        count = say(language, "{count} not told one by one", count=alert.held_back)
        return [Field(say(language, "Held back"), count), Field(say(language, "The last"), _last(alert, language))]
    if _is_of_many(alert):
        return [Field(say(language, "The last"), _last_recovered(alert, language)), *_past(alert, language)]
    facts = [Field(say(language, "Message"), _text_of_rule(alert))] if alert.rule is not None else []
    # A recovery's measurement is one that was well: its call would mislead.
    if is_breach:
        facts += _call_of(metric, language)
    if metric.provider:
        facts.append(Field(say(language, "Provider"), display_text(metric.provider)))
    if alert.rule is not None:
        facts += _fired(alert, language)
    else:
        facts += _latency(alert, language) if is_breach else _past(alert, language)
    if is_breach and alert.held_back:
        alike = say(language, "{count} more like it since the last message", count=alert.held_back)
        facts.append(Field(say(language, "Held back"), alike))
    if is_breach and metric.trace_id:
        facts.append(Field(say(language, "Trace"), display_id(metric.trace_id), is_id=True))
    return facts


def _call_of(metric: LatencyMetric, language: Language) -> list[Field]:
    facts = [Field(say(language, "Call"), display_id(metric.call_sid), is_id=True)] if metric.call_sid else []
    return facts if metric.turn is None else [*facts, Field(say(language, "Turn"), str(metric.turn))]


def _latency(alert: Alert, language: Language) -> list[Field]:
    metric = alert.metric
    done = "{ms} ms, {severity} from {threshold} ms"
    running = "{ms} ms and still running, {severity} from {threshold} ms"
    latency = say(
        language,
        running if alert.in_flight else done,
        ms=_ms(metric.latency_ms),
        severity=_severity(alert, language),
        threshold=_ms(alert.threshold_ms),
    )
    facts = [Field(say(language, "Latency"), latency)]
    if metric.status not in {OperationStatus.SUCCESS, OperationStatus.RUNNING}:
        facts.append(Field(say(language, "Outcome"), say(language, metric.status.value)))
    if alert.since is not None:
        facts.append(Field(say(language, "Slow since"), _time(alert.since)))
    if alert.slow > 1 and alert.worst_ms is not None:
        facts.append(_slow(alert, alert.worst_ms, language))
    return facts


def _past(alert: Alert, language: Language) -> list[Field]:
    facts = [Field(say(language, "Lasted"), _duration(alert))] if alert.since else []
    return facts if alert.worst_ms is None else [*facts, _slow(alert, alert.worst_ms, language)]


def _fired(alert: Alert, language: Language) -> list[Field]:
    facts = [Field(say(language, "Since"), _time(alert.since))] if alert.since else []
    if alert.slow > 1:
        facts.append(Field(say(language, "Fired"), say(language, "{count} times", count=alert.slow)))
    return facts


def _slow(alert: Alert, worst_ms: float, language: Language) -> Field:
    words = "{count}, worst {worst} ms"
    return Field(say(language, "Slow"), say(language, words, count=alert.slow, worst=_ms(worst_ms)))


def _breach(alert: Alert, language: Language) -> str:
    done = "{severity}: {said}, {severity} from {ms} ms{alike}"
    running = "{severity}: still running: {said}, {severity} from {ms} ms{alike}"
    return say(
        language,
        running if alert.in_flight else done,
        severity=_severity(alert, language),
        said=describe(alert.metric, language),
        ms=_ms(alert.threshold_ms),
        alike=_alike(alert, language),
    )


def _recovery(alert: Alert, language: Language) -> str:
    return say(
        language,
        "recovered: {what} back under {ms} ms{after}, {count} slow, worst {worst} ms",
        what=_what(alert.metric),
        ms=_ms(alert.threshold_ms),
        after=say(language, " after {duration}", duration=_duration(alert)) if alert.since else "",
        count=alert.slow,
        worst=_ms(alert.worst_ms or 0),
    )


def _is_of_many(alert: Alert) -> bool:
    return alert.event is AlertEvent.RECOVERY and alert.recovered > 0


def _recoveries(alert: Alert, language: Language) -> str:
    words = "recovered: {count} kinds, not told one by one; the last: {what}"
    return say(language, words, count=alert.recovered, what=_last_recovered(alert, language))


def _last_recovered(alert: Alert, language: Language) -> str:
    return _what(alert.metric) if alert.rule is None else say(language, "rule {rule}", rule=display_text(alert.rule))


def _summary(alert: Alert, language: Language) -> str:
    words = "{severity}: {count} more slow operations, not told one by one; the last: {said}"
    last = _last(alert, language)
    return say(language, words, severity=_severity(alert, language), count=alert.held_back, said=last)


def _test(_: Alert, language: Language) -> str:
    return say(language, "test: this channel works; nothing is slow")


def _last(alert: Alert, language: Language) -> str:
    if alert.rule is None:
        return describe(alert.metric, language)
    return say(language, "rule {rule}: {text}", rule=display_text(alert.rule), text=_text_of_rule(alert))


def _rule(alert: Alert, language: Language) -> str:
    call_sid, text = alert.metric.call_sid, _text_of_rule(alert)
    is_named = call_sid is not None and call_sid in (alert.text or "")
    return say(
        language,
        "{severity}: rule {rule}: {text}{call}{alike}",
        severity=_severity_of_rule(alert, language),
        rule=display_text(alert.rule),
        text=text,
        call="" if not call_sid or is_named else say(language, ", see call {call_sid}", call_sid=display_id(call_sid)),
        alike=_alike(alert, language),
    )


def _rule_over(alert: Alert, language: Language) -> str:
    fired = say(language, ", fired {count} times", count=alert.slow) if alert.slow > 1 else ""
    words, text = "recovered: rule {rule} is over {text}{fired}", _text_of_rule(alert)
    return say(language, words, rule=display_text(alert.rule), text=text, fired=fired)


def _text_of_rule(alert: Alert) -> str:
    """Its values were scrubbed when they were filled in; what its author wrote stands as it is."""
    return one_line(alert.text or "", RULE_TEXT_CHARS) or UNNAMED


def _severity_of_rule(alert: Alert, language: Language) -> str:
    severity = _severity(alert, language)
    return say(language, "still {severity}", severity=severity) if alert.lasts else severity


def _alike(alert: Alert, language: Language) -> str:
    return say(language, ", and {count} more like it", count=alert.held_back) if alert.held_back else ""


_LINES: Final = {
    AlertEvent.BREACH: _breach,
    AlertEvent.RECOVERY: _recovery,
    AlertEvent.SUMMARY: _summary,
    AlertEvent.TEST: _test,
}
_RULE_LINES: Final = {**_LINES, AlertEvent.BREACH: _rule, AlertEvent.RECOVERY: _rule_over}


def _what(metric: LatencyMetric) -> str:
    return f"{metric.operation_type.value} {display_text(metric.operation_name)}"


def _severity(alert: Alert, language: Language) -> str:
    return say(language, alert.severity.value)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _duration(alert: Alert) -> str:
    seconds = 0.0 if alert.since is None else (alert.metric.timestamp - alert.since).total_seconds()
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0.0, seconds):.0f} s"
