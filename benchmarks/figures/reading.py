"""What it takes to read the statistics of 10,000 kept metrics."""

import time
from collections.abc import Callable, Sequence

from callbot_latency import OperationType, latency_tracker, measure_latency_context
from callbot_latency.pipeline.tracker import KEPT

from ..tools.harness import ROUNDS, Figure, amount, pin, run_alone
from ..tools.setup import flush, measuring
from .caller import measured

NAMES = ("transcribe", "answer", "speak", "look_up", "log_call")


def milliseconds(function: Callable[[], object]) -> float:
    """One run."""
    started_ns = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - started_ns) / 1e6


def fill() -> None:
    """As many metrics as are kept, of five operations."""
    for number in range(KEPT):
        with measure_latency_context(OperationType.STT, NAMES[number % len(NAMES)]):
            pass
        if number % 1000 == 999:
            flush()


def figures() -> Sequence[Figure]:
    """Cold is right after something new arrived, cached is right after that."""
    pin()
    cold, cached, average = [], [], []
    with measuring():
        fill()
        for _ in range(ROUNDS):
            measured()
            flush()
            cold.append(milliseconds(latency_tracker.get_stats))
            cached.append(milliseconds(latency_tracker.get_stats))
            measured()
            flush()
            average.append(milliseconds(lambda: latency_tracker.get_average_latency(OperationType.STT)))
    return [
        amount(f"get_stats over {KEPT:,} metrics, cold", cold, "ms", 10),
        amount(f"get_stats over {KEPT:,} metrics, cached", cached, "ms", 0.1),
        amount(f"get_average_latency over {KEPT:,} metrics, cold", average, "ms", 1),
    ]


if __name__ == "__main__":
    run_alone(figures)
