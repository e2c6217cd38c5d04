"""Which breaches become messages: the first, then one a cooldown, one summary of a flood, and the end."""

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import Alert, LatencyMetric, Severity, Thresholds, add_alert_callback, record, shutdown
from callbot_latency.alerting import AlertEvent, AlertPolicy
from callbot_latency.alerting.message import one_line_message
from callbot_latency.alerting.policy import HEALTHY_IN_A_ROW
from callbot_latency.alerting.throttling import BURST_WINDOW_S, MAX_KEYS
from tests.conftest import Start

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class Listener:
    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def start(self) -> None: ...
    def report(self, batch: Any) -> None: ...
    def close(self) -> None: ...

    def notify(self, alert: Alert) -> None:
        self.alerts.append(alert)

    def told(self, event: AlertEvent) -> list[Alert]:
        return [alert for alert in self.alerts if alert.event is event]


class Scene:
    """A policy on a clock of its own."""

    def __init__(self, cooldown_s: float = 300, burst: int = 20, **more: Any) -> None:
        self.now_s = 1000.0
        self.log, self.callbacks = Listener(), Listener()
        self.policy = AlertPolicy(
            Thresholds(),
            callbacks=self.callbacks,
            log=self.log,
            cooldown_s=cooldown_s,
            burst=burst,
            clock=lambda: self.now_s,
            **more,
        )

    def ends(self, latency_ms: float, name: str = "query", **more: Any) -> None:
        severity = Thresholds().severity("salesforce_api", latency_ms)
        at = START + timedelta(seconds=self.now_s - 1000)
        fields = {"timestamp": at, "severity": severity, "provider": "salesforce", **more}
        self.policy.report([LatencyMetric("salesforce_api", name, latency_ms, "success", **fields)])  # type: ignore[arg-type]

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.policy.tick()

    @property
    def stood_for(self) -> int:
        """How many breaches the messages stand for."""
        breaches = sum((not alert.lasts) + alert.held_back for alert in self.log.told(AlertEvent.BREACH))
        others = self.log.told(AlertEvent.RECOVERY) + self.log.told(AlertEvent.SUMMARY)
        return breaches + sum(alert.held_back for alert in others)


def test_alike_breaches_are_held_back_and_told_once_the_cooldown_is_over() -> None:
    """One message, silence, then one that says how many there were; callbacks got them all."""
    scene = Scene()
    for _ in range(5):
        scene.ends(1500)
    assert [alert.held_back for alert in scene.log.alerts] == [0]
    scene.passes(299)
    assert len(scene.log.alerts) == 1
    scene.passes(1)
    assert [alert.held_back for alert in scene.log.alerts] == [0, 3]
    assert len(scene.callbacks.alerts) == 5
    assert "and 3 more like it" in one_line_message(scene.log.alerts[-1])


def test_what_was_told_after_a_cooldown_begins_the_next_one() -> None:
    """A state that lasts is one message a cooldown."""
    scene = Scene(cooldown_s=60)
    for _ in range(600):
        scene.ends(1500)
        scene.passes(1)
    assert len(scene.log.alerts) == 11
    scene.policy.close()
    assert scene.stood_for == 600


def test_warning_and_critical_do_not_hold_each_other_back() -> None:
    """Nor do operations of other names or providers."""
    scene = Scene()
    scene.ends(1500)
    scene.ends(3000)
    scene.ends(1500, name="update")
    scene.ends(1500, provider="sandbox")
    assert [alert.severity.value for alert in scene.log.alerts] == ["warning", "critical", "warning", "warning"]


def test_without_a_cooldown_every_breach_is_told() -> None:
    """LATENCY_ALERT_COOLDOWN_S=0."""
    scene = Scene(cooldown_s=0)
    for _ in range(5):
        scene.ends(1500)
    assert [alert.held_back for alert in scene.log.alerts] == [0] * 5


