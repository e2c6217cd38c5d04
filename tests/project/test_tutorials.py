"""The tutorials show code that runs: Twilio's here, over a real WebSocket; the frameworks' from what it was told.

The bots on pipecat and LiveKit Agents run in environments of their own, where `tests/recordings/*_turns.py` wrote down
what they told callbot_latency, and when: `tests/recordings/*-turns.json`. Here the same code of the tutorials, with
stand-ins for the names that it imports, is told that again on a scripted clock, and measures what it measured there.
"""

import asyncio
import base64
import json
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import make_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

import pytest

from callbot_latency import call, latency_tracker
from callbot_latency.twilio import TwilioMediaStream
from tests.support.clock import Clock
from tests.support.subprocesses import ROOT, clean_environment, written

pytestmark = pytest.mark.real_time

EXAMPLES = ROOT / "examples"
RECORDED = {
    "pipecat": ROOT / "tests/recordings/pipecat-1.14.0-turns.json",
    "livekit": ROOT / "tests/recordings/livekit-agents-1.8.9-turns.json",
}
OFF_MS = 100
"""How far another process's stamps may be off."""
CALLS = 5
"""How often the bot of the Twilio tutorial is called until a call is as the page says: a machine that holds one of
the processes up for longer than `OFF_MS` changes what happens in a call, and what is seen of it."""


def page(name: str) -> str:
    return (ROOT / f"docs/tutorial-{name}.md").read_text()


