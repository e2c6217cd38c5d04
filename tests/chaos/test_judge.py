"""The judge sees each way in which the law may be broken: a verdict that cannot be bad would prove nothing."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.callers import ANSWERS, Call
from tests.chaos.control import Control
from tests.chaos.judge import Evidence, Servers, findings, held_up
from tests.chaos.plan import TARGETS, plan
from tests.chaos.reading import Exposed, Lines

PIPELINE = "callbot_latency.pipeline"
LANE = "callbot_latency.reporters.influxdb"
LOST = {"influxdb_lane_full": 3}


def status(accepted: int, **dropped: int) -> dict[str, Any]:
    return {
        "accepted": accepted,
        "delivered": accepted - sum(dropped.values()),
        "pending": 0,
        "dropped": dropped,
        "last_error": None,
    }


def account(tag: str, load: str, measured: int) -> dict[str, Any]:
    return {
        "tag": tag,
        "tracker": {f"speech_to_text/{load}": measured},
        "told": {"measurements": {load: measured}, "turns": 2, "alerts": 4},
        "status": {
            "witness": status(measured + 2 + 4),
            "jsonl": status(measured + 2),
            "influxdb": status(measured + 2, **LOST),
            "pushgateway": status(measured + 2),
            "slack": status(4),
        },
        "dropped": dict(LOST),
        "drop_lines": [
            (1.0, PIPELINE, "telemetry dropped since the last such line: influxdb_lane_full: 1"),
            (62.0, PIPELINE, "telemetry dropped since the last such line: influxdb_lane_full: 2"),
            (2.0, LANE, "dropped since the last such line: influxdb_lane_full: 3 (did not answer: 7)"),
        ],
        "exceptions": [],
    }


def evidence() -> Evidence:
    """A run in which the law holds: a bot, a child that ended and one that was killed."""
    bot = {
        **account("bot", "load", 100),
        "measured": {"load": 100, "pulse": 0},
        "late": [],
        "forks": [],
        "held": [],
        "collections": [],
        "protocol": "http/protobuf",
        "children": {"c1": "ended", "c2": "killed"},
        "spans": {"accepted": 9, "delivered": 4, "failed": 3, "queue_full": 2, "pending": 0},
    }
    children = {
        "c1": {**account("c1", "load_c1", 10), "measured": 10},
        "c2": {"tag": "c2", "measured": 20, "delivered": 15},
    }
    page = Exposed(Counter(load=100, load_c1=10), dict(LOST))
    return Evidence(
        copy.deepcopy(bot),
        bot,
        children,
        [Call("CA1", ANSWERS, 20.0)],
        Lines(Counter(bot=102, c1=12, c2=17)),
        Servers(Counter(bot=99, c1=9, c2=5), Counter(bot=4, c1=4), page, copy.deepcopy(page)),
        Control(),
    )


def test_a_run_in_which_the_law_holds() -> None:
    """Nothing is found."""
    assert findings(evidence()) == []


def _set(path: str, value: Any) -> Callable[[Evidence], None]:
    """A change: keys and attributes by their names."""

    def change(seen: Any) -> None:
        *way, last = path.split("/")
        for name in way:
            seen = seen[name] if isinstance(seen, dict) else getattr(seen, name)
        if isinstance(seen, dict):
            seen[last] = value
        else:
            setattr(seen, last, value)

    return change


BREAKS = {
    "one is lost in a lane": _set("bot/status/jsonl/delivered", 101),
    "something stays pending": _set("bot/status/jsonl/pending", 1),
    "a lane was not told": _set("bot/status/pushgateway", status(101)),
    "the tracker lost one": _set("bot/tracker", {"speech_to_text/load": 99}),
    "one never came out of the queue": _set("bot/measured", {"load": 101, "pulse": 0}),
    "a drop without a reason in the metric": _set("bot/dropped", {}),
    "a fault of ours": _set("bot/dropped", {**LOST, "internal_error": 1}),
    "the log says too little": _set("bot/drop_lines", evidence().bot["drop_lines"][1:]),
    "the log speaks too often": _set(
        "bot/drop_lines",
        [
            *(
                (at, PIPELINE, "telemetry dropped since the last such line: influxdb_lane_full: 1")
                for at in (1, 30, 91)
            ),
            evidence().bot["drop_lines"][2],
        ],
    ),
    "a span is lost": _set("bot/spans/failed", 2),
    "an exception": _set("bot/exceptions", ["ValueError"]),
    "measuring took over a second": _set("bot/late", [(10.0, 11.1, "load begins")]),
    "a caller was left without an answer": _set("calls", [Call("CA1", ANSWERS - 1, 20.0)]),
    "a call broke off": _set("calls", [Call("CA1", ANSWERS, 20.0, "ConnectionClosedError()")]),
    "nobody rang": _set("calls", []),
    "a child hung": _set("bot/children/c1", "hung"),
    "a child ended by a fault of its own": _set("bot/children/c1", "exit status 1"),
    "a child ended without an account": _set("children/c1", {"tag": "c1", "measured": 10, "delivered": 9}),
    "a child told nothing": _set("children", {"c2": evidence().children["c2"]}),
    "a child lost one": _set("children/c1/measured", 11),
    "a line is torn": _set("lines/torn", ["{"]),
    "a line stands there again": _set("lines/twice", 1),
    "a line is missing": _set("lines/written", Counter(bot=101, c1=12, c2=17)),
    "a line too many": _set("lines/written", Counter(bot=103, c1=12, c2=17)),
    "what a killed child had written is gone": _set("lines/written", Counter(bot=102, c1=12, c2=14)),
    "a killed child wrote what it never measured": _set("lines/written", Counter(bot=102, c1=12, c2=21)),
    "a point is missing": _set("servers/points", Counter(bot=98, c1=9)),
    "a point too many": _set("servers/points", Counter(bot=100, c1=9)),
    "a child's point is missing": _set("servers/points", Counter(bot=99, c1=8)),
    "a message came twice": _set("servers/slack", Counter(bot=5, c1=4)),
    "the Collector lacks a count": _set("servers/collector/counts", Counter(load=99)),
    "a forked child told its parent's counts again": _set("servers/collector/counts", Counter(load=180)),
    "the Pushgateway lacks a count": _set("servers/pushgateway/counts", Counter(load=99)),
    "the metric of drops is behind": _set("servers/collector/drops", {}),
    "the imp failed": _set("imp_errors", ["influxdb: StackError()"]),
}


@pytest.mark.promise("chaos")
@pytest.mark.parametrize("what", BREAKS)
def test_each_breach_is_found(what: str) -> None:
    """One change to such a run, and the verdict is another."""
    seen = evidence()
    BREAKS[what](seen)
    assert findings(seen)


def test_what_others_hold_up_is_nobodys_harm() -> None:
    """A speech engine that is loaded, of which two at the same time count once; a machine that is overloaded."""
    assert held_up(10.0, 12.0, [(9.0, 10.5), (10.25, 11.0), (11.5, 13.0), (20.0, 21.0)]) == pytest.approx(1.5)
    seen = evidence()
    seen.bot["late"] = [(10.0, 11.8, "load begins")]
    assert findings(seen)
    seen.control.longest_s = 0.2
    seen.bot["held"] = [[10.3, 10.8]]
    assert findings(seen) == []


def test_a_slow_machine_is_nobodys_harm_and_hides_no_wait_for_a_server() -> None:
    """What takes CPU takes longer there; a server's time-out of 3 s is harm on any machine."""
    seen = evidence()
    seen.bot["late"] = [(10.0, 12.5, "load begins")]
    assert findings(seen)
    seen.control.slowdown = 8.0
    assert findings(seen) == []
    seen.bot["late"] = [(10.0, 13.0, "load begins")]
    assert findings(seen)