@pytest.mark.promise("alert-flood")
def test_it_is_said_when_it_is_over() -> None:
    """After enough healthy operations in a row: how long it was, how many were slow, the worst."""
    scene = Scene()
    for latency_ms in (1500, 9300, 1200):
        scene.ends(latency_ms)
        scene.passes(120)
    for _ in range(HEALTHY_IN_A_ROW - 1):
        scene.ends(10)
    assert scene.log.told(AlertEvent.RECOVERY) == []
    scene.ends(10)
    (over,) = scene.log.told(AlertEvent.RECOVERY)
    assert one_line_message(over) == (
        "recovered: salesforce_api query back under 1000 ms after 6 min, 3 slow, worst 9300 ms"
    )
    scene.ends(10)
    assert len(scene.log.told(AlertEvent.RECOVERY)) == 1
    assert scene.stood_for == 3


def test_a_slow_one_begins_the_count_of_healthy_ones_anew() -> None:
    """And what was cancelled or failed says nothing of how fast it is."""
    scene = Scene()
    scene.ends(1500)
    for _ in range(3):
        for _ in range(HEALTHY_IN_A_ROW - 1):
            scene.ends(10)
        scene.ends(1500)
    scene.policy.report(
        [
            LatencyMetric("salesforce_api", "query", 1, status, provider="salesforce")
            for status in ("cancelled", "error")
        ]
        * 9  # type: ignore[arg-type]
    )
    assert scene.log.told(AlertEvent.RECOVERY) == []


def test_what_was_never_told_needs_no_end() -> None:
    """An operation that was always healthy, or slow within a full minute, does not recover."""
    scene = Scene(burst=1)
    scene.ends(1500, name="other")
    scene.ends(1500)
    for _ in range(HEALTHY_IN_A_ROW):
        scene.ends(10)
    assert scene.log.told(AlertEvent.RECOVERY) == []


@pytest.mark.promise("alert-flood")
def test_a_flood_of_kinds_is_one_summary() -> None:
    """At most so many messages a minute; the others are counted exactly."""
    scene = Scene(burst=20)
    for number in range(100):
        scene.ends(3000, name=f"query{number}")
    assert len(scene.log.alerts) == 20
    scene.passes(BURST_WINDOW_S)
    assert len(scene.log.alerts) == 21
    (summary,) = scene.log.told(AlertEvent.SUMMARY)
    assert summary.held_back == 80
    assert one_line_message(summary).startswith("critical: 80 more slow operations, not told one by one")


def test_warnings_take_no_place_of_a_critical_alert() -> None:
    """Slack, which posts criticals alone, hears of each at once; and a summary has one severity, with its count."""
    scene = Scene(burst=20)
    for number in range(30):
        scene.ends(1500, name=f"slow{number}")
    for number in range(25):
        scene.ends(9000, name=f"hung{number}")
    scene.ends(1500, name="one more")
    assert [alert.severity.value for alert in scene.log.alerts] == ["warning"] * 20 + ["critical"] * 20
    scene.passes(BURST_WINDOW_S)
    summed = [(alert.severity.value, alert.held_back) for alert in scene.log.told(AlertEvent.SUMMARY)]
    assert summed == [("warning", 11), ("critical", 5)]


def test_recoveries_keep_to_the_burst_limit() -> None:
    """What heals at once is one summary beyond it; what was held back meanwhile is counted once."""
    scene = Scene(cooldown_s=3600)
    for number in range(200):
        if number % 20 == 0:
            scene.passes(BURST_WINDOW_S)
        scene.ends(9000, name=f"query{number}")
        scene.ends(9000, name=f"query{number}")
    scene.passes(BURST_WINDOW_S)
    for number in range(200):
        for _ in range(HEALTHY_IN_A_ROW):
            scene.ends(10, name=f"query{number}")
    assert len(scene.log.told(AlertEvent.RECOVERY)) == 20
    scene.passes(BURST_WINDOW_S)
    summary = scene.log.told(AlertEvent.RECOVERY)[20:][0]
    assert (summary.recovered, summary.slow, summary.held_back) == (180, 360, 180)
    assert one_line_message(summary) == ("recovered: 180 kinds, not told one by one; the last: salesforce_api query199")
    assert scene.stood_for == 400


