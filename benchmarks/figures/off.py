"""What the decorator costs while tracking is off: microseconds over the bare call."""

from collections.abc import Sequence

from callbot_latency import latency_tracker

from ..tools.harness import Figure, difference, interleaved, pin, run_alone, timed, timed_async
from ..tools.setup import measuring
from .caller import measured, measured_async, measured_block, plain, plain_async


def figures() -> Sequence[Figure]:
    """Function, coroutine function, block."""
    pin()
    variants = {
        "plain": timed(plain),
        "function": timed(measured),
        "block": timed(measured_block),
        "plain_async": timed_async(plain_async),
        "async": timed_async(measured_async),
    }
    with measuring():
        latency_tracker.enabled = False
        values = interleaved(variants, calls=500)
        latency_tracker.enabled = True
    return [
        difference("tracking off: decorated function over the bare one", values["function"], values["plain"], 0.2),
        difference("tracking off: async function over the bare one", values["async"], values["plain_async"], 0.3),
        difference("tracking off: context manager over none", values["block"], values["plain"]),
    ]


if __name__ == "__main__":
    run_alone(figures)
