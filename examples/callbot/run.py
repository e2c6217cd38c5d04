"""Calls from one end to the other: the bot, the knowledge base, the Salesforce stub and the callers in one process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from .bot import Line, OnLine, Services, bot_app
from .caller import PATIENCE_S, Caller, Utterance
from .knowledge import KnowledgeBase, KnowledgeClient, knowledge_app
from .salesforce import connect
from .salesforce_stub import PHONES, SESSION_ID, SalesforceStub
from .servers import serving
from .slow import Slow
from .speech import SphinxRecognizer

_GOODBYE: Final = Utterance("Thank you very much, goodbye.")
SCRIPT: Final = (Utterance("What are your opening hours?"), Utterance("Where is my order?"), _GOODBYE)
INTERRUPTING_SCRIPT: Final = (
    Utterance("What does the warranty cover?"),
    Utterance("Where is my order?", interrupts_after_s=2.0),
    _GOODBYE,
)


@dataclass(frozen=True, slots=True)
class CallResult:
    """One call: its ids, what the bot heard, what it answered, and how long it took."""

    call_sid: str
    stream_sid: str
    trace_id: str
    heard: tuple[str, ...]
    answered: tuple[str, ...]
    seconds: float
    sent: dict[str, int]


@asynccontextmanager
async def services_running(on_line: OnLine, slow: Slow | None = None) -> AsyncGenerator[Services, None]:
    """What the bot needs, running on this machine within the block; `slow` says what of it takes longer."""
    slow = slow or Slow()
    async with AsyncExitStack() as stack:
        knowledge = KnowledgeBase()
        stack.callback(knowledge.close)
        rag = await stack.enter_async_context(serving(knowledge_app(knowledge, slow.rag)))
        crm = await stack.enter_async_context(serving(SalesforceStub(slow=slow).app()))
        client = KnowledgeClient(f"http://{rag}")
        stack.push_async_callback(client.close)
        salesforce = connect(f"http://{crm}", SESSION_ID)
        stack.callback(salesforce.session.close)
        second = await asyncio.to_thread(SphinxRecognizer)
        yield Services(client, salesforce, knowledge.questions(), second, on_line, slow)


async def run_calls(
    calls: int = 1,
    *,
    interrupt: bool = False,
    hang_up: bool = False,
    slow: Slow | None = None,
    on_line: OnLine | None = None,
) -> list[CallResult]:
    """Make `calls` calls at once; `callbot_latency.init()` and `shutdown()` are left to whoever calls this.

    Args:
        calls: how many.
        interrupt: the callers break into a long answer.
        hang_up: the callers hang up in the middle of an answer.
        slow: which providers take longer, and by how much.
        on_line: told of everything that is said.

    """
    lines: list[Line] = []

    def keep(line: Line) -> None:
        lines.append(line)
        if on_line is not None:
            on_line(line)

    longer_s = slow.longest_wait_s if slow else 0.0
    async with (
        services_running(keep, slow) as services,
        # The bot notes a call when the caller has gone.
        serving(bot_app(services), end_within_s=3 + longer_s) as address,
    ):
        callers = [_caller(f"ws://{address}/media", n, interrupt=interrupt, hang_up=hang_up) for n in range(calls)]
        for caller in callers:
            caller.patience_s = PATIENCE_S + 2 * longer_s
        seconds = await asyncio.gather(*(caller.run() for caller in callers))
    return [_result(caller, took, lines) for caller, took in zip(callers, seconds, strict=True)]


def _caller(url: str, number: int, *, interrupt: bool, hang_up: bool) -> Caller:
    script = INTERRUPTING_SCRIPT if interrupt else SCRIPT
    phone = PHONES[number % len(PHONES)]
    if hang_up:
        return Caller(url, phone, script[:-1] if interrupt else INTERRUPTING_SCRIPT[:1], hang_up_after_s=1.5)
    return Caller(url, phone, script)


def _result(caller: Caller, seconds: float, lines: list[Line]) -> CallResult:
    own = [line for line in lines if line.call_sid == caller.call_sid]
    return CallResult(
        call_sid=caller.call_sid,
        stream_sid=caller.stream_sid,
        trace_id=next((line.trace_id for line in own if line.trace_id), ""),
        heard=tuple(line.text for line in own if line.speaker == "caller" and line.text),
        answered=tuple(line.text for line in own if line.speaker == "bot"),
        seconds=seconds,
        sent=dict(caller.events),
    )
