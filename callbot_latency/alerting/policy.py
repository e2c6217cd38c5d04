"""Which breaches become messages: one for each kind of operation and cooldown, and one when it is over."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Final

from .. import semconv
from ..guard import AtMostOncePer, contained
from ..metric import LatencyMetric, OperationStatus, Severity
from ..reporters import Channel, Notifier
from ..thresholds import Thresholds
from .alert import Alert, AlertEvent
from .burst import Burst, is_new, stands_for

__all__ = ["HEALTHY_IN_A_ROW", "MAX_KEYS", "AlertPolicy"]

HEALTHY_IN_A_ROW: Final = 5
"""So many operations in a row under the warning threshold end a row of slow ones."""
MAX_KEYS: Final = 1_000
"""Kinds of operations that are told apart; those beyond share one row."""

_log = logging.getLogger(__name__)

CALLBACKS: Final = "callbacks"
"""The channel by whose name a rule reaches `add_alert_callback`."""

_Key = tuple[str, str, str | None]
_OVERFLOW: Final[_Key] = (semconv.OTHER, semconv.OTHER, None)


@dataclass(slots=True)
class _Row:
    """What is known of one kind of operation, or of a rule, since it became slow, or fired."""

    cooldown_s: float
    since: datetime | None = None
    slow: int = 0
    worst_ms: float = 0.0
    worst: Severity = Severity.WARNING
    healthy: int = 0
    was_told: bool = False
    cooling: dict[Severity, "_Cooldown"] = field(default_factory=dict)


@dataclass(slots=True)
class _Cooldown:
    until_s: float
    held_back: int = 0
    newest: Alert | None = None

    def left(self) -> Alert | None:
        """What is still to be told, standing for all that was held back."""
        if self.newest is None:
            return None
        return replace(self.newest, held_back=self.held_back - is_new(self.newest))


class AlertPolicy:
    """The reporter that turns breaches into alerts.

    Callbacks get every one of them. The log and the channels get the first of each kind (operation type, name,
    provider and severity), then one a cooldown that says how many it stands for, and one when it is over. Over
    everything at most `burst` messages a minute are sent, the others in one summary. What one message stands for
    adds up: itself and its `held_back` over all messages are the breaches that there were.

    A rule of LATENCY_ALERT_RULES_FILE is one more kind: it goes to its own channels after its own cooldown, within the
    same burst limit, and to callbacks only where its channels name ``callbacks``.

    Args:
        thresholds: what was breached, in milliseconds.
        callbacks: gets every breach.
        channels: get what gets through.
        log: gets, besides, what is still held back at the end: the one channel that never wakes anybody.
        cooldown_s: how long alike breaches are held back, in seconds of a monotonic clock; 0 for not at all.
        burst: messages a minute.
        trace_url: address of a trace, with ``{trace_id}`` in it.
        clock: a monotonic clock in seconds.

    """

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        callbacks: Notifier | None = None,
        channels: Sequence[Channel] = (),
        log: Channel | None = None,
        cooldown_s: float = 300.0,
        burst: int = 20,
        trace_url: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._thresholds = thresholds
        self._callbacks = callbacks
        self.channels: Final = tuple(channels) if log is None else (log, *channels)
        self._log = log
        self._cooldown_s = cooldown_s
        self._burst = burst
        self._trace_url = trace_url
        self._clock = clock
        self._tell_nobody = AtMostOncePer()
        self._reset()

    def _reset(self) -> None:
        # The worker, the timer of deadlines and shutdown() come here; never the call.
        self._lock = threading.Lock()
        self._rows: dict[_Key, _Row] = {}
        self._rules: dict[str, _Row] = {}
        self._bursts = {severity: Burst(self._burst) for severity in Severity}
        self._nobody: str | None = None

    def start(self) -> None:
        """Nothing to start."""

    def restart_after_fork(self) -> None:
        """In a forked child: what is held back is the parent's to tell."""
        self._reset()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Take in finished operations."""
        with self._lock:
            for metric in batch:
                if metric.severity is not None:
                    contained(self._breach, self._alert_on(metric, metric.severity))
                elif metric.status is OperationStatus.SUCCESS and self._rows:
                    contained(self._healthy, metric)

    def in_flight(self, metric: LatencyMetric) -> Alert:
        """Take in an operation that still runs and has passed its critical threshold; gives the alert on it."""
        with self._lock:
            alert = replace(self._alert_on(metric, Severity.CRITICAL), in_flight=True)
            self._callback(alert)
            self._offer(alert, self._row_of(metric))
        return alert

    def rule(self, alert: Alert, *, cooldown_s: float | None = None, lasts: bool = False) -> None:
        """Take in that a rule fired.

        Args:
            alert: has the rule's name; one rule has one severity.
            cooldown_s: of the first alert of a rule; the policy's own unless given.
            lasts: it is the same that was taken in before and goes on: told once a cooldown, counted no more.

        """
        with self._lock:
            name = alert.rule or ""
            row = self._rules.get(name)
            if row is None:
                row = self._rules[name] = _Row(self._cooldown_s if cooldown_s is None else cooldown_s)
            row.worst_ms = max(row.worst_ms, alert.worst_ms or 0.0)
            alert = replace(alert, trace_url=self._trace_of(alert.metric), worst_ms=row.worst_ms or None)
            if lasts:
                self._remind(replace(alert, slow=row.slow, lasts=True), row)
                return
            row.since = row.since or alert.since
            row.slow += 1
            alert = replace(alert, slow=row.slow)
            if alert.channels is not None and CALLBACKS in alert.channels:
                self._callback(alert)
            self._offer(alert, row)

    def rule_over(self, alert: Alert) -> None:
        """Take in that a rule no longer fires; told where it was told that it does."""
        with self._lock:
            row = self._rules.get(alert.rule or "")
            if row is None or not row.slow:
                return
            held_back = sum(cooldown.held_back for cooldown in row.cooling.values())
            alert = replace(alert, since=row.since, slow=row.slow, worst_ms=row.worst_ms or None)
            if row.was_told:
                self._tell(replace(alert, held_back=held_back))
            else:
                # What is told of it after the cooldown is that it is over.
                for cooldown in row.cooling.values():
                    cooldown.newest = alert if cooldown.newest is not None else None
            self._close_row(row)

    def _remind(self, alert: Alert, row: _Row) -> None:
        cooldown = row.cooling.get(alert.severity)
        if cooldown is None or self._clock() >= cooldown.until_s:
            self._offer(alert, row)
        elif cooldown.newest is not None:
            # Its beginning was held back: what is told of it after the cooldown is how it stands by then.
            cooldown.newest = replace(alert, lasts=False)

    def tick(self) -> None:
        """Tell what a cooldown or a full minute held back, once it is over."""
        now_s = self._clock()
        with self._lock:
            for row in self._every_row():
                for severity, cooldown in list(row.cooling.items()):
                    if now_s >= cooldown.until_s:
                        del row.cooling[severity]
                        if (left := cooldown.left()) is not None:
                            self._offer(left, row)
            for burst in self._bursts.values():
                if (summary := burst.due(now_s)) is not None:
                    self._send(summary)
            nobody, self._nobody = self._nobody, None
        # Not under the lock: a handler of the log may hang, and shutdown() comes here too.
        if nobody is not None and self._tell_nobody():
            _log.warning("%s", nobody)

    def close(self) -> None:
        """Say what is still held back."""
        with self._lock:
            cooling = [cooldown for row in self._every_row() for cooldown in row.cooling.values()]
            left = [alert for cooldown in cooling if (alert := cooldown.left()) is not None]
            left += [summary for burst in self._bursts.values() if (summary := burst.left()) is not None]
            self._rows.clear()
            self._rules.clear()
        for alert in left:
            if self._log is not None:
                contained(self._log.notify, replace(alert, channels=None))

    # -- a breach -------------------------------------------------------------------------------------------------

    def _alert_on(self, metric: LatencyMetric, severity: Severity) -> Alert:
        threshold_ms = self._thresholds.breached_ms(metric.operation_type, severity)
        return Alert(metric, severity, threshold_ms, trace_url=self._trace_of(metric))

    def _trace_of(self, metric: LatencyMetric) -> str | None:
        if not self._trace_url or not metric.trace_id:
            return None
        return self._trace_url.replace("{trace_id}", metric.trace_id)

    def _row_of(self, metric: LatencyMetric) -> _Row:
        key = _key_of(metric)
        if key not in self._rows and len(self._rows) >= MAX_KEYS:
            key = _OVERFLOW
        return self._rows.setdefault(key, _Row(self._cooldown_s))

    def _every_row(self) -> Iterator[_Row]:
        yield from self._rows.values()
        yield from self._rules.values()

    def _breach(self, alert: Alert) -> None:
        metric, row = alert.metric, self._row_of(alert.metric)
        row.since = row.since or metric.timestamp
        row.slow += 1
        row.healthy = 0
        row.worst_ms = max(row.worst_ms, metric.latency_ms)
        if alert.severity is Severity.CRITICAL:
            row.worst = Severity.CRITICAL
        alert = replace(alert, since=row.since, slow=row.slow, worst_ms=row.worst_ms)
        self._callback(alert)
        # What was told while it ran is no second message at its end.
        if not metric.told_in_flight:
            self._offer(alert, row)

    def _callback(self, alert: Alert) -> None:
        if self._callbacks is not None:
            contained(self._callbacks.notify, alert)

    def _offer(self, alert: Alert, row: _Row) -> None:
        """Send it, unless one like it was sent within the cooldown or the minute is full."""
        cooldown = row.cooling.get(alert.severity)
        now_s = self._clock()
        if cooldown is not None and now_s < cooldown.until_s:
            cooldown.held_back += stands_for(alert)
            cooldown.newest = alert
            return
        if cooldown is not None and cooldown.newest is not None:
            alert = replace(alert, held_back=alert.held_back + cooldown.held_back)
        row.cooling[alert.severity] = _Cooldown(now_s + row.cooldown_s)
        burst = self._bursts[alert.severity]
        if burst.is_full(now_s):
            burst.hold(alert)
        else:
            row.was_told = alert.event is AlertEvent.BREACH
            self._send(alert)

    def _send(self, alert: Alert) -> None:
        self._bursts[alert.severity].count(self._clock())
        self._tell(alert)

    def _tell(self, alert: Alert) -> None:
        for channel in self.channels:
            contained(channel.notify, alert)
        if alert.channels is not None:
            there = {CALLBACKS, *(name for channel in self.channels for name in getattr(channel, "channel_names", ()))}
            missing = [name for name in alert.channels if name not in there]
            if missing:
                self._nobody = f"rule {alert.rule} names channels that are not set up: {', '.join(missing)}"

    # -- its end --------------------------------------------------------------------------------------------------

    def _healthy(self, metric: LatencyMetric) -> None:
        row = self._rows.get(_key_of(metric))
        if row is None or not row.slow:
            return
        row.healthy += 1
        if row.healthy < HEALTHY_IN_A_ROW:
            return
        if row.was_told:
            self._tell_recovery(metric, row)
        self._close_row(row)

    def _tell_recovery(self, metric: LatencyMetric, row: _Row) -> None:
        alert = Alert(
            metric,
            row.worst,
            self._thresholds.get_warning_threshold(metric.operation_type),
            AlertEvent.RECOVERY,
            held_back=sum(cooldown.held_back for cooldown in row.cooling.values()),
            since=row.since,
            slow=row.slow,
            worst_ms=row.worst_ms,
        )
        self._tell(alert)

    def _close_row(self, row: _Row) -> None:
        """Slow again within the cooldown is held back as before: what flaps does not flood."""
        row.since, row.slow, row.healthy, row.worst_ms, row.worst = None, 0, 0, 0.0, Severity.WARNING
        if row.was_told:
            for cooldown in row.cooling.values():
                cooldown.held_back, cooldown.newest = 0, None
        row.was_told = False


def _key_of(metric: LatencyMetric) -> _Key:
    return metric.operation_type.value, metric.operation_name, metric.provider