def test_recoveries_take_no_place_of_a_breach() -> None:
    """Good news can wait a minute; a single one that did is told as it is."""
    scene = Scene(burst=1)
    for name in ("a", "b"):
        scene.ends(9000, name=name)
        scene.passes(BURST_WINDOW_S)
    for name in ("a", "b"):
        for _ in range(HEALTHY_IN_A_ROW):
            scene.ends(10, name=name)
    scene.ends(9000, name="c")
    assert [alert.event.value for alert in scene.log.alerts] == ["breach", "breach", "recovery", "breach"]
    scene.passes(BURST_WINDOW_S)
    assert one_line_message(scene.log.alerts[-1]).startswith("recovered: salesforce_api b back under 1000 ms")


@pytest.mark.promise("alert-flood")
def test_ten_thousand_breaches_in_a_minute_are_one_message_a_cooldown() -> None:
    """No count is lost: what the messages stand for adds up."""
    scene = Scene()
    for _ in range(10_000):
        scene.ends(1500)
        scene.now_s += 0.006
    assert len(scene.log.alerts) == 1
    scene.passes(300)
    assert len(scene.log.alerts) == 2
    assert scene.stood_for == 10_000
    assert len(scene.callbacks.alerts) == 10_000


@pytest.mark.promise("alert-flood")
def test_state_is_bounded() -> None:
    """Kinds without end share one row."""
    scene = Scene()
    for number in range(MAX_KEYS + 500):
        scene.ends(1500, name=f"query{number}")
    assert len(scene.policy._states.kinds) == MAX_KEYS + 1


def test_what_is_well_makes_room_for_new_kinds() -> None:
    """Once told over and out of cooldown; a new kind then recovers by itself."""
    scene = Scene(burst=MAX_KEYS)
    for number in range(MAX_KEYS):
        scene.ends(9000, name=f"query{number}")
        for _ in range(HEALTHY_IN_A_ROW if number else 0):
            scene.ends(10, name=f"query{number}")
    scene.passes(299)
    assert len(scene.policy._states.kinds) == MAX_KEYS
    scene.passes(1)
    assert [row.slow for row in scene.policy._states] == [1]
    scene.log.alerts.clear()
    for name in ("new_a", "new_b"):
        scene.ends(9000, name=name)
    for _ in range(HEALTHY_IN_A_ROW):
        scene.ends(10, name="new_b")
    told = [(alert.metric.operation_name, alert.event.value) for alert in scene.log.alerts]
    assert told == [("new_a", "breach"), ("new_b", "breach"), ("new_b", "recovery")]


def hung(**more: Any) -> LatencyMetric:
    fields = {"provider": "salesforce", "timestamp": START, "severity": Severity.CRITICAL, **more}
    return LatencyMetric("salesforce_api", "query", 3000, "running", **fields)  # type: ignore[arg-type]


def test_what_was_told_while_it_ran_is_known_at_its_end() -> None:
    """However long that took; and one that never ends keeps its room only while nobody needs it."""
    scene = Scene()
    scene.policy.in_flight(hung())
    scene.passes(301)
    scene.ends(400_000, told_in_flight=True)
    for _ in range(HEALTHY_IN_A_ROW):
        scene.ends(10)
    assert [alert.event.value for alert in scene.log.alerts] == ["breach", "recovery"]
    scene.policy.in_flight(hung())
    for number in range(MAX_KEYS):
        scene.ends(1500, name=f"query{number}")
    scene.passes(301)
    assert all(row.slow for row in scene.policy._states)


def test_an_alert_in_flight_says_what_came_before() -> None:
    """Since when, how many with this one, and the worst so far."""
    scene = Scene()
    first = scene.policy.in_flight(hung())
    assert (first.since, first.slow, first.worst_ms) == (None, 1, 3000)
    scene.ends(9300)
    scene.ends(1500)
    alert = scene.policy.in_flight(hung())
    assert (alert.since, alert.slow, alert.worst_ms) == (START, 3, 9300)
    assert scene.callbacks.alerts[-1] == alert


class Hanging:
    """A channel, or a handler of the log, that hangs the first time."""

    channel_names = ("slow",)

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def probe(self, _: Alert) -> dict[str, Any]:
        return {}

    def notify(self, _: Alert) -> None:
        self.hang()

    def hang(self, *_: object) -> bool:
        if not self.entered.is_set():
            self.entered.set()
            self.released.wait(100)
        return True


