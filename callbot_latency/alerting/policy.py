"""Which breaches become messages: one for each kind of operation and cooldown, and one when it is over."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Final

from ..base.internal_errors import RateLimiter, call_safely
from ..delivery.protocols import Channel, Notifier
from ..model.alert import Alert, AlertEvent
from ..model.metric import LatencyMetric
from ..model.operation import OperationStatus, Severity
from ..model.thresholds import Thresholds
from ..semconv import LOGGER_ALERT_POLICY
from .throttling import AlertState, AlertStates, Burst, Cooldown, stands_for

__all__ = ["HEALTHY_IN_A_ROW", "AlertPolicy", "Outbox"]

HEALTHY_IN_A_ROW: Final = 5
"""So many operations in a row under the warning threshold end a row of slow ones."""
LONGEST_WAIT_S: Final = 0.1
CLOSE_WAIT_S: Final = 0.25
"""How long the end waits for whoever decides at that moment, which takes microseconds."""

_log = logging.getLogger(LOGGER_ALERT_POLICY)

CALLBACKS: Final = "callbacks"
"""The channel by whose name a rule reaches `add_alert_callback`."""


class AlertPolicy:
    """The reporter that turns breaches into alerts.

    Callbacks get every one of them. The log and the channels get the first of each kind (operation type, name,
    provider and severity), then one a cooldown that says how many it stands for, and one when it is over. Of each
    severity at most `burst` messages a minute are sent, the others in one summary. What one message stands for
    adds up: itself and its `held_back` over all messages are the breaches that there were.

    A rule of LATENCY_ALERT_RULES_FILE is one more kind: it goes to its own channels after its own cooldown, within the
    same burst limit, and to callbacks only where its channels name ``callbacks``.

    Args:
        thresholds: what was breached, in milliseconds.
        callbacks: gets every breach.
        channels: get what gets through.
        log: gets, besides, what is still held back at the end: the one channel that never wakes anybody.
        cooldown_s: how long alike breaches are held back, in seconds of a monotonic clock; 0 for not at all.
        burst: messages a minute, of each severity.
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
        self._tell_nobody = RateLimiter()
        self._reset()

    def _reset(self) -> None:
        # The worker, the timer of deadlines and shutdown() come here; never the call. Whoever holds the lock decides,
        # and does nothing that may wait: no log, no channel, no callback.
        self._lock = threading.Lock()
        self._outbox = Outbox()
        self._unheard: deque[Alert] = deque(maxlen=100)
        self._states = AlertStates(self._cooldown_s)
        self._limit = Burst(self._burst)

    def start(self) -> None:
        """Nothing to start."""

    def restart_after_fork(self) -> None:
        """In a forked child: what is held back is the parent's to tell."""
        self._reset()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Take in finished operations."""
        for metric in batch:
            call_safely(self._take, metric)
        self._hand_over()

    def in_flight(self, metric: LatencyMetric) -> Alert:
        """Take in an operation that still runs and has passed its critical threshold; gives the alert on it."""
        with self._deciding():
            state = self._states.of(metric)
            alert = replace(
                self._alert_on(metric, Severity.CRITICAL),
                in_flight=True,
                since=state.since,
                # It is counted at its end; here it is the one more that it will be.
                slow=state.slow + 1,
                worst_ms=max(state.worst_ms, metric.latency_ms),
            )
            self._callback(alert)
            self._offer(alert, state)
        return alert

    def rule(self, alert: Alert, *, cooldown_s: float | None = None, lasts: bool = False) -> None:
        """Take in that a rule fired.

        Args:
            alert: has the rule's name; one rule has one severity.
            cooldown_s: of the first alert of a rule; the policy's own unless given.
            lasts: the rule still fires since an earlier call: reported once per cooldown, and not counted again.

        """
        with self._deciding():
            state = self._states.of_rule(alert.rule or "", cooldown_s)
            state.worst_ms = max(state.worst_ms, alert.worst_ms or 0.0)
            alert = replace(alert, trace_url=self._trace_of(alert.metric), worst_ms=state.worst_ms or None)
            if lasts:
                self._remind(replace(alert, slow=state.slow, lasts=True), state)
                return
            state.since = state.since or alert.since
            state.slow += 1
            alert = replace(alert, slow=state.slow)
            if alert.channels is not None and CALLBACKS in alert.channels:
                self._callback(alert)
            self._offer(alert, state)

    def rule_over(self, alert: Alert) -> None:
        """Take in that a rule no longer fires; reported if its firing was reported."""
        with self._deciding():
            state = self._states.rules.get(alert.rule or "")
            if state is None or not state.slow:
                return
            alert = replace(alert, since=state.since, slow=state.slow, worst_ms=state.worst_ms or None)
            if state.was_reported:
                self._send(replace(alert, held_back=state.held_back))
            else:
                # After the cooldown, its end is reported.
                for cooldown in state.cooling.values():
                    cooldown.newest = alert if cooldown.newest is not None else None
            state.close()

    def tick(self) -> None:
        """Tell what a cooldown or a full minute held back, once it is over."""
        now_s = self._clock()
        with self._deciding():
            for state in self._states:
                for left in state.pop_expired(now_s):
                    self._offer(left, state)
            self._states.prune()
            for summary in self._limit.due(now_s):
                self._enqueue(summary)

    def close(self) -> None:
        """Say what is still held back."""
        self._outbox.flush(last=True)
        # shutdown() has an end, whatever holds the lock.
        if not self._lock.acquire(timeout=CLOSE_WAIT_S):
            return
        try:
            cooling = [cooldown for state in self._states for cooldown in state.cooling.values()]
            left = [alert for cooldown in cooling if (alert := cooldown.left()) is not None]
            left += self._limit.left()
            self._states.clear()
        finally:
            self._lock.release()
        for alert in left:
            if self._log is not None:
                call_safely(self._log.notify, replace(alert, channels=None))

    # -- under the lock -------------------------------------------------------------------------------------------

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        with self._lock:
            yield
        self._hand_over()

    def _take(self, metric: LatencyMetric) -> None:
        if metric.severity is not None:
            with self._lock:
                self._breach(self._alert_on(metric, metric.severity))
        elif metric.status is OperationStatus.SUCCESS and self._states.kinds:
            with self._lock:
                self._healthy(metric)

    def _alert_on(self, metric: LatencyMetric, severity: Severity) -> Alert:
        threshold_ms = self._thresholds.breached_ms(metric.operation_type, severity)
        return Alert(metric, severity, threshold_ms, trace_url=self._trace_of(metric))

    def _trace_of(self, metric: LatencyMetric) -> str | None:
        if not self._trace_url or not metric.trace_id:
            return None
        return self._trace_url.replace("{trace_id}", metric.trace_id)

    def _breach(self, alert: Alert) -> None:
        metric, state = alert.metric, self._states.of(alert.metric)
        state.take(metric, alert.severity)
        alert = replace(alert, since=state.since, slow=state.slow, worst_ms=state.worst_ms)
        self._callback(alert)
        # A breach that was reported in flight is not reported again at its end.
        if not metric.told_in_flight:
            self._offer(alert, state)

    def _healthy(self, metric: LatencyMetric) -> None:
        state = self._states.known(metric)
        if state is None or not state.slow:
            return
        state.healthy += 1
        if state.healthy < HEALTHY_IN_A_ROW:
            return
        if state.was_reported:
            self._send(self._recovery(metric, state))
        state.close()

    def _recovery(self, metric: LatencyMetric, state: AlertState) -> Alert:
        return Alert(
            metric,
            state.worst,
            self._thresholds.get_warning_threshold(metric.operation_type),
            AlertEvent.RECOVERY,
            held_back=state.held_back,
            since=state.since,
            slow=state.slow,
            worst_ms=state.worst_ms,
        )

    def _remind(self, alert: Alert, state: AlertState) -> None:
        cooldown = state.cooling.get(alert.severity)
        if cooldown is None or self._clock() >= cooldown.until_s:
            self._offer(alert, state)
        elif cooldown.newest is not None:
            # Its beginning was held back: after the cooldown, its state of then is reported.
            cooldown.newest = replace(alert, lasts=False)

    def _offer(self, alert: Alert, state: AlertState) -> None:
        """Send it, unless one like it was sent within the cooldown or the minute is full."""
        cooldown = state.cooling.get(alert.severity)
        now_s = self._clock()
        if cooldown is not None and now_s < cooldown.until_s:
            cooldown.held_back += stands_for(alert)
            cooldown.newest = alert
            return
        if cooldown is not None and cooldown.newest is not None:
            alert = replace(alert, held_back=alert.held_back + cooldown.held_back)
        state.cooling[alert.severity] = Cooldown(now_s + state.cooldown_s)
        if self._send(alert):
            state.was_reported = alert.event is AlertEvent.BREACH

    def _send(self, alert: Alert) -> bool:
        """Tell it, or sum it up where the minute is full."""
        admitted = self._limit.admits(alert, self._clock())
        if admitted:
            self._enqueue(alert)
        return admitted

    def _callback(self, alert: Alert) -> None:
        if self._callbacks is not None:
            self._outbox.put(self._callbacks.notify, alert)

    def _enqueue(self, alert: Alert) -> None:
        for channel in self.channels:
            self._outbox.put(channel.notify, alert)
        if alert.channels is not None:
            self._unheard.append(alert)

    # -- without the lock -----------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        self._outbox.flush()
        with suppress(IndexError):
            while True:
                self._warn_of_missing(self._unheard.popleft())

    def _warn_of_missing(self, alert: Alert) -> None:
        there = {CALLBACKS, *(name for channel in self.channels for name in getattr(channel, "channel_names", ()))}
        missing = [name for name in alert.channels or () if name not in there]
        if missing and self._tell_nobody():
            _log.warning("rule %s names channels that are not set up: %s", alert.rule, ", ".join(missing))


class Outbox:
    """Alerts for lanes, delivered in the order in which they were put in, by any thread that calls `flush`.

    A lane's error is logged, and a log handler may hang. So the policy's lock is not held while alerts are delivered.
    A thread that finds another one delivering leaves its alerts to that thread.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[Alert], object], Alert]] = deque()
        self._turn = threading.Lock()

    def put(self, notify: Callable[[Alert], object], alert: Alert) -> None:
        """Have `notify(alert)` called; does nothing else."""
        self._waiting.append((notify, alert))

    def flush(self, *, last: bool = False) -> None:
        """Call what waits, unless another thread does; the `last` time whatever that one hangs in."""
        while self._waiting:
            has_turn = self._turn.acquire(timeout=LONGEST_WAIT_S if last else 0)
            if not (has_turn or last):
                return
            try:
                with suppress(IndexError):  # the end of the session was faster
                    while True:
                        notify, alert = self._waiting.popleft()
                        call_safely(notify, alert)
            finally:
                if has_turn:
                    self._turn.release()
