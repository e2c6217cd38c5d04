"""What is measured leaves no cycles: Python's garbage collector stops the whole process while it looks for them."""

from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python

pytestmark = pytest.mark.real_time

CODE = """
import asyncio, gc
from callbot_latency import attempt, call, turn

@measure_latency("speech_to_text", provider="google")
async def hear():
    return 1

@measure_latency("text_to_speech", provider="google")
def say():
    yield from range(3)

@measure_latency("text_to_speech", provider="google")
async def stream():
    for item in range(3):
        yield item

@measure_latency("rag_inference")
def fails():
    with attempt("first"):
        raise ValueError("no answer")

def block():
    with measure_latency_context("rag_inference", "block", metadata={"articles": [1, 2]}):
        pass

def driven(awaitable):
    try:
        awaitable.send(None)
    except StopIteration:
        pass

async def consumed():
    async for _ in stream():
        pass

def failed():
    try:
        fails()
    except ValueError:
        pass

@measure_latency("rag_inference")
def asks_twice():
    with attempt("first") as tried:
        tried.reject("empty")
    with attempt("second"):
        pass

def whole_call():
    with call("CA1", stream_sid="MZ1"), turn() as asked:
        asked.speech_ended()
        listen()
        with measure_latency_context("rag_inference", "search"):
            listen()
        asks_twice()
        asked.audio_sent()

async def answers():
    whole_call()
    await hear()

KINDS = {
    "function": listen, "block": block, "coroutine": lambda: driven(hear()), "generator": lambda: list(say()),
    "async generator": lambda: driven(consumed()), "failure": failed, "attempts": asks_twice, "call": whole_call,
    "call on a loop": lambda: asyncio.run(answers()),
}
def told():
    latency_tracker.get_stats()
    assert cl.report_manager.flush(60)

init()
for measured in KINDS.values():
    measured()  # once, for what is made on first use
told()
left = {}
for kind, measured in KINDS.items():
    gc.collect()
    gc.disable()
    for _ in range(100):
        measured()
    told()
    left[kind] = gc.collect()
    gc.enable()
[*_, turned] = latency_tracker.get_turns()
tell(left=left, measured=latency_tracker.get_stats()["rag_inference/block"]["count"], parts=list(turned.parts_ms))
shutdown()
"""


def test_a_measurement_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """Of any kind, once it was told: with file, tracker, metrics, thresholds and alerts."""
    facts = facts_of(
        run_python(
            CODE, tmp_path, {"LATENCY_RAG_WARNING_MS": "0.0001", "LATENCY_RAG_CRITICAL_MS": "0.0002"}, timeout_s=100
        )
    )
    assert facts["measured"] == 101
    assert "rag_inference" in facts["parts"]
    assert facts["left"] == dict.fromkeys(facts["left"], 0)
