"""Whole calls of the example callbot over a real WebSocket, and the programs that make them.

Each kind of call is made once, by the fixture of its name; its tests share a group, so that one worker runs them.
"""

import asyncio
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from callbot_latency import (
    Anchor,
    LatencyConfig,
    LatencyMetric,
    OperationStatus,
    OperationType,
    TurnMetric,
    init,
    latency_tracker,
    shutdown,
)
from callbot_latency.base.internal_errors import raise_internal_errors
from callbot_latency.measuring.active_session import active
from examples.callbot.bot import NOT_UNDERSTOOD, ONE_MOMENT
from examples.callbot.knowledge import KnowledgeBase
from examples.callbot.run import CallResult, run_calls
from examples.callbot.slow import Slow
from tests.support.scripted_http import webhook
from tests.support.subprocesses import clean_environment

pytestmark = pytest.mark.real_time

CALLS = ("three", "interrupted", "hung_up", "hanging")


@dataclass(frozen=True)
class Measured:
    """What calls left behind, gathered before measuring ended."""

    results: list[CallResult]
    metrics: list[LatencyMetric]
    turns: list[TurnMetric]
    still_open: int
    still_running: int
    file: str

    def of(self, result: CallResult) -> list[LatencyMetric]:
        return [metric for metric in self.metrics if metric.call_sid == result.call_sid]


def _measured(folder: Path, thresholds: dict[str, float] | None = None, **options: bool | int | Slow) -> Measured:
    async def run() -> tuple[list[CallResult], int]:
        results = await run_calls(**options)  # type: ignore[arg-type]
        return results, len(asyncio.all_tasks()) - 1

    file = folder / "metrics.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raise_internal_errors, "enabled", True)
        latency_tracker.reset_stats()
        init(LatencyConfig(_env_file=None, metrics_file_path=file, **(thresholds or {})))  # type: ignore[call-arg]
        try:
            results, running = asyncio.run(run())
            still_open = len(active.session.open_measurements) if active.session else -1
            metrics, turns = list(latency_tracker.metrics), latency_tracker.get_turns()
        finally:
            shutdown()
            latency_tracker.reset_stats()
    return Measured(results, metrics, turns, still_open, running, file.read_text())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return _measured(tmp_path_factory.mktemp("three"), calls=3)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return _measured(tmp_path_factory.mktemp("interrupted"), interrupt=True)


@pytest.fixture(scope="module")
def hung_up(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return _measured(tmp_path_factory.mktemp("hung_up"), hang_up=True)


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    thresholds = {"salesforce_warning_ms": 200.0, "salesforce_critical_ms": 300.0}
    return _measured(tmp_path_factory.mktemp("hanging"), thresholds, slow=Slow(salesforce=1.5, rag=0.3))


@pytest.mark.xdist_group("three")
def test_callers_are_heard_and_answered_from_the_knowledge_base(three: Measured) -> None:
    knowledge = KnowledgeBase()
    for result in three.results:
        assert len(result.heard) == 3
        assert len(result.answered) == 4
        for heard, answered in zip(result.heard, result.answered[1:], strict=True):
            found = knowledge.search(heard)
            expected = found.answer.split("{")[0] if found else NOT_UNDERSTOOD
            assert answered.startswith(expected)
        assert result.heard == ("what are your opening hours", "where is my order", "thank you very much goodbye")


@pytest.mark.xdist_group("three")
def test_each_call_gets_the_answers_of_its_own_caller(three: Measured) -> None:
    assert [result.answered[0].split(".")[0] for result in three.results] == ["Hello Ada", "Hello Grace", "Hello Edith"]
    assert [result.answered[2] for result in three.results] == [
        "Your order 4 2 7 is on its way.",
        "Your order 3 1 8 is being packed.",
        "Your order 5 0 9 is at the post office.",
    ]


@pytest.mark.xdist_group("three")
def test_every_operation_has_the_ids_and_the_trace_of_its_call(three: Measured) -> None:
    assert len({result.call_sid for result in three.results}) == 3
    for result in three.results:
        own = three.of(result)
        assert {metric.operation_type for metric in own} == set(OperationType)
        assert {metric.stream_sid for metric in own} == {result.stream_sid}
        assert {metric.trace_id for metric in own} == {result.trace_id}
        assert {metric.status for metric in own} == {OperationStatus.SUCCESS}
        counts = [sum(m.operation_type is kind and m.attempt is None for m in own) for kind in OperationType]
        assert counts == [3, 4, 3, 3]
        assert sum(m.attempts or 0 for m in own) == sum(m.attempt is not None for m in own) >= 3
    assert sum(len(three.of(result)) for result in three.results) == len(three.metrics)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in CALLS])
