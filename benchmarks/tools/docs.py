"""Writes the figures of outputs/bench into docs/performance.md, between its markers, and draws its pictures."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .harness import HEAD, cells
from .pictures import can_draw, draw_costs, draw_growth

REASONS: Final = Path(__file__).with_name("missed.toml")
PAGE: Final = Path("docs/performance.md")
_BETWEEN: Final = r"(<!-- begin {name}[^>]*-->\n).*?(<!-- end {name} -->)"


def put(text: str, name: str, content: str) -> str:
    """The page with this content between the markers of this name.

    Raises:
        ValueError: it has none.

    """
    pattern = re.compile(_BETWEEN.format(name=re.escape(name)), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{PAGE}: no markers of {name}")
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of figures."""
    lines = [HEAD, ["---"] * len(HEAD), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(machine: dict[str, Any]) -> str:
    """The machine in a sentence or two."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    clock = {"wall": "wall clock", "thread": "CPU time of the calling thread"}[machine["clock"]]
    pinned = "not pinned" if machine.get("pinned_to_cpu") is None else "pinned to one"
    return (
        f"{machine['cpus']} CPUs ({machine['cpu']}), {pinned}; {machine['platform']}; Python {machine['python']}; "
        f"{machine['rounds']} rounds, {clock}.\n{packages}."
    )


def missed(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each goal that was not reached: by how much, and what it would take."""
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8"))["missed"]
    lines = []
    for row in rows:
        if row["met"] is False:
            takes = next(
                (each["takes"] for each in reasons if re.search(each["pattern"], row["name"])), "not known yet"
            )
            _, _, _, _, median, goal, _ = cells(row)
            lines.append(f"- **{row['name']}**: {median}, goal {goal}. It would take: {takes}.")
    return "\n".join(lines) or "Every goal was reached in the run whose figures are above."


def write_docs(folder: Path) -> None:
    """Every family that has a JSON file, and the pictures where matplotlib is installed."""
    text = PAGE.read_text(encoding="utf-8")
    found = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    for name, report in found.items():
        if name == "profile":
            text = put(text, name, report["markdown"])
        elif f"<!-- begin {name}:" in text:
            text = put(text, name, markdown(report["figures"]))
    text = put(text, "missed", missed([row for report in found.values() for row in report.get("figures", ())]))
    if "caller" in found:
        text = put(text, "machine", about(found["caller"]["machine"]))
    PAGE.write_text(text, encoding="utf-8")
    if not can_draw():
        return
    if "caller" in found:
        rivals = found["compare"]["figures"] if "compare" in found else []
        draw_costs(found["caller"]["figures"], rivals, PAGE.with_name("performance.svg"))
    if "growth" in found:
        draw_growth(found["growth"]["figures"], PAGE.with_name("growth.svg"))
