"""`make bench`: every figure, each family in a process of its own, as a table, and as JSON beside it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from .harness import ROUNDS, machine, say, table

FAMILIES: Final = (
    "caller",
    "off",
    "cpu",
    "instructions",
    "compare",
    "loop_lag",
    "memory",
    "reading",
    "growth",
    "imports",
)


def figures_of(family: str) -> list[dict[str, Any]]:
    """Those of one family; its process inherits standard error for its progress."""
    say(f"{family} ...")
    command = [sys.executable, "-m", f"benchmarks.{family}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main() -> None:
    """Run, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=FAMILIES, action="append", help="this family (may be given again)")
    parser.add_argument(
        "--json", type=Path, default=Path("outputs/bench"), help="folder of the JSON files (%(default)s)"
    )
    options = parser.parse_args()
    options.json.mkdir(parents=True, exist_ok=True)
    about = machine()
    print(json.dumps(about, indent=1))
    print(f"min and median of {ROUNDS} rounds; a goal is held against the median\n")
    for family in options.only or FAMILIES:
        rows = figures_of(family)
        print(table(rows) + "\n", flush=True)
        (options.json / f"{family}.json").write_text(json.dumps({"machine": about, "figures": rows}, indent=1) + "\n")
    print(f"written to {options.json}/")


if __name__ == "__main__":
    main()