@pytest.mark.promise("hanging-consumer")
@pytest.mark.parametrize("place", ["channel", "log"])
def test_nothing_that_hangs_is_waited_for_under_the_lock(place: str) -> None:
    """The other threads go on, their alerts are heard, and `close()` ends with what was held back."""
    hanging, log = Hanging(), Listener()
    logger = logging.getLogger("callbot_latency.alerting.policy")
    channels = [hanging] if place == "channel" else []
    policy = AlertPolicy(Thresholds(), channels=channels, log=log)  # type: ignore[arg-type]
    if place == "log":
        logger.addFilter(hanging.hang)
    thread = threading.Thread(target=policy.rule, args=(rule_alert("r", channels=("slow", "nobody")),))
    try:
        thread.start()
        assert hanging.entered.wait(60)
        policy.in_flight(hung())
        policy.report([hung(), hung()])
        policy.tick()
        if place == "log":
            assert [alert.rule for alert in log.alerts] == ["r", None]
        policy.close()
        assert (log.alerts[-1].rule, log.alerts[-1].held_back) == (None, 1)
        assert thread.is_alive()  # it hangs still: nobody has waited for it
    finally:
        hanging.released.set()
        thread.join(60)
        logger.removeFilter(hanging.hang)


def test_the_end_waits_for_no_lock() -> None:
    """Whatever holds it."""
    scene = Scene()
    with scene.policy._lock:
        scene.policy.close()
    assert scene.log.alerts == []


def test_the_trace_is_linked_where_its_address_is_known() -> None:
    """LATENCY_TRACE_URL, and a measurement that has a trace."""
    scene = Scene(trace_url="http://jaeger:16686/trace/{trace_id}")
    scene.ends(1500, trace_id="ab" * 16)
    scene.ends(3000)
    linked, unlinked = scene.log.alerts
    assert one_line_message(linked).endswith(f", http://jaeger:16686/trace/{'ab' * 16}")
    assert unlinked.trace_url is None


def test_a_forked_child_tells_what_is_its_own() -> None:
    """What the parent held back is the parent's."""
    scene = Scene()
    scene.ends(1500)
    scene.ends(1500)
    scene.policy.restart_after_fork()
    scene.ends(1500)
    assert [alert.held_back for alert in scene.log.alerts] == [0, 0]


def rule_alert(name: str, event: AlertEvent = AlertEvent.BREACH, **more: Any) -> Alert:
    metric = LatencyMetric("rag_inference", "search", 1, "success")  # type: ignore[arg-type]
    return Alert(metric, Severity.WARNING, 1, event, rule=name, text="it is so", **more)


def test_a_rule_that_flaps_within_its_cooldown_is_told_once_with_its_end() -> None:
    """What is told after the cooldown is how it ended, and how often it fired."""
    scene = Scene()
    for _ in range(3):
        scene.policy.rule(rule_alert("r"), cooldown_s=60)
        scene.policy.rule_over(rule_alert("r", AlertEvent.RECOVERY))
        scene.passes(1)
    assert [alert.event.value for alert in scene.log.alerts] == ["breach", "recovery"]
    scene.passes(60)
    assert [(alert.event.value, alert.held_back) for alert in scene.log.alerts[2:]] == [("recovery", 2)]
    assert scene.stood_for == 3


def test_a_rule_that_lasts_is_a_reminder_a_cooldown() -> None:
    """Not counted as one more; and one that began within a cooldown is told as it stands at its end."""
    scene = Scene()
    scene.policy.rule(rule_alert("r"), cooldown_s=60)
    scene.policy.rule_over(rule_alert("r", AlertEvent.RECOVERY))
    scene.policy.rule(rule_alert("r"))
    scene.policy.rule(replace(rule_alert("r"), text="it is worse"), lasts=True)
    scene.passes(60)
    scene.policy.rule(rule_alert("r"), lasts=True)
    told = scene.log.told(AlertEvent.BREACH)
    assert [(alert.text, alert.lasts) for alert in told] == [("it is so", False), ("it is worse", False)]
    scene.passes(60)
    scene.policy.rule(rule_alert("r"), lasts=True)
    assert one_line_message(scene.log.alerts[-1]) == "still warning: rule r: it is so"


