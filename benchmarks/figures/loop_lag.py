"""How late an event loop is with 1,000 calls on it, by what measuring adds: the 99th percentile of a ticker's delay.

Each call is a task that runs an operation, sleeps, and runs the next; all of them together make the rate. The same
is run with the operation measured, in a bare span, and plain, in turns. The rate is raised until the loop of the
plain one, or ours, no longer keeps it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final

from callbot_latency import OperationType, call, measure_latency

from ..tools.harness import ROUNDS, Figure, amount, difference, run_alone, say
from ..tools.setup import ATTRIBUTES, SPAN_NAME, bare_tracer, flush, measuring

TASKS: Final = 1_000
RATE: Final = 2_000
SECONDS: Final = 1.5
SETTLE_S: Final = 0.2
"""From when all calls are open to their first operation."""
TICK_S: Final = 0.002
RATES: Final = (2_000, 4_000, 8_000, 12_000, 16_000, 32_000, 50_000)
KEPT_SHARE: Final = 0.95
"""A rate is kept where so much of it is reached."""

Operation = Callable[[], Awaitable[Any]]


async def plain() -> None:
    """What every operation does: wait once."""
    await asyncio.sleep(0)


measured = measure_latency(OperationType.STT, "transcribe", provider="google")(plain)


def operations() -> dict[str, Operation]:
    """The same, three ways."""
    tracer = bare_tracer()

    async def bare() -> None:
        with tracer.start_as_current_span(SPAN_NAME, attributes=ATTRIBUTES):
            await asyncio.sleep(0)

    return {"plain": plain, "ours": measured, "bare": bare}


async def one_call(operation: Operation, number: int, every_s: float, start: "asyncio.Future[float]") -> int:
    """A call's operations, at its rate, from when all calls are open; how many they were."""
    is_ours = operation is measured
    with call(f"CA{number}", stream_sid=f"MZ{number}") if is_ours else nullcontext():
        start_s = await asyncio.shield(start)
        done, due_s, until_s = 0, start_s + random.random() * every_s, start_s + SECONDS
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            if time.perf_counter() >= until_s:
                break
            await operation()
            done += 1
            due_s += every_s
    return done


async def ticked(until_s: float) -> list[float]:
    """By how many milliseconds each tick came too late."""
    late_ms = []
    while (before_s := time.perf_counter()) < until_s:
        await asyncio.sleep(TICK_S)
        late_ms.append((time.perf_counter() - before_s - TICK_S) * 1000)
    return late_ms


async def calls_at_once(operation: Operation, rate: int) -> tuple[float, float]:
    """The 99th percentile of the delay in milliseconds, and the rate that was reached."""
    start: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(one_call(operation, number, TASKS / rate, start)) for number in range(TASKS)]
    # In the next pass of the loop each of them opens its call, and waits.
    await asyncio.sleep(0)
    start_s = time.perf_counter() + SETTLE_S
    start.set_result(start_s)
    await asyncio.sleep(SETTLE_S)
    late_ms = sorted(await ticked(start_s + SECONDS))
    done = sum(await asyncio.gather(*tasks))
    return late_ms[int(len(late_ms) * 0.99)], done / SECONDS


def at_rate(ways: dict[str, Operation], rate: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Every way in turns."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, operation in ways.items():
            results[name].append(asyncio.run(calls_at_once(operation, rate)))
            flush()
    return results


def highest_kept(ways: dict[str, Operation]) -> dict[str, float]:
    """The highest of the rates that each way keeps."""
    kept = dict.fromkeys(ways, 0.0)
    left = dict(ways)
    for rate in RATES:
        for name, results in at_rate(left, rate, 1).items():
            ((late_ms, reached),) = results
            say(f"  {rate:>6}/s {name:6} p99 {late_ms:7.2f} ms, {reached:,.0f}/s reached")
            if reached >= KEPT_SHARE * rate:
                kept[name] = float(rate)
            else:
                del left[name]
    return kept


def figures() -> Sequence[Figure]:
    """At the rate of the goal, and where it ends."""
    ways = operations()
    with measuring():
        at_rate(ways, RATE, 1)
        results = at_rate(ways, RATE, ROUNDS)
        p99 = {name: [late_ms for late_ms, _ in each] for name, each in results.items()}
        kept = highest_kept(ways)
    what = f"event loop's p99 delay added, {TASKS:,} calls, {RATE:,}/s"
    return [
        difference(f"{what}: ours", p99["ours"], p99["plain"], 1.0, unit="ms"),
        difference(f"{what}: bare span", p99["bare"], p99["plain"], unit="ms"),
        *(
            amount(f"highest of {RATES[0]:,} to {RATES[-1]:,} a second that {TASKS:,} calls keep: {name}", [rate], "/s")
            for name, rate in kept.items()
        ),
    ]


if __name__ == "__main__":
    run_alone(figures)
