"""`send_test()`: one marked alert through every channel, and what became of it."""

from collections.abc import Iterable
from time import monotonic
from typing import Final

from ..delivery.probe import Probe
from ..delivery.protocols import Channel
from ..model.alert import Alert, AlertEvent
from ..model.metric import LatencyMetric
from ..model.operation import OperationStatus, OperationType, Severity

__all__ = ["running", "send_test"]

TIMEOUT_S = 10.0


class RunningChannels:
    """The channels of the running session: `init()` sets them, `shutdown()` takes them away."""

    def __init__(self) -> None:
        self.channels: Iterable[Channel] | None = None


running: Final = RunningChannels()


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
    channels = running.channels
    if channels is None:
        raise RuntimeError("send_test: nothing is running; call callbot_latency.init() first")
    metric = LatencyMetric(OperationType.STT, "test_alert", 0.0, OperationStatus.SUCCESS)
    alert = Alert(metric, Severity.CRITICAL, 0.0, AlertEvent.TEST)
    deadline_s = monotonic() + timeout_s
    probes = {name: probe for channel in channels for name, probe in channel.probe(alert).items()}
    return {name: _answer_of(probe, deadline_s, timeout_s) for name, probe in probes.items()}


def _answer_of(probe: Probe, until_s: float, timeout_s: float) -> str | None:
    try:
        return probe.wait(until_s)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
