"""`send_test()`: one marked alert through every channel, and what became of it."""

import threading
from time import monotonic

from ..metric import LatencyMetric, OperationStatus, OperationType, Severity
from ..reporters.delivery import text_of
from .alert import Alert, AlertEvent

__all__ = ["Probe", "send_test"]

TIMEOUT_S = 10.0


class Probe:
    """An alert whose sender waits for what becomes of it. A lane hands it over once, and never again."""

    channels = None

    def __init__(self, alert: Alert) -> None:
        self.alert = alert
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._given_up = False
        self._error: BaseException | None = None

    def begin(self) -> bool:
        """Whether somebody still waits for it: else it is not to be handed over."""
        with self._lock:
            return not self._given_up

    def end(self, error: BaseException | None) -> None:
        """Say that it was handed over, and what the reporter raised."""
        self._error = error
        self._over.set()

    def wait(self, until_s: float) -> str | None:
        """What went wrong by `until_s` of the monotonic clock, in words; None where nothing did.

        Raises:
            TimeoutError: it is not over; unless it has begun, it never will be.

        """
        if not self._over.wait(max(0.0, until_s - monotonic())):
            with self._lock:
                self._given_up = True
            raise TimeoutError
        # Of any other exception, whose text may hold a secret, the type alone.
        return None if self._error is None else text_of(self._error)


def send_test(timeout_s: float = TIMEOUT_S) -> dict[str, str | None]:
    """Send one alert, marked as a test, through the log and every configured channel, and wait for their answers.

    Each channel is asked once. Callbacks are left alone: they may do what only a real breach should.

    Args:
        timeout_s: how long all of them together may take, in seconds.

    Returns:
        By channel, such as ``{"log": None, "slack": "Slack answers 403 (invalid_token): ..."}``: None where it
        arrived, else what went wrong.

    Raises:
        RuntimeError: nothing is running; call `init()` first.

    """
    from ..runtime import running_policy

    policy = running_policy()
    if policy is None:
        raise RuntimeError("send_test: nothing is running; call callbot_latency.init() first")
    metric = LatencyMetric(OperationType.STT, "test_alert", 0.0, OperationStatus.SUCCESS)
    alert = Alert(metric, Severity.CRITICAL, 0.0, AlertEvent.TEST)
    deadline_s = monotonic() + timeout_s
    probes = {name: probe for channel in policy.channels for name, probe in channel.probe(alert).items()}
    return {name: _answer_of(probe, deadline_s, timeout_s) for name, probe in probes.items()}


def _answer_of(probe: Probe, until_s: float, timeout_s: float) -> str | None:
    try:
        return probe.wait(until_s)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