def test_a_collection_of_garbage_is_judged_by_its_cpu_time() -> None:
    """Half a second of it may take long on a busy machine; more than a second of it is harm anywhere."""
    seen = evidence()
    seen.bot["late"] = [(10.0, 12.0, "load begins")]
    seen.bot["collections"] = [(10.0, 12.0, 0.5)]
    assert findings(seen) == []
    seen.bot["collections"] = [(10.0, 12.0, 1.5)]
    assert findings(seen)


def test_a_fork_holds_everybody_up_beside_grpc_alone() -> None:
    """There gRPC waits for its own threads, with Python's lock in its hand; over HTTP it would be a fault of ours."""
    seen = evidence()
    seen.bot["late"], seen.bot["forks"] = [(10.0, 13.0, "load begins")], [(10.0, 13.0)]
    assert findings(seen)
    seen.bot["protocol"] = "grpc"
    assert findings(seen) == []


def test_a_seed_brings_the_same_faults_again() -> None:
    """Another one brings others; a longer run begins as a shorter one, and every target has its share."""
    short, again, other, long = plan(7, 60), plan(7, 60), plan(8, 60), plan(7, 600)
    assert short == again != other
    assert set(short) == set(TARGETS)
    for target in TARGETS:
        assert long[target][0].at_s == short[target][0].at_s
        ends = [event.at_s + event.for_s for event in long[target]]
        assert all(end <= 600.1 for end in ends)
        assert all(later.at_s >= end for later, end in zip(long[target][1:], ends, strict=False))
