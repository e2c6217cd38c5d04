"""`make bench`: every figure, each family in a process of its own, as a table, and as JSON beside it."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from .tools.docs import write_docs
from .tools.harness import ROUNDS, machine, say, table

FAMILIES: Final = (
    "caller",
    "off",
    "tail",
    "cpu",
    "instructions",
    "compare",
    "loop_lag",
    "memory",
    "reading",
    "growth",
    "imports",
)
PROFILE: Final = "profile"


def figures_of(family: str) -> list[dict[str, Any]]:
    """Those of one family; its process inherits standard error for its progress."""
    command = [sys.executable, "-m", f"benchmarks.figures.{family}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def run(family: str, folder: Path, about: dict[str, Any]) -> None:
    """Measure, print, and write the JSON."""
    say(f"{family} ...")
    started_s = time.monotonic()
    if family == PROFILE:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.figures.profile", f"--json={folder}/profile.json"], check=True
        )
    else:
        rows = figures_of(family)
        if rows:
            print(table(rows) + "\n", flush=True)
            report = {"machine": about, "figures": rows}
            (folder / f"{family}.json").write_text(json.dumps(report, indent=1) + "\n")
    say(f"  {family} took {time.monotonic() - started_s:.0f} s")


def main() -> None:
    """Run, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    families = [*FAMILIES, PROFILE]
    parser.add_argument("--only", choices=families, action="append", help="this family (may be given again)")
    parser.add_argument(
        "--write-docs", action="store_true", help="the profile too, and all of it into docs/performance.md"
    )
    parser.add_argument("--docs-only", action="store_true", help="measure nothing: what --json has, into the docs")
    parser.add_argument(
        "--json", type=Path, default=Path("outputs/bench"), help="folder of the JSON files (%(default)s)"
    )
    options = parser.parse_args()
    options.json.mkdir(parents=True, exist_ok=True)
    if not options.docs_only:
        about = machine()
        print(json.dumps(about, indent=1))
        print(f"min and median of {ROUNDS} rounds; a goal is held against the median\n", flush=True)
        for family in options.only or (families if options.write_docs else FAMILIES):
            run(family, options.json, about)
        print(f"written to {options.json}/")
    if options.write_docs or options.docs_only:
        write_docs(options.json)


if __name__ == "__main__":
    main()
