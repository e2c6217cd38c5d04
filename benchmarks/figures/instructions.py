"""Instructions of a measured call, on its caller's thread and of the whole process, against a bare span's."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from callbot_latency import call

from ..tools.callgrind import counted, missing
from ..tools.harness import Figure, driven, ratio, run_alone, say
from ..tools.setup import bare_tracer, flush, measuring
from . import caller, cpu

CALLS: Final = 100
ROUNDS: Final = 7


def awaited(function: Callable[[], Any]) -> Callable[[], object]:
    """A call of what never waits."""

    async def run() -> float:
        await function()
        return 0.0

    return lambda: driven(run())


def variants(which: str) -> dict[str, Callable[[], object]]:
    """What is counted on the caller's thread, or of all threads."""
    if which == "all":
        run, flush_theirs = cpu.theirs()
        return {"ours": flushed(caller.measured, flush), "theirs": flushed(run, flush_theirs)}
    bare, bare_async = caller.bare_functions(bare_tracer())
    return {
        "loop": repeated(caller.plain),
        "bare": repeated(bare),
        "function": repeated(caller.measured),
        "context": repeated(caller.measured_block),
        "bare_async": repeated(awaited(bare_async)),
        "async": repeated(awaited(caller.measured_async)),
    }


def repeated(function: Callable[[], object]) -> Callable[[], object]:
    """So many calls."""

    def run() -> None:
        for _ in range(CALLS):
            function()

    return run


def flushed(function: Callable[[], object], flush_it: Callable[[], object]) -> Callable[[], object]:
    """So many calls as `cpu` makes at once, and what becomes of them."""

    def run() -> None:
        for _ in range(cpu.MEASUREMENTS):
            function()
        flush_it()

    return run


def dump_each(which: str) -> None:
    """What runs under callgrind: each variant warm, in rounds, and dumped under its name."""
    import collect  # type: ignore[import-not-found] # built by `callgrind`

    with measuring(), call("CA1", stream_sid="MZ1"):
        chosen = variants(which)
        for run in chosen.values():
            run()
        flush()
        collect.instrument()
        for number in range(ROUNDS):
            for name, run in chosen.items():
                collect.zero()
                run()
                collect.dump(f"{name} {number}")
                flush()


def figures() -> Sequence[Figure]:
    """On the caller's thread alone, and of all threads until all is flushed."""
    why_not = missing()
    if why_not is not None:
        say(f"  no instructions are counted: {why_not}")
        return []
    alone = counted("benchmarks.figures.instructions", "caller", one_thread=True)
    whole = counted("benchmarks.figures.instructions", "all", one_thread=False)

    def on_main(name: str) -> list[float]:
        return [(alone[f"{name} {n}"] - alone[f"loop {n}"]) / CALLS for n in range(ROUNDS)]

    def of_all(name: str) -> list[float]:
        return [whole[f"{name} {n}"] / cpu.MEASUREMENTS for n in range(ROUNDS)]

    unit = "instructions"
    return [
        ratio("instructions, decorated function / span", on_main("function"), on_main("bare"), 1.0, base_unit=unit),
        ratio("instructions, async function / span", on_main("async"), on_main("bare_async"), 1.0, base_unit=unit),
        ratio("instructions, context manager / span", on_main("context"), on_main("bare"), 1.0, base_unit=unit),
        ratio("instructions of all threads / span + histogram", of_all("ours"), of_all("theirs"), 1.6, base_unit=unit),
    ]


if __name__ == "__main__":
    if sys.argv[1:] in (["caller"], ["all"]):
        dump_each(sys.argv[1])
    else:
        run_alone(figures)
