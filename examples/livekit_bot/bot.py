"""A bot on LiveKit Agents; ``python -m examples.livekit_bot.bot`` lets a caller ask it twice, without a room."""

import asyncio
import secrets

from livekit.agents import Agent, AgentSession, JobContext

from callbot_latency import call, init, latency_tracker, shutdown
from examples.livekit_bot.engines import HANGOVER_MS, Ear, Mouth, StubDetector, StubLLM, StubSTT, StubTTS
from examples.livekit_bot.turns import tell_turns


def new_session() -> AgentSession[None]:
    """The session, with the engines of your choice."""
    return AgentSession(
        vad=StubDetector(),
        stt=StubSTT(),
        llm=StubLLM(),
        tts=StubTTS(),
        aec_warmup_duration=None,  # else LiveKit takes no interruption in the first 3 s
        turn_handling={
            "turn_detection": "vad",
            "endpointing": {"min_delay": 0.3},
            "interruption": {"mode": "vad", "min_duration": 0.1},
        },
    )


async def entrypoint(ctx: JobContext) -> None:
    """A real job: the call comes over Twilio's SIP trunk into the room."""
    init()
    ctx.add_shutdown_callback(end_measuring)
    await ctx.connect()
    caller = await ctx.wait_for_participant()
    async with call(caller.attributes.get("sip.twilio.callSid") or ctx.room.name) as bound:
        session, closed = new_session(), asyncio.Event()
        session.on("close", lambda _: closed.set())
        turns = asyncio.create_task(tell_turns(session, bound, HANGOVER_MS))
        await session.start(Agent(instructions="Answer."), room=ctx.room)
        await closed.wait()
        turns.cancel()


async def end_measuring() -> None:
    """What waits is written and sent before the job's process ends."""
    await asyncio.to_thread(shutdown)


async def scripted(call_sid: str) -> list[float]:
    """The same without a room: `Mouth` and `Ear` are the caller. Returns what the caller waited, in milliseconds."""
    async with call(call_sid) as bound:
        session, mouth, ear = new_session(), Mouth(), Ear()
        session.input.audio, session.output.audio = mouth, ear
        turns = asyncio.create_task(tell_turns(session, bound, HANGOVER_MS))
        await session.start(Agent(instructions="Answer."))
        await asyncio.sleep(0.3)
        await mouth.say(0.8)
        await asyncio.sleep(1.2)  # breaks into the answer
        await mouth.say(0.8)
        await asyncio.sleep(3.5)
        await session.aclose()
        turns.cancel()
    return [1000 * (heard - stopped) for stopped, heard in zip(mouth.stopped_at, ear.heard_at, strict=True)]


if __name__ == "__main__":
    init()
    sid = f"CA{secrets.token_hex(16)}"
    print("The caller waited", asyncio.run(scripted(sid)))
    for told in latency_tracker.get_turns(sid):
        print(told.to_dict())
    shutdown()
