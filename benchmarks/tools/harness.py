"""What all figures share: rounds in which the variants take turns, a pinned CPU, rows, the machine, the table."""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROUNDS: Final = int(os.environ.get("CALLBOT_BENCH_ROUNDS", "9"))
CHUNKS: Final = 40
"""In a round each variant has so many turns ..."""
CALLS: Final = 50
"""... of so many calls."""
CLOCK: Final = os.environ.get("CALLBOT_BENCH_CLOCK", "wall")
"""`wall`, or `thread`: the CPU time of the thread that calls, for a machine that is busy with other things."""
clock_ns: Final = {"wall": time.perf_counter_ns, "thread": time.thread_time_ns}[CLOCK]
PACKAGES: Final = (
    "opentelemetry-sdk",
    "opentelemetry-api",
    "structlog",
    "pydantic-settings",
    "logfire",
    "ddtrace",
    "sentry-sdk",
    "prometheus-client",
    "autometrics",
)

Chunk = Callable[[int], float]
"""Runs so many calls; what it returns is one call's cost."""


@dataclass(frozen=True)
class Figure:
    """One row: what was measured in each round, and the goal that its median is held against."""

    name: str
    unit: str
    values: Sequence[float]
    """One a round: a ratio (unit ``x``), or a difference or an amount in `unit`."""
    goal: float | None = None
    at_least: bool = False
    """Whether the goal is the least that is wanted, instead of the most."""
    ours: float | None = None
    theirs: float | None = None
    base_unit: str = "us"
    """Unit of `ours` and `theirs`, which are the least of their rounds."""
    note: str = ""

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is none."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        values = [float(f"{value:.6g}") for value in self.values]
        return asdict(self) | {"values": values, "min": min(values), "median": self.median, "met": self.met}


def ratio(
    name: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None = None, *, base_unit: str = "us"
) -> Figure:
    """Ours over theirs, round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Figure(name, "x", ratios, goal, ours=min(ours), theirs=min(theirs), base_unit=base_unit)


def difference(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    goal: float | None = None,
    *,
    unit: str = "us",
) -> Figure:
    """Ours less theirs, round by round."""
    over = [a - b for a, b in zip(ours, theirs, strict=True)]
    return Figure(name, unit, over, goal, ours=min(ours), theirs=min(theirs), base_unit=unit)


def amount(name: str, values: Sequence[float], unit: str, goal: float | None = None, **more: Any) -> Figure:
    """Ours alone."""
    return Figure(name, unit, values, goal, **more)


def say(text: str) -> None:
    """Progress, beside what is printed as the result."""
    print(text, file=sys.stderr, flush=True)


def pinned_to() -> int | None:
    """The CPU that `pin` chooses; None where there is no pinning."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def pin() -> None:
    """Keep this process and its threads on one CPU, the last of those it may use, where the system lets us."""
    cpu = pinned_to()
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def interleaved(
    variants: dict[str, Chunk],
    *,
    rounds: int = ROUNDS,
    chunks: int = CHUNKS,
    calls: int = CALLS,
    pause_s: float = 0.0,
) -> dict[str, list[float]]:
    """What each variant costs a call, one value a round: the median of its turns, which alternate with the others'.

    Every ten turns there is a pause, in which the worker takes its turn, and not in the middle of somebody's.
    """
    values: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(chunks):
            for name, chunk in variants.items():
                taken[name].append(chunk(calls))
            if number % 10 == 9:
                time.sleep(pause_s)
        for name, costs in taken.items():
            values[name].append(statistics.median(costs))
    return values


def timed(function: Callable[[], object]) -> Chunk:
    """Microseconds a call."""

    def chunk(calls: int) -> float:
        started_ns = clock_ns()
        for _ in range(calls):
            function()
        return (clock_ns() - started_ns) / calls / 1000

    return chunk


def timed_async(function: Callable[[], Any]) -> Chunk:
    """Microseconds a call of what never waits: driven by hand, so that no event loop is measured."""

    async def loop(calls: int) -> float:
        started_ns = clock_ns()
        for _ in range(calls):
            await function()
        return (clock_ns() - started_ns) / calls / 1000

    return lambda calls: driven(loop(calls))


def driven(coroutine: Any) -> float:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return float(done.value)
    raise AssertionError("the coroutine waited")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "pinned_to_cpu": pinned_to(),
        "load_1_min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rounds": ROUNDS,
        "clock": CLOCK,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_alone(figures: Callable[[], Sequence[Figure]]) -> None:
    """What a process of one family does: its figures as one line of JSON, the last of its standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    options = parser.parse_args()
    gc.collect()
    gc.freeze()
    rows = [figure.to_dict() for figure in figures()]
    print(json.dumps(rows) if options.json else table(rows))


def number(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1g}"


def cells(row: dict[str, Any]) -> list[str]:
    """A row in words: figure, ours, theirs, least and median, goal, met."""
    base = row["base_unit"]

    def sized(value: float | None, unit: str) -> str:
        return f"{number(value)} {unit}" if value is not None else ""

    goal = "" if row["goal"] is None else f"{'>=' if row['at_least'] else '<='} {sized(row['goal'], row['unit'])}"
    return [
        row["name"],
        sized(row["ours"], base),
        sized(row["theirs"], base),
        sized(row["min"], row["unit"]),
        sized(row["median"], row["unit"]),
        goal,
        {None: "", True: "yes", False: "NO"}[row["met"]],
    ]


HEAD: Final = ("figure", "ours", "theirs", "min", "median", "goal", "met")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned columns."""
    lines = [list(HEAD), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
