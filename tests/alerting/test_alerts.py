"""From a breach to whoever must know."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from callbot_latency import (
    Alert,
    LatencyMetric,
    OperationType,
    Severity,
    Thresholds,
    add_alert_callback,
    record,
    shutdown,
)
from callbot_latency.alerting import AlertCallbacks, AlertPolicy
from callbot_latency.alerting.callback_runner import LOOP_CAPACITY
from callbot_latency.base.drop_counters import dropped
from tests.conftest import Start


def metric(latency_ms: float = 2000, severity: str | None = "warning", **more: Any) -> LatencyMetric:
    return LatencyMetric(
        **{
            "operation_type": "speech_to_text",
            "operation_name": "f",
            "latency_ms": latency_ms,
            "status": "success",
            "severity": severity,
            **more,
        }
    )


class Listener:
    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def start(self) -> None: ...
    def report(self, batch: Any) -> None: ...
    def close(self) -> None: ...

    def notify(self, alert: Alert) -> None:
        self.alerts.append(alert)


class Deaf(Listener):
    def notify(self, alert: Alert) -> None:
        raise RuntimeError


def alert(severity: str = "warning") -> Alert:
    return Alert(metric(severity=severity), Severity(severity), 2000)


def test_each_breach_is_told_to_callbacks_and_log_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails keeps none from the other, and is counted."""
    monkeypatch.setattr("callbot_latency.base.internal_errors.raise_internal_errors.enabled", False)
    log, before = Listener(), dropped.by_reason().get("internal_error", 0)
    policy = AlertPolicy(Thresholds(), callbacks=Deaf(), log=log)
    policy.report([metric(1, None), metric(2000), metric(6000, "critical")])
    assert [(a.metric.latency_ms, a.severity, a.threshold_ms) for a in log.alerts] == [
        (2000, Severity.WARNING, 2000),
        (6000, Severity.CRITICAL, 5000),
    ]
    assert dropped.by_reason()["internal_error"] - before == 2


def test_callbacks_by_severity_given_as_enum_or_word() -> None:
    """None means all."""
    callbacks, heard = AlertCallbacks(), []
    callbacks.add(lambda a: heard.append(("all", a.severity.value)))
    callbacks.add(lambda a: heard.append(("enum", a.severity.value)), Severity.CRITICAL)
    callbacks.add(lambda a: heard.append(("word", a.severity.value)), "warning")
    callbacks.notify(alert())
    callbacks.notify(alert("critical"))
    assert heard == [("all", "warning"), ("word", "warning"), ("all", "critical"), ("enum", "critical")]


@pytest.mark.promise("internal-fault")
@pytest.mark.parametrize("fault", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_hurts_no_other(fault: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, since it is the application's own."""
    callbacks, heard = AlertCallbacks(), []

    def raises(_: Alert) -> None:
        raise fault("x")

    callbacks.add(raises)
    callbacks.add(heard.append)
    callbacks.notify(alert())
    assert len(heard) == 1
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert "raises" in line.getMessage()
    assert line.exc_info is not None
    assert line.exc_info[0] is fault


@pytest.mark.usefixtures("fresh_callbacks")
def test_a_coroutine_function_is_awaited_where_it_was_added(start: Start) -> None:
    """On the loop that ran there, so that it may use what belongs to that loop."""

    async def main() -> None:
        heard: asyncio.Queue[tuple[Alert, object]] = asyncio.Queue()

        async def told(a: Alert) -> None:
            await asyncio.sleep(0)
            heard.put_nowait((a, asyncio.get_running_loop()))

        add_alert_callback(told)
        record(metric(severity=None))
        a, loop = await asyncio.wait_for(heard.get(), 60)
        assert a.severity is Severity.WARNING
        assert loop is asyncio.get_running_loop()

    start()
    asyncio.run(main())
    record(metric(severity=None))  # the loop is closed: awaited on ours, where its queue still takes it
    assert shutdown(60)


@pytest.mark.usefixtures("fresh_callbacks")
def test_a_coroutine_function_added_without_a_loop_is_awaited_on_ours(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """To its end, before the next callback; what it raises is logged."""
    heard: list[str] = []

    async def first(_: Alert) -> None:
        await asyncio.sleep(0.001)
        heard.append("first")
        raise ValueError

    add_alert_callback(first)
    add_alert_callback(lambda _: heard.append("second"))
    start()
    record(metric(severity=None))
    assert shutdown(60)
    assert heard == ["first", "second"]
    assert "first' raised" in caplog.text


def test_what_hangs_on_the_application_s_loop_is_bounded_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each call beyond is counted; each that ends makes room."""

    async def main() -> None:
        callbacks, heard, ends = AlertCallbacks(), [], asyncio.Event()

        async def hangs(a: Alert) -> None:
            heard.append(a)
            await ends.wait()

        callbacks.add(hangs)

        def tell(times: int) -> None:
            for _ in range(times):
                callbacks.notify(alert())

        before = dropped.by_reason().get("callbacks_loop_full", 0)
        await asyncio.to_thread(tell, LOOP_CAPACITY + 5)
        await asyncio.sleep(0)
        assert len(heard) == LOOP_CAPACITY
        assert dropped.by_reason()["callbacks_loop_full"] - before == 5
        ends.set()
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        await asyncio.to_thread(tell, 1)
        await asyncio.sleep(0)
        assert len(heard) == LOOP_CAPACITY + 1

    asyncio.run(main())
    (line,) = caplog.records
    assert "hangs" in line.getMessage()


def test_a_wrong_callback_is_an_error_at_once() -> None:
    """What cannot be called, and a severity that does not exist."""
    with pytest.raises(TypeError, match="alert callback: expected a function of one alert, got str"):
        AlertCallbacks().add("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fatal"):
        AlertCallbacks().add(print, "fatal")


@pytest.mark.usefixtures("fresh_callbacks")
def test_a_callback_outlives_shutdown_and_runs_on_our_thread(start: Start) -> None:
    """Registered once, before `init()` or after; called on a lane, never on the caller's thread."""
    heard: list[str] = []
    add_alert_callback(lambda _: heard.append(threading.current_thread().name))
    for _ in range(2):
        start()
        record(metric(severity=None))
        assert shutdown(60)
    assert heard == ["callbot_latency.callbacks"] * 2


@pytest.mark.usefixtures("fresh_callbacks", "fresh_types")
def test_a_registered_type_alerts_by_its_own_thresholds(start: Start) -> None:
    """Those it was registered with."""
    crm = OperationType.register("crm_lookup", warning_ms=10, critical_ms=20)
    start()
    heard: list[Alert] = []
    add_alert_callback(heard.append)
    for latency_ms in (9, 10, 20):
        record(metric(latency_ms, None, operation_type=crm))
    assert shutdown(60)
    assert [(a.severity.value, a.threshold_ms) for a in heard] == [("warning", 10), ("critical", 20)]
