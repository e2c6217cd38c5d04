"""Where the time of a measured call goes: instructions of each part of its caller's path, beside the bare span's.

Each part is a function, counted by callgrind from its first instruction to its last while the whole path runs, one
part in a run. Parts lie within each other, as the indentation shows; `own` is a part less those within it.
"""

import argparse
import gc
import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Final

from callbot_latency import call
from callbot_latency.measuring.active_session import active
from callbot_latency.runtime import otel_providers as providers

from ..tools.callgrind import counted, missing
from ..tools.harness import say
from ..tools.setup import bare_tracer, flush, measuring
from . import caller

CALLS: Final = 100
SOURCE: Final = Path(__file__).with_name("parts.toml")
WHOLE: Final = "whole"
WITH_COLLECTOR: Final = "with the garbage collector"


@dataclass(frozen=True)
class Part:
    """A function on the path, how deep it lies in the others, and why it is there."""

    depth: int
    name: str
    target: str
    why: str


PARTS: Final = tuple(Part(**part) for part in tomllib.loads(SOURCE.read_text())["part"])


def resolve(target: str) -> tuple[Any, str, Any] | None:
    """What holds a function, the function's name there, and the function."""
    module, path = target.split(":")
    holder: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for each in outer:
        holder = getattr(holder, each, None)
    function = None if holder is None else vars(holder).get(name)
    return None if function is None else (holder, name, function)


def places(function: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Where else it is kept: under a name in a module, or bound to an object in one of ours."""
    for module in [*sys.modules.values()]:
        for name, value in [*vars(module).items()]:
            if value is function:
                yield vars(module), name, None
    session = active.session
    for owner in (session, getattr(session, "spans", None), providers._relay):  # noqa: SLF001 - where ours keep them
        for name, value in [*vars(owner).items()] if hasattr(owner, "__dict__") else ():
            if isinstance(value, MethodType) and value.__func__ is function:
                yield vars(owner), name, value.__self__


@contextmanager
def counting(target: str, counted_type: Any) -> Iterator[bool]:
    """Count what this function runs, wherever it is called from; False where there is none of that name."""
    found = resolve(target)
    if found is None:
        yield False
        return
    holder, name, function = found
    put = counted_type(function)
    kept = [(space, at, space[at], owner) for space, at, owner in places(function)]
    for space, at, _, owner in kept:
        space[at] = put if owner is None else MethodType(put, owner)
    setattr(holder, name, put)
    try:
        yield True
    finally:
        setattr(holder, name, function)
        for space, at, value, _ in kept:
            space[at] = value


def dump_each() -> None:
    """What runs under callgrind."""
    import collect  # type: ignore[import-not-found,unused-ignore] # built by `callgrind`

    bare, _ = caller.bare_functions(bare_tracer())
    paths: dict[str, Callable[[], object]] = {"ours": caller.measured, "bare": bare, "loop": caller.plain}

    def dump(name: str, around: Callable[[], None]) -> None:
        for path, function in paths.items():
            for _ in range(CALLS // 4):
                function()
            collect.zero()
            around()
            for _ in range(CALLS):
                function()
            around()
            collect.dump(f"{path} {name}")
        flush()

    with measuring(), call("CA1", stream_sid="MZ1"):
        for function in paths.values():
            for _ in range(CALLS):
                function()
        flush()
        collect.instrument()
        dump(WITH_COLLECTOR, collect.toggle)
        # Else it would run in whichever part allocates the one object too many.
        gc.collect()
        gc.disable()
        dump(WHOLE, collect.toggle)
        for part in PARTS:
            with counting(part.target, collect.Counted) as found:
                if found:
                    dump(part.target, lambda: None)


@dataclass(frozen=True)
class Row:
    """Instructions of a part in a call of ours, and in a bare span; `own` without the parts within."""

    part: Part
    ours: float
    ours_own: float
    bare: float


def rows() -> list[Row]:
    """The whole first, then its parts."""
    counts = counted("benchmarks.figures.profile", "--inside", one_thread=True, from_start=False)

    def of(path: str, name: str) -> float:
        return counts.get(f"{path} {name}", 0) / CALLS

    parts = [part for part in PARTS if of("ours", part.target) or of("bare", part.target)]
    ours = {part.target: of("ours", part.target) for part in parts}
    made = []
    for place, part in enumerate(parts):
        own = ours[part.target] - sum(ours[inner.target] for inner in within(parts, place) if ours[part.target])
        made.append(Row(part, ours[part.target], own, of("bare", part.target)))
    return [*totals(of, sum(ours[part.target] for part in parts if part.depth == 0)), *made]


def totals(of: Callable[[str, str], float], below: float) -> list[Row]:
    """The call as a whole, with and without the garbage collector."""
    empty = of("loop", WHOLE)
    ours, bare = of("ours", WHOLE) - empty, of("bare", WHOLE) - empty
    collected, collected_bare = (of(path, WITH_COLLECTOR) - of(path, WHOLE) for path in ("ours", "bare"))
    call_itself = Part(-1, "a measured call", WHOLE, "the wrapper, its guard, and all below")
    collector = Part(-1, "garbage collector", WITH_COLLECTOR, "runs by how much is allocated")
    return [
        Row(call_itself, ours, ours - below, bare),
        Row(collector, collected, collected, collected_bare),
    ]


def within(parts: Sequence[Part], place: int) -> Iterator[Part]:
    """The parts right within one."""
    for inner in range(place + 1, len(parts)):
        if parts[inner].depth <= parts[place].depth:
            return
        if parts[inner].depth == parts[place].depth + 1:
            yield parts[inner]


def markdown(made: Sequence[Row]) -> str:
    """A table for docs/performance.md."""

    def cell(count: float) -> str:
        return f"{count:,.0f}" if count else ""

    lines = [
        "| part | measured call | of that its own | bare span | why it is there |",
        "|---|---|---|---|---|",
        *(
            f"| {'&nbsp;&nbsp;' * (row.part.depth + 1)}{row.part.name} | {cell(row.ours)} | {cell(row.ours_own)} "
            f"| {cell(row.bare)} | {row.part.why} |"
            for row in made
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures.profile", description=__doc__)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("outputs/bench/profile.json"), help="(%(default)s)")
    options = parser.parse_args()
    if options.inside:
        dump_each()
        return
    why_not = missing()
    if why_not is not None:
        raise SystemExit(f"no instructions are counted: {why_not}")
    say("profile ...")
    made = rows()
    for row in made:
        name = "  " * (row.part.depth + 1) + row.part.name
        print(f"{name:32} {row.ours:>10,.0f} {row.ours_own:>10,.0f} {row.bare:>10,.0f}  {row.part.why}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "instructions": [vars(row.part) | {"ours": row.ours, "own": row.ours_own, "bare": row.bare} for row in made]
    }
    options.json.write_text(json.dumps(table | {"markdown": markdown(made)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
