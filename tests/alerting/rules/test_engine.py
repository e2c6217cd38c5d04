"""Each kind of rule, from the file to the line in the log, through the pipeline that runs in production."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from callbot_latency import (
    Alert,
    LatencyMetric,
    add_alert_callback,
    call,
    measure_latency_context,
    record,
    shutdown,
    turn,
)
from callbot_latency.alerting import AlertPolicy
from callbot_latency.alerting.policy import HEALTHY_IN_A_ROW
from callbot_latency.alerting.rules.engine import RuleEngine
from callbot_latency.model.operation import OperationStatus
from callbot_latency.runtime import lifecycle as runtime_module
from tests.conftest import Start
from tests.support.subprocesses import ROOT

EXAMPLE = ROOT / "examples" / "alert_rules.toml"
MONDAY_NOON = datetime(2026, 1, 5, 11, 0, tzinfo=UTC)


class Scene:
    """A bot that runs with a file of rules; its time passes when told to."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._start_s = float(int(monotonic()))  # whole seconds: what passes is then exactly what is taken off again
        self.passed_s = 0.0

    def clock(self) -> float:
        return self._start_s + self.passed_s

    def now(self) -> datetime:
        return MONDAY_NOON + timedelta(seconds=self.passed_s)

    @property
    def runtime(self) -> Any:
        return runtime_module._runtime

    def ends(self, operation_type: str, latency_ms: float, status: str = "success", **more: Any) -> None:
        """An operation ends."""
        name = more.pop("operation_name", "query_contact")
        record(LatencyMetric(operation_type, name, latency_ms, status, **more))  # type: ignore[arg-type]

    def passes(self, seconds: float = 0) -> None:
        """What ended is judged; then time passes, and is looked at."""
        assert self.runtime.pipeline.flush(60)
        self.passed_s += seconds
        assert self.runtime.pipeline.flush(60)

    @property
    def lines(self) -> list[str]:
        """What the log has of rules."""
        self.passes()
        told = [r.getMessage() for r in self._caplog.records if r.name == "callbot_latency.alerting"]
        return [line for line in told if "rule " in line]


Rules = Callable[..., Scene]