def recorded(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(RECORDED[name].read_text())
    return read


def told_in(run: dict[str, Any], clock: Clock) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was told in a run, one after the other, with the clock set to when it was."""
    began_ns, there_ns = clock.now_ns, run["told"][0][0]
    for at_ns, kind, what in run["told"]:
        clock.now_ns = began_ns + at_ns - there_ns
        yield kind, what


# -- what the pages show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["twilio", "pipecat", "livekit"])
def test_the_code_that_is_shown_is_the_code_that_runs(name: str) -> None:
    """Each Python block stands, line by line, in a file of the example; each file that is named is there."""
    files = ["\n".join(map(str.strip, file.read_text().splitlines())) for file in EXAMPLES.glob(f"{name}_bot/*.py")]
    shown = re.findall(r"^```python\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)
    assert len(shown) >= 3
    for block in shown:
        lines = "\n".join(map(str.strip, block.splitlines()))
        assert any(lines in file for file in files), block


@pytest.mark.parametrize("name", ["pipecat", "livekit"])
def test_the_run_that_is_claimed_is_the_run_that_was_recorded(name: str) -> None:
    """With its version, its date, the command that makes it again, and the numbers that the page shows."""
    run, text = recorded(name), page(name)
    assert f"{run['with']}, on {run['on']}" in text
    assert f"python -m {name}_turns > {RECORDED[name].name}" in text
    for told in run["turns"]:
        parts = ", ".join(f"{part} {ms:.0f}" for part, ms in told["parts_ms"].items())
        waited_ms = told.get("response_ms", told["response_sent_ms"])
        assert f"| {told['turn']} | {told['outcome']} | {waited_ms:.0f} ms | {parts} |" in text


@pytest.mark.parametrize("name", ["pipecat", "livekit"])
def test_what_was_recorded_is_what_the_caller_waited(name: str) -> None:
    """The stamps of the caller's own end, in the run with the real framework, say the same within 20 ms."""
    run = recorded(name)
    told_ms = [told.get("response_ms", told["response_sent_ms"]) for told in run["turns"]]
    assert told_ms == pytest.approx(run["waited_ms"], abs=20)
    assert {operation["operation_type"] for operation in run["operations"]} == {
        "speech_to_text",
        "rag_inference",
        "text_to_speech",
    }
    assert {operation["call_sid"] for operation in run["operations"]} == {told["call_sid"] for told in run["turns"]}


# -- Twilio -----------------------------------------------------------------------------------------------------------


@contextmanager
def bot_running(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The bot's command of the page, on a free port; its address, and once it has ended what it wrote."""
    command = [sys.executable, "-m", "uvicorn", "examples.twilio_bot.bot:app", "--port", "0"]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as bot:
        assert bot.stdout is not None
        address = None
        while address is None and (line := bot.stdout.readline()):
            said.append(line)
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address is not None, said
        try:
            yield address[0], said
        finally:
            bot.send_signal(signal.SIGINT)
            said.append(bot.communicate(timeout=100)[0])


def called(address: str, folder: Path) -> tuple[str, list[float]]:
    """The caller's command of the page: the call_sid, and by the caller's own stamps the waits in milliseconds."""
    command = [sys.executable, "-m", "examples.twilio_bot.caller", address]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    said = re.fullmatch(r"(CA[0-9a-f]{32}) waited ((?:\d+ ms(?:, )?)+)\n", done.stdout)
    assert said is not None, done
    return said[1], [float(ms) for ms in re.findall(r"\d+", said[2])]


def test_the_bot_of_the_twilio_tutorial_is_measured(tmp_path: Path) -> None:
    """The commands of the page: two turns in parts, an interruption and a filler, as the caller's own stamps say."""
    for number in range(CALLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            assert_a_call_is_measured(folder)
        except (AssertionError, LookupError):
            if number == CALLS - 1:
                raise
        else:
            return


def assert_a_call_is_measured(folder: Path) -> None:
    """Run both commands in the folder."""
    with bot_running(folder) as (address, said):
        call_sid, waited_ms = called(address, folder)
    lines = [line for line in written(folder) if line["call_sid"] == call_sid]
    turns = [line for line in lines if line.get("kind") == "turn"]
    assert len(turns) == 2
    first, second = turns
    assert [line["operation_name"] for line in lines if line.get("turn") == 1 and "kind" not in line] == [
        "transcribe",
        "ask",
        "speak",
    ]
    assert "find_queue" in [line.get("operation_name") for line in lines]
    assert len({line["trace_id"] for line in lines}) == 1

    assert [told["outcome"] for told in turns] == ["interrupted", "answered"]
    assert set(first["parts_ms"]) >= {
        "endpointing",
        "speech_to_text",
        "rag_inference",
        "text_to_speech",
        "twilio_buffer",
    }
    for told, by_the_caller_ms in zip(turns, waited_ms, strict=True):
        assert "unmeasured" not in told
        assert sum(told["parts_ms"].values()) == pytest.approx(told["response_ms"])
        assert told["parts_ms"]["endpointing"] == pytest.approx(200, abs=1)
        assert told["response_ms"] == pytest.approx(by_the_caller_ms, abs=OFF_MS)
    assert first["barge_in"]["is_false"] is False
    assert first["barge_in"]["silenced_ms"] > first["barge_in"]["reaction_ms"] >= 60
    assert second["answer_sent_ms"] - second["response_sent_ms"] > 200  # the filler was heard before

    for told in turns:
        assert f"turn {told['turn']}, {told['outcome']}: {told['response_ms']:.0f} ms = endpointing 200" in said[-1]


# -- pipecat and LiveKit Agents, from what was recorded ---------------------------------------------------------------


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Mapping[str, Any]], None]:
    """``stand_ins(module, names)`` lets code import these names from a package that is not installed here."""

    def put(name: str, names: Mapping[str, Any]) -> None:
        for package in (name.rsplit(".", n)[0] for n in range(name.count(".") + 1)):
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        for each, value in names.items():
            setattr(sys.modules[name], each, value)

    return put


def assert_measured(call_sid: str, expected: list[dict[str, Any]]) -> None:
    """The numbers of the recording, to the millisecond or two that lie between an event and its note."""
    measured = [told.to_dict() for told in latency_tracker.get_turns(call_sid)]
    assert [(told["outcome"], told["anchor"]) for told in measured] == [
        (told["outcome"], told["anchor"]) for told in expected
    ]
    for told, there in zip(measured, expected, strict=True):
        assert told.get("response_ms") == pytest.approx(there.get("response_ms"), abs=2)
        assert told["response_sent_ms"] == pytest.approx(there["response_sent_ms"], abs=2)
        assert {"queueing": 0, **told["parts_ms"]} == pytest.approx({"queueing": 0, **there["parts_ms"]}, abs=2)
        assert told.get("barge_in", {}).get("is_false") == there.get("barge_in", {}).get("is_false")


class Direction(Enum):
    DOWNSTREAM = 1
    UPSTREAM = 2


def message_of(what: dict[str, Any]) -> dict[str, Any]:
    """A message as it was; the recording keeps of sound how long it is, and a sample of it."""
    if what["event"] != "media":
        return what
    payload = base64.b64encode(bytes([what["sample"]]) * what["samples"]).decode()
    return {"event": "media", "media": {"payload": payload}}


def test_pipecats_frames_make_turns(clock: Clock, stand_ins: Callable[..., None]) -> None:
    """The observer of the tutorial, told the frames and messages of the call that the real pipecat answered."""
    run = recorded("pipecat")
    call_sid = run["turns"][0]["call_sid"]
    fields = {"VADUserStartedSpeakingFrame": ["start_secs"], "VADUserStoppedSpeakingFrame": ["stop_secs"]}
    code = (EXAMPLES / "pipecat_bot/turns.py").read_text()
    imported = re.search(r"from pipecat\.frames\.frames import \((.*?)\)", code, re.DOTALL)
    assert imported is not None
    frames = {name: make_dataclass(name, fields.get(name, [])) for name in re.findall(r"\w+", imported[1])}
    observer_class = type("BaseObserver", (), {"__init__": lambda self, *, observe_every_push: None})
    stand_ins("pipecat.frames.frames", frames)
    stand_ins("pipecat.observers.base_observer", {"BaseObserver": observer_class, "FramePushed": object})
    stand_ins("pipecat.processors.frame_processor", {"FrameDirection": Direction, "FrameProcessor": object})
    turn_observer = runpy.run_path(str(EXAMPLES / "pipecat_bot/turns.py"))["TurnObserver"]

    async def told_again() -> None:
        with call(call_sid, stream_sid="MZ1"):
            stream = TwilioMediaStream(clock=clock)
            observer = turn_observer(stream)
            for kind, what in told_in(run, clock):
                if kind == "received":
                    stream.on_message(what)
                elif kind == "sent":
                    stream.on_send(message_of(what))
                else:
                    direction, name = Direction[what.pop("direction")], what.pop("name")
                    await observer.on_push_frame(SimpleNamespace(frame=frames[name](**what), direction=direction))

    asyncio.run(told_again())
    assert_measured(call_sid, run["turns"])


T = TypeVar("T")


class Session(Generic[T]):
    """LiveKit's AgentSession, as far as the tutorial uses it."""

    def __init__(self) -> None:
        self.user_state = "listening"
        self.heard_by: dict[str, Callable[[Any], None]] = {}

    def on(self, name: str, function: Callable[[Any], None]) -> None:
        self.heard_by[name] = function


async def livekit_told(run: dict[str, Any], clock: Clock, stand_ins: Callable[..., None]) -> None:
    """`tell_turns` of the tutorial is told a run's events, and then cancelled, as where the call is over."""
    stand_ins("livekit.agents", {"AgentSession": Session})
    tell_turns = runpy.run_path(str(EXAMPLES / "livekit_bot/turns.py"))["tell_turns"]
    tell_turns.__globals__["time"] = SimpleNamespace(perf_counter_ns=clock)
    session: Session[None] = Session()
    with call(run["turns"][0]["call_sid"]) as bound:
        telling = asyncio.create_task(tell_turns(session, bound, hangover_ms=200))
        await asyncio.sleep(0)
        for _, what in told_in(run, clock):
            session.user_state = what.pop("user_state")
            session.heard_by[what["type"]](SimpleNamespace(**what))
            for _ in range(3):
                await asyncio.sleep(0)
        telling.cancel()
        await asyncio.wait([telling])


def test_livekits_events_make_turns(clock: Clock, stand_ins: Callable[..., None]) -> None:
    """`tell_turns` of the tutorial, told the events of the session that the real LiveKit Agents ran."""
    run = recorded("livekit")
    asyncio.run(livekit_told(run, clock, stand_ins))
    assert_measured(run["turns"][0]["call_sid"], run["turns"])


@pytest.mark.parametrize(("last", "outcome"), [("thinking", "unanswered"), ("broke in", "interrupted")])
def test_a_call_on_livekit_that_ends_within_a_turn_is_told_truly(
    clock: Clock, stand_ins: Callable[..., None], last: str, outcome: str
) -> None:
    """Who hangs up while the bot thinks has no answer; who breaks into the answer, and then hangs up, broke in."""
    run = recorded("livekit")
    happened = ["listening", "spoke", "stopped", "thinking", "answered", "broke in"]
    run["told"] = run["told"][: happened.index(last) + 1]
    asyncio.run(livekit_told(run, clock, stand_ins))
    [told] = latency_tracker.get_turns(run["turns"][0]["call_sid"])
    assert told.outcome == outcome