def test_nothing_is_left_open_and_all_of_it_is_in_the_file(name: str, request: pytest.FixtureRequest) -> None:
    measured: Measured = request.getfixturevalue(name)
    assert measured.still_open == 0
    assert measured.still_running == 0
    assert len(measured.file.splitlines()) == len(measured.metrics) + len(measured.turns)
    until = time.monotonic() + 60
    while any(thread.name.startswith("recognizer") for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.xdist_group("interrupted")
def test_who_breaks_in_is_heard_and_the_running_speech_is_cancelled(interrupted: Measured) -> None:
    [result] = interrupted.results
    assert result.sent["clear"] == 1
    assert result.heard == ("what does the warranty cover", "where is my order", "thank you very much goodbye")
    cancelled = [metric for metric in interrupted.metrics if metric.status is OperationStatus.CANCELLED]
    assert [metric.operation_type for metric in cancelled] == [OperationType.TTS]
    assert result.answered[2].startswith("Your order")


@pytest.mark.xdist_group("hung_up")
def test_who_hangs_up_ends_the_call_and_it_is_still_noted(hung_up: Measured) -> None:
    [result] = hung_up.results
    assert result.heard == ("what does the warranty cover",)
    spoken = [metric.status for metric in hung_up.metrics if metric.operation_type is OperationType.TTS]
    assert spoken == [OperationStatus.SUCCESS, OperationStatus.CANCELLED]
    assert hung_up.metrics[-1].operation_name == "create_task"


@pytest.mark.xdist_group("hanging")
def test_while_salesforce_hangs_the_bot_asks_for_patience_and_the_answer_still_comes(hanging: Measured) -> None:
    [result] = hanging.results
    assert [text.split(".")[0] for text in result.answered] == [
        ONE_MOMENT.rstrip("."),
        "Hello Ada",
        "We are open from nine to six, Monday to Saturday",
        ONE_MOMENT.rstrip("."),
        "Your order 4 2 7 is on its way",
        "Thank you for calling",
    ]
    # After the call nobody waits, and so nobody is asked for patience.
    assert hanging.metrics[-1].operation_name == "create_task"
    assert [m.told_in_flight for m in hanging.metrics if m.provider == "salesforce"] == [True] * 3


@pytest.mark.xdist_group("hanging")
def test_what_is_said_meanwhile_stands_in_the_call_beneath_what_it_waits_for(hanging: Measured) -> None:
    [result] = hanging.results
    assert {metric.trace_id for metric in hanging.metrics} == {result.trace_id}
    assert {metric.call_sid for metric in hanging.metrics} == {result.call_sid}
    contact, order = (metric for metric in hanging.metrics if metric.operation_name in {"find_contact", "find_order"})
    spoken = [metric for metric in hanging.metrics if metric.operation_type is OperationType.TTS]

    def began(metric: LatencyMetric) -> datetime:
        return metric.timestamp - timedelta(milliseconds=metric.latency_ms)

    for looked_up, filler in ((contact, spoken[0]), (order, spoken[3])):
        assert began(looked_up) + timedelta(milliseconds=299) <= began(filler) <= looked_up.timestamp


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        pytest.param(name, turns, marks=pytest.mark.xdist_group(name))
        for name, turns in zip(CALLS, (9, 3, 1, 3), strict=True)
    ],
)
def test_every_turn_is_measured_in_parts_that_sum(name: str, turns: int, request: pytest.FixtureRequest) -> None:
    """From the end of the caller's speech, as the media clock has it, to what the caller heard."""
    measured: Measured = request.getfixturevalue(name)
    assert len(measured.turns) == turns
    for told in measured.turns:
        assert told.unmeasured is None
        assert told.anchor is Anchor.TWILIO_MEDIA_CLOCK
        assert told.response_ms == pytest.approx(sum(told.parts_ms.values()))
        assert told.parts_ms["endpointing"] >= 500
        assert told.parts_ms["twilio_buffer"] + told.parts_ms.get("loop_lag", 0) >= 20
        assert told.operations >= 3


@pytest.mark.xdist_group("interrupted")
def test_the_turn_that_was_broken_into_says_how_much_of_it_was_heard(interrupted: Measured) -> None:
    """And how soon the bot fell silent; the two others were answered."""
    first, *others = interrupted.turns
    assert (first.outcome, first.barge_in and first.barge_in.is_false) == ("interrupted", False)
    assert first.barge_in is not None
    assert 0 < (first.barge_in.heard_share or 0) < 1
    assert (first.barge_in.reaction_ms or 0) >= 100
    assert [told.outcome for told in others] == ["answered"] * 2


@pytest.mark.xdist_group("hanging")
def test_a_filler_is_heard_first_and_the_answer_later(hanging: Measured) -> None:
    """While Salesforce hangs the caller is asked for patience."""
    plain, looked_up, _ = hanging.turns
    assert plain.answer_sent_ms == plain.response_sent_ms
    assert looked_up.answer_sent_ms is not None
    assert looked_up.response_sent_ms is not None
    assert looked_up.answer_sent_ms - looked_up.response_sent_ms >= 200
    assert looked_up.parts_ms["salesforce_api"] >= 250