@pytest.fixture
def rules(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Rules:
    """``rules(toml)`` starts measuring with these rules."""
    caplog.set_level(logging.INFO, "callbot_latency.alerting")

    def begin(text: str, **settings: Any) -> Scene:
        scene = Scene(caplog)
        monkeypatch.setattr(runtime_module, "RuleEngine", partial(RuleEngine, clock=scene.clock, now=scene.now))
        monkeypatch.setattr(runtime_module, "AlertPolicy", partial(AlertPolicy, clock=scene.clock))
        file = tmp_path / "rules.toml"
        file.write_text(text)
        start(alert_rules_file=file, file_logging_enabled=False, **settings)
        return scene

    return begin


# -- each kind, as in the example ----------------------------------------------------------------------------------


def test_one_measurement_over_its_limit(rules: Rules) -> None:
    """Told with the rule's own text, each field filled in; what is under the limit or matches not is not."""
    scene = rules(EXAMPLE.read_text())
    scene.ends("salesforce_api", 4000, call_sid="CA1", metadata={"queue": "sales"})
    scene.ends("salesforce_api", 3999, call_sid="CA2")
    scene.ends("salesforce_api", 9000, operation_name="update_contact")
    scene.ends("rag_inference", 9000)
    scene.ends("salesforce_api", 9000, "cancelled")
    assert scene.lines == [
        "critical: rule Salesforce query hangs: query_contact took 4000 ms in call CA1 of queue sales (limit 4000 ms)"
    ]


def test_a_rule_holds_alike_back_for_its_own_cooldown_and_says_when_it_is_over(rules: Rules) -> None:
    """The same policy as for thresholds: nothing is lost, and the end is told."""
    scene = rules(EXAMPLE.read_text())
    for _ in range(4):
        scene.ends("salesforce_api", 5000, call_sid="CA1")
        scene.passes(60)
    assert len(scene.lines) == 1
    scene.passes(359)
    assert len(scene.lines) == 1
    scene.passes(1)
    assert scene.lines[1].endswith("and 2 more like it")
    for _ in range(HEALTHY_IN_A_ROW):
        scene.ends("salesforce_api", 10)
    assert scene.lines[2:] == ["recovered: rule Salesforce query hangs is over after 10 min, fired 4 times"]


def test_a_percentile_over_a_window(rules: Rules) -> None:
    """From the least count on, for the callers that it is about; the slowest is the one to look at."""
    scene = rules(EXAMPLE.read_text())
    for number in range(19):
        scene.ends("rag_inference", 100 if number % 2 else 3500, call_sid=f"CA{number}", metadata={"tier": "gold"})
    scene.ends("rag_inference", 9000, call_sid="CA-other", metadata={"tier": "basic"})
    scene.passes(1)
    assert scene.lines == []
    scene.ends("rag_inference", 7000, call_sid="CA20", metadata={"tier": "platinum"})
    scene.passes(1)
    (line,) = scene.lines
    assert line.startswith("warning: rule RAG slow for premium callers: p95 is 35")
    assert line.endswith(" ms over 5 min (20 measurements), limit 3000 ms, see call CA20")


def test_a_percentile_is_over_when_the_window_has_forgotten(rules: Rules) -> None:
    """Its new value is told; and what nobody measures any more is over because there is nothing to judge by."""
    scene = rules(EXAMPLE.read_text().partition('[[rule]]\nname = "Speech')[0])
    for _ in range(20):
        scene.ends("rag_inference", 4000, metadata={"tier": "gold"})
    scene.passes(1)
    scene.passes(200)
    for _ in range(20):
        scene.ends("rag_inference", 100, metadata={"tier": "gold"})
    scene.passes(100)
    assert scene.lines[1].startswith("recovered: rule RAG slow for premium callers is over after 5 min: p95 is ")
    scene.passes(300)
    for _ in range(20):
        scene.ends("rag_inference", 4000, metadata={"tier": "gold"})
    scene.passes(1)
    scene.passes(294)
    assert len(scene.lines) == 3
    scene.passes(6)
    assert scene.lines[3] == (
        "recovered: rule RAG slow for premium callers is over after 5 min: nothing left to judge by"
    )


def test_a_mean_over_a_window(rules: Rules) -> None:
    """Of every measurement that matches."""
    scene = rules(EXAMPLE.read_text())
    for number in range(50):
        scene.ends("speech_to_text", 1000 + 10 * number, provider="google" if number % 2 else "openai")
        scene.ends("speech_to_text", 9000, provider="sphinx")
    scene.passes(1)
    (line,) = scene.lines
    assert line == (
        "warning: rule Speech-to-text slow on average: mean is 1245 ms over 10 min (50 measurements), limit 1200 ms"
    )


def test_an_error_rate_over_a_window(rules: Rules) -> None:
    """Errors and timeouts, of all that were not cancelled."""
    scene = rules(EXAMPLE.read_text())
    for _ in range(38):
        scene.ends("text_to_speech", 100)
    for _ in range(100):
        scene.ends("text_to_speech", 100, "cancelled")
    scene.ends("text_to_speech", 100, "error", call_sid="CA8")
    scene.passes(1)
    assert scene.lines == []
    scene.ends("text_to_speech", 100, "timeout", call_sid="CA9")
    scene.passes(1)
    assert scene.lines == [
        "critical: rule Text-to-speech fails: 5 % failed over 5 min (2 of 40), limit 5 %, see call CA9"
    ]


def test_timeouts_in_a_row(rules: Rules) -> None:
    """Another end between them begins the count anew; one that answers ends it."""
    scene = rules(EXAMPLE.read_text())
    for status in ["timeout"] * 4 + ["success"] + ["timeout"] * 2 + ["cancelled"] + ["timeout"] * 3:
        scene.ends("salesforce_api", 100, status, call_sid="CA5")
    assert scene.lines == ["critical: rule Salesforce gives no answer: 5 timeouts in a row, the last in call CA5"]
    scene.ends("salesforce_api", 100, "timeout", call_sid="CA6")
    scene.passes(300)
    assert scene.lines[1] == (
        "still critical: rule Salesforce gives no answer: 6 timeouts in a row, the last in call CA6"
    )
    scene.ends("salesforce_api", 100, "error")
    assert scene.lines[2] == "recovered: rule Salesforce gives no answer is over after 5 min"


def test_no_traffic_also_when_there_never_was_any(rules: Rules) -> None:
    """Told once a cooldown while it lasts, with what is waited for in place of a measurement."""
    scene = rules(EXAMPLE.read_text())
    scene.passes(899)
    assert scene.lines == []
    scene.passes(1)
    scene.passes(600)
    text = "critical: rule No caller is heard: nobody was heard for {}: is the number reachable?"
    assert scene.lines == [text.format("15 min")]
    scene.passes(1200)
    assert scene.lines[1:] == ["still " + text.format("45 min")]
    scene.ends("speech_to_text", 100, "error")
    scene.passes(1)
    assert scene.lines[2:] == ["recovered: rule No caller is heard is over after 30 min"]


def test_no_traffic_counts_from_the_beginning_of_its_hours(rules: Rules) -> None:
    """The silence of a night is none; outside of its hours a rule says nothing, and its end ends it."""
    scene = rules(EXAMPLE.read_text())
    scene.passes(6 * 3600 - 60)
    assert len(scene.lines) == 1
    scene.passes(60)
    assert scene.lines[1] == "recovered: rule No caller is heard is over after 60 s: its hours have ended"
    for _ in range(15):
        scene.passes(3600)
    scene.passes(899)
    assert len(scene.lines) == 2
    scene.passes(1)
    assert len(scene.lines) == 3


def test_burn_rate_of_an_objective_for_calls(rules: Rules) -> None:
    """Calls, not operations, over a long and a short window: once the short one is quiet, it is over."""
    scene = rules(EXAMPLE.read_text())
    metadata = {"campaign": "spring-2026"}
    for number in range(100):
        for slow in (3000, 10, 10):
            scene.ends("rag_inference", slow if number < 29 else 10, call_sid=f"CA{number}", metadata=metadata)
    scene.passes(1)
    assert scene.lines == []
    scene.ends("salesforce_api", 3500, operation_name="x", call_sid="CA99", metadata=metadata)
    scene.passes(1)
    assert scene.lines == [
        "warning: rule Spring campaign breaks its promise: 30 % took 3000 ms or more over 1 h (30 of 100), "
        "6.0 times what an objective of 95 % allows, see call CA99"
    ]
    scene.passes(299)
    assert scene.lines[1].startswith("recovered: rule Spring campaign breaks its promise is over after 5 min: 30 %")


# -- metadata ------------------------------------------------------------------------------------------------------

QUEUE = """
[[rule]]
name = "sales"
severity = "warning"
text = "slow in {metadata.queue} for {metadata.tier}"
match = { metadata = { queue = "sales*", vip = true } }
condition = { kind = "latency", threshold_ms = 0.001 }
cooldown_s = 0
"""


def test_rules_know_the_metadata_of_the_call(rules: Rules) -> None:
    """What `call(metadata=)` says is matched and told for each of its operations; an operation's own comes first."""
    scene = rules(QUEUE)
    with call("CA1", metadata={"queue": "sales-fr", "vip": True, "caller": "unused"}):
        with measure_latency_context("rag_inference", "ask"):
            pass
        with measure_latency_context("rag_inference", "ask", metadata={"queue": "support"}):
            pass
        with measure_latency_context("rag_inference", "ask", metadata={"tier": "gold"}):
            pass
    with call("CA2", metadata={"queue": "sales-fr"}), measure_latency_context("rag_inference", "ask"):
        pass
    with call("CA3"), measure_latency_context("rag_inference", "ask"):
        pass
    assert scene.lines == [
        "warning: rule sales: slow in sales-fr for -, see call CA1",
        "warning: rule sales: slow in sales-fr for gold, see call CA1",
    ]
    assert scene.runtime.rules._calls["CA1"] == {"queue": "sales-fr", "vip": True}


def test_rules_know_the_metadata_of_the_turn(rules: Rules) -> None:
    """An operation's own comes first, then its turn's, then its call's; another turn knows nothing of it."""
    scene = rules(QUEUE)
    ask = partial(measure_latency_context, "rag_inference", "ask")
    with call("CA1", metadata={"queue": "sales-fr", "vip": True, "tier": "basic"}):
        with turn(metadata={"tier": "gold", "intent": "unused"}), ask():
            pass
        with turn(metadata={"tier": "gold"}), ask(metadata={"tier": "platinum"}):
            pass
        with turn(), ask():
            pass
        with turn(metadata={"queue": "support"}), ask():
            pass
        with ask():
            pass
    with call("CA2"), turn(metadata={"queue": "sales", "vip": True}):
        with ask():
            pass
        with ask(call_sid="CA3"):
            pass
    told = ["gold, see call CA1", "platinum, see call CA1", "basic, see call CA1", "basic, see call CA1"]
    fr = [f"warning: rule sales: slow in sales-fr for {each}" for each in told]
    assert scene.lines == [*fr, "warning: rule sales: slow in sales for -, see call CA2"]
    assert scene.runtime.rules._turns["CA1", 1] == {"tier": "gold"}


def test_a_call_that_is_opened_again_has_turns_of_its_own(rules: Rules) -> None:
    """They count on, so that what the first one had says nothing about them; one without metadata leaves nothing."""
    scene = rules(QUEUE)
    for metadata in ({"tier": "gold"}, None, {"intent": "unused"}):
        facts = {"queue": "sales", "vip": True}
        with call("CA1", metadata=facts), turn(metadata=metadata), measure_latency_context("rag_inference", "ask"):
            pass
        scene.passes()
    assert [line.partition(" for ")[2] for line in scene.lines] == [
        "gold, see call CA1",
        "-, see call CA1",
        "-, see call CA1",
    ]
    assert list(scene.runtime.rules._turns) == [("CA1", 1)]
    with call("CA1"), turn():
        assert not scene.runtime.session.opened_calls


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> int:
    """Of so many calls and turns metadata is kept, instead of ten thousand."""
    monkeypatch.setattr("callbot_latency.alerting.rules.engine.MAX_CALLS", 500)
    return 500


def test_metadata_of_turns_is_bounded_and_kept_only_when_asked_for(rules: Rules, few_calls: int) -> None:
    """The newest turns, and none that says nothing of what rules ask for."""
    scene = rules(QUEUE)
    with call("CA1"):
        for number in range(1, few_calls + 6):
            with turn(metadata={"tier": "gold"} if number != few_calls else {"intent": "x"}):
                pass
            if number % 100 == 0:
                scene.ends("rag_inference", 1)
                scene.passes()
    scene.ends("rag_inference", 1)
    scene.passes()
    known = scene.runtime.rules._turns
    assert len(known) == few_calls
    assert ("CA1", 4) not in known
    assert ("CA1", 5) in known
    assert ("CA1", few_calls) not in known
    assert shutdown(60)
    scene = rules("[[rule]]\nname = 'x'\ncondition = { kind = 'latency', threshold_ms = 1 }")
    with call("CA1"), turn(metadata={"tier": "gold"}):
        pass
    assert scene.runtime.session.opened_calls is None


def test_metadata_of_calls_is_bounded_and_kept_only_when_asked_for(rules: Rules, few_calls: int) -> None:
    """The newest calls; and without a rule that asks, a call leaves nothing."""
    scene = rules(QUEUE)
    for number in range(few_calls + 5):
        scene.runtime.session.opened_calls.append((f"CA{number}", None, {"queue": "x"}))
        if number % 100 == 0:
            scene.ends("rag_inference", 1)
            scene.passes()
    scene.ends("rag_inference", 1)
    scene.passes()
    assert len(scene.runtime.rules._calls) == few_calls
    assert "CA0" not in scene.runtime.rules._calls
    assert shutdown(60)
    scene = rules("[[rule]]\nname = 'x'\ncondition = { kind = 'latency', threshold_ms = 1 }")
    with call("CA1", metadata={"queue": "sales"}):
        pass
    assert scene.runtime.session.opened_calls is None


def test_a_phone_number_in_metadata_is_not_told(rules: Rules) -> None:
    """What a text takes from metadata is scrubbed."""
    scene = rules(QUEUE)
    scene.ends("rag_inference", 5, metadata={"queue": "sales", "vip": True, "tier": "+33 6 12 34 56 78"})
    assert scene.lines == ["warning: rule sales: slow in sales for [phone]"]


# -- where it goes -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_callbacks")
def test_callbacks_hear_of_rules_that_name_them(rules: Rules) -> None:
    """Every firing, as of breaches; a rule without channels goes to the log and the like alone."""
    heard: list[Alert] = []
    add_alert_callback(heard.append)
    one = "[[rule]]\nname = '{}'\n{}\ncondition = {{ kind = 'latency', threshold_ms = 1 }}\n"
    scene = rules(one.format("a", "channels = ['callbacks']") + one.format("b", ""))
    for _ in range(3):
        scene.ends("rag_inference", 5)
    assert [line.split(":")[1] for line in scene.lines] == [" rule b"]
    assert [(alert.rule, alert.metric.latency_ms, alert.threshold_ms) for alert in heard] == [("a", 5, 1)] * 3


@pytest.mark.usefixtures("fresh_callbacks")
def test_what_is_waited_for_stands_in_place_of_a_measurement(rules: Rules) -> None:
    """`alert.metric` is always there: here an operation that has not come, running for as long as the silence."""
    heard: list[Alert] = []
    add_alert_callback(heard.append)
    scene = rules(
        "[[rule]]\nname = 'quiet'\nchannels = 'callbacks'\n"
        "match = { operation_type = 'text_to_speech', provider = 'goo*' }\n"
        "condition = { kind = 'no_traffic', window_s = 60 }\n"
    )
    scene.passes(90)
    (alert,) = heard
    assert (alert.metric.status, alert.metric.latency_ms) == (OperationStatus.RUNNING, 90_000)
    assert (alert.metric.operation_name, alert.metric.provider, alert.metric.call_sid) == ("*", "goo*", None)
    assert (alert.threshold_ms, alert.text) == (60_000, "no text_to_speech for 2 min, expected within 60 s")


def test_a_channel_that_is_not_there_is_said(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    """A rule for a channel that nobody set up would otherwise be silent."""
    scene = rules("[[rule]]\nname='a'\nchannels=['pager']\ncondition={kind='latency', threshold_ms=1}")
    scene.ends("rag_inference", 5)
    assert scene.lines == []
    (line,) = [r.getMessage() for r in caplog.records if r.name == "callbot_latency.alerting.policy"]
    assert line == "rule a names channels that are not set up: pager"


def test_rules_share_the_burst_limit(rules: Rules) -> None:
    """A flood of rules is one summary, as a flood of kinds is."""
    one = "[[rule]]\nname='r{}'\nchannels=['log']\ncondition={{kind='latency', threshold_ms=1}}\n"
    scene = rules("".join(one.format(number) for number in range(30)), alert_burst=20)
    scene.ends("rag_inference", 5)
    assert len(scene.lines) == 20
    scene.passes(60)
    assert len(scene.lines) == 21
    assert scene.lines[-1].startswith("warning: 10 more slow operations, not told one by one; the last: rule r29: ")


def test_what_is_held_back_at_the_end_is_in_the_log(rules: Rules) -> None:
    """No count is lost at shutdown, also of a rule that is for another channel."""
    scene = rules("[[rule]]\nname='a'\nchannels=['callbacks']\ncondition={kind='latency', threshold_ms=1}")
    for _ in range(4):
        scene.ends("rag_inference", 5)
    scene.passes()
    assert shutdown(60)
    (line,) = (r.getMessage() for r in scene._caplog.records if r.getMessage().startswith("warning: rule a"))
    assert line.endswith("and 2 more like it")


def test_a_forked_child_begins_anew(rules: Rules) -> None:
    """What the parent counted is the parent's."""
    scene = rules(EXAMPLE.read_text())
    for _ in range(4):
        scene.ends("salesforce_api", 1, "timeout")
    scene.passes()
    scene.runtime.rules.restart_after_fork()
    scene.ends("salesforce_api", 1, "timeout")
    assert scene.lines == []


@pytest.mark.usefixtures("fresh_callbacks")
def test_an_alert_of_a_rule_says_all_that_one_of_a_threshold_does(rules: Rules) -> None:
    """Since when, how often, the worst so far, and where the trace is."""
    heard: list[Alert] = []
    add_alert_callback(heard.append)
    scene = rules(
        "[[rule]]\nname='a'\nchannels=['log', 'callbacks']\ncondition={kind='latency', threshold_ms=1000}",
        trace_url="http://jaeger/trace/{trace_id}",
    )
    for latency_ms in (1000, 2500, 1500):
        scene.ends("rag_inference", latency_ms, trace_id="ab" * 16)
    assert scene.lines[0].endswith(f"limit 1000 ms, http://jaeger/trace/{'ab' * 16}")
    assert [(alert.slow, alert.worst_ms) for alert in heard] == [(1, 1000), (2, 2500), (3, 2500)]
    assert len({alert.since for alert in heard} - {None}) == 1