def test_a_summary_goes_to_the_channels_of_all_that_it_sums_up() -> None:
    """And to every channel where one of them did."""
    for others, expected in {("a", "b"): ("a", "b"), ("a", None): None}.items():
        scene = Scene(burst=1)
        scene.ends(1500)
        for number, channel in enumerate(others):
            scene.policy.rule(rule_alert(f"r{number}", channels=channel and (channel,)))
        scene.passes(BURST_WINDOW_S)
        assert scene.log.alerts[-1].channels == expected


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ends"), st.sampled_from([10, 1500, 3000]), st.sampled_from("abc")),
        st.tuples(st.just("passes"), st.sampled_from([0.1, 20, 61, 301]), st.just("")),
        st.tuples(st.sampled_from(["fires", "lasts", "over"]), st.just(0.0), st.sampled_from("ab")),
    ),
    max_size=80,
)


@pytest.mark.promise("alert-flood")
@given(_STEPS, st.sampled_from([0, 60, 300]), st.integers(1, 4))
def test_messages_stand_for_exactly_the_breaches_there_were(
    steps: list[tuple[str, float, str]], cooldown_s: float, burst: int
) -> None:
    """Whatever happens in whatever order: none is lost, none is told twice, and callbacks get each once."""
    scene, breaches, fired = Scene(cooldown_s, burst), 0, 0
    for what, amount, name in steps:
        if what == "passes":
            scene.passes(amount)
        elif what == "over":
            scene.policy.rule_over(rule_alert(name, AlertEvent.RECOVERY))
        elif what != "ends":
            scene.policy.rule(rule_alert(name), cooldown_s=30, lasts=what == "lasts")
            fired += what == "fires"
        else:
            scene.ends(amount, name=name)
            breaches += amount >= 1000
    scene.policy.close()
    assert scene.stood_for == breaches + fired
    assert len(scene.callbacks.alerts) == breaches


@pytest.mark.usefixtures("fresh_callbacks")
def test_through_the_pipeline(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Slow operations through `init()`: callbacks get all, the log the first, and at the end what was held back."""
    caplog.set_level(logging.INFO, "callbot_latency.alerting")
    heard: list[Alert] = []
    add_alert_callback(heard.append)
    start(trace_url="http://jaeger/trace/{trace_id}")
    for _ in range(4):
        record(LatencyMetric("rag_inference", "search", 3000, "success", trace_id="cd" * 16, span_id="ef" * 8))  # type: ignore[arg-type]
    assert shutdown(60)
    assert [alert.severity for alert in heard] == [Severity.WARNING] * 4
    lines = [line.getMessage() for line in caplog.records if line.name == "callbot_latency.alerting"]
    assert len(lines) == 2
    assert lines[0].endswith(f"warning from 3000 ms, http://jaeger/trace/{'cd' * 16}")
    assert "and 2 more like it" in lines[1]


def test_a_flood_of_warnings_takes_no_place_of_what_is_critical() -> None:
    """Each severity has its own minute: a channel for criticals alone hears of each of them."""
    scene = Scene(burst=5)
    for number in range(30):
        scene.ends(1500, f"slow{number}")
    for number in range(3):
        scene.ends(9000, f"hung{number}")
    critical = [alert for alert in scene.log.alerts if alert.severity is Severity.CRITICAL]
    assert [alert.metric.operation_name for alert in critical] == ["hung0", "hung1", "hung2"]
    scene.passes(BURST_WINDOW_S)
    (summary,) = scene.log.told(AlertEvent.SUMMARY)
    assert (summary.severity, summary.held_back) == (Severity.WARNING, 25)
    assert scene.stood_for == 33


def test_a_log_that_hangs_keeps_nobody_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    """What the policy logs itself, it logs outside of its lock."""
    scene = Scene()
    entered, may_go = threading.Event(), threading.Event()

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            may_go.wait(100)

    logger, handler = logging.getLogger("callbot_latency.alerting"), Hanging()
    logger.addHandler(handler)
    try:
        hanging = threading.Thread(
            target=scene.policy.rule, args=(rule_alert("absent", channels=("pager",)),), daemon=True
        )
        hanging.start()
        assert entered.wait(60)
        scene.policy.tick()
        scene.policy.close()
        assert hanging.is_alive()  # nobody has waited for it
    finally:
        may_go.set()
        logger.removeHandler(handler)
    hanging.join(60)
    assert not hanging.is_alive()