@pytest.mark.xdist_group("hanging")
def test_what_is_slow_takes_that_much_longer(hanging: Measured) -> None:
    latencies = {kind: [m.latency_ms for m in hanging.metrics if m.operation_type is kind] for kind in OperationType}
    assert min(latencies[OperationType.SALESFORCE]) >= 1500
    assert min(latencies[OperationType.RAG]) >= 300
    assert statistics.median(latencies[OperationType.STT] + latencies[OperationType.TTS]) < 1500


# -- the programs -----------------------------------------------------------------------------------------------------


def test_the_demo_shows_the_call_and_what_to_do_next(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:examples", "-m", "examples.callbot.demo", "--svg", "a/w.svg"],
        cwd=tmp_path,
        env=clean_environment({"COLUMNS": "80"}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in (
        "caller: where is my order",
        "bot: Your order 4 2 7 is on its way.",
        "Slow on purpose: Salesforce's orders, by 2.5 s. Thresholds, lowered for this:\n"
        "LATENCY_SALESFORCE_WARNING_MS=1000 LATENCY_SALESFORCE_CRITICAL_MS=1500",
        f"bot: {ONE_MOMENT}",
        "▲ critical",
        "Time line of call CA",
        "pocketsphinx-grammar",
        "◆",
        "What the caller waited, turn by turn",
        "   2  waited ",
        " s until the answer",
        "Statistics",
        "text_to_speech/synthesize_stream",
        "outputs/logs/latency_metrics.jsonl",
        "make demo-stack",
    ):
        assert part in done.stdout
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = (tmp_path / "outputs/logs/latency_metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len([row for row in rows if "attempt" not in row and "kind" not in row]) == 14
    turns = [row for row in rows if row.get("kind") == "turn"]
    sums = [int(ms.replace(",", "")) for ms in re.findall(r"= ([\d,]+) ms", done.stdout)]
    assert sums == [round(row["response_ms"]) for row in turns]
    for terms in re.findall(r"^ {6}(endpointing .*?) = ([\d,]+) ms", done.stdout, re.MULTILINE | re.DOTALL):
        numbers = [int(ms.replace(",", "")) for ms in re.findall(r"[a-z_]+ ([\d,]+)", terms[0])]
        assert sum(numbers) == int(terms[1].replace(",", ""))
    assert "callbot_latency" in (tmp_path / "a/w.svg").read_text()


def _seconds_of(lines: list[str], words: str) -> list[float]:
    """The demo's clock on each line with these words."""
    return [float(line.split("s")[0]) for line in lines if words in line]


@pytest.mark.parametrize(
    ("slow", "critical_s", "takes_s", "settings"),
    [
        ([], 1.5, 2.5, {}),
        (
            ["--slow", "salesforce=4s", "--slow", "rag=100ms"],
            0.6,
            4.0,
            {"LATENCY_SALESFORCE_WARNING_MS": "500", "LATENCY_SALESFORCE_CRITICAL_MS": "600"},
        ),
    ],
)
def test_the_alert_is_seen_while_the_caller_waits(
    slow: list[str], critical_s: float, takes_s: float, settings: dict[str, str], tmp_path: Path
) -> None:
    with (
        webhook() as slack,
        subprocess.Popen(
            [sys.executable, "-u", "-m", "examples.callbot.demo", *slow],
            cwd=tmp_path,
            env=clean_environment({"COLUMNS": "80", "SLACK_WEBHOOK_URL": slack.url, **settings}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout
        assert process.stderr
        seen = [(time.monotonic(), line) for line in process.stdout]
        errors = process.stderr.read()
    lines = [line for _, line in seen]
    assert (process.wait(), errors) == (0, "")
    [asked] = _seconds_of(lines, "caller: where is my order")
    [fired] = _seconds_of(lines, "alert: critical: salesforce/find_order still runs after")
    [ended] = _seconds_of(lines, "alert: critical: salesforce/find_order took")
    [answered] = _seconds_of(lines, "bot: Your order")
    patience = _seconds_of(lines, f"bot: {ONE_MOMENT}")[-1]
    # The bot asks the knowledge base before; and the worker looks every 0.1 s for what has ended.
    assert fired - asked >= critical_s - 0.1
    assert ended - asked >= takes_s - 0.1
    assert asked < fired < ended <= answered
    assert fired - 0.1 <= patience < ended
    # It was printed then, and not only dated then.
    at = {words: next(when for when, line in seen if words in line) for words in ("still runs", "took", "Your order")}
    assert at["Your order"] - at["still runs"] >= (takes_s - critical_s) / 2
    assert at["took"] - at["still runs"] >= (takes_s - critical_s) / 2
    assert "Critical alerts go to Slack too" in "".join(lines)
    posted = next(post for post in slack.requests if b"find_order still running after" in post.body)
    # Of the demo's own second a busy machine may need more to load Slack's client.
    assert posted.at_s < at["Your order"] or takes_s - critical_s < 2


def test_ctrl_c_ends_the_demo_cleanly(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.callbot.demo"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        while "Hello Ada" not in running.stdout.readline():
            pass
        running.send_signal(signal.SIGINT)
        told, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, errors) == (130, "")
    assert "Stopped." in told
