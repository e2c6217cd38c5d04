"""docs/performance.svg and docs/growth.svg, from the figures; needs matplotlib, of the extra `bench`."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

OURS: Final = "#2563eb"
OTHERS: Final = "#9ca3af"
MISSED: Final = "#dc2626"
_POINT: Final = re.compile(r"cost / bare span, (?P<size>[\d,]+) (?P<what>.+)")
_RIVAL: Final = re.compile(r"ours / (?P<name>.+)")

Row = dict[str, Any]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def _plots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures make the same file.
    mpl.rcParams.update({"svg.hashsalt": "callbot_latency", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def draw_costs(caller: Sequence[Row], compare: Sequence[Row], path: Path) -> None:
    """A measured call beside the bare span, and others beside it."""
    figure, (left, right) = _plots(1, 2, (10, 3.2))
    ratios = [row for row in caller if row["unit"] == "x" and "batch export" in row["name"]]
    names = [row["name"].split(" / ")[0] for row in ratios]
    medians = [row["median"] for row in ratios]
    colors = [OURS if row["met"] else MISSED for row in ratios]
    spans = [[row["median"] - row["min"] for row in ratios], [max(row["values"]) - row["median"] for row in ratios]]
    left.barh(names, medians, color=colors, xerr=spans, ecolor="#6b7280")
    left.set_title("a measured call, everything on")
    others = [(found["name"], row) for row in compare if (found := _RIVAL.match(row["name"]))]
    if others:
        bars = [("ours", others[0][1]["ours"]), *((name, row["theirs"]) for name, row in others)]
        bars.sort(key=lambda bar: bar[1])
        right.barh([name for name, _ in bars], [cost for _, cost in bars])
        for patch, (name, cost) in zip(right.patches, bars, strict=True):
            patch.set_color(OURS if name == "ours" else OTHERS)
            right.annotate(f"  {cost:.2f}", (cost, patch.get_y() + patch.get_height() / 2), va="center")
        right.set_title("span, histogram and threshold: least of the rounds")
    for axes in (left, right):
        axes.axvline(1, color="black", linewidth=1, linestyle="--")
        axes.invert_yaxis()
        axes.set_xlabel("times a bare OpenTelemetry span")
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_growth(rows: Sequence[Row], path: Path) -> None:
    """Each thing that may grow, on axes of its own."""
    points: dict[str, list[tuple[int, Row]]] = {}
    for row in rows:
        found = _POINT.match(row["name"])
        if found is not None:
            points.setdefault(found["what"], []).append((int(found["size"].replace(",", "")), row))
    figure, all_axes = _plots(1, len(points), (10, 2.8))
    for axes, (what, own) in zip(all_axes, points.items(), strict=True):
        sizes = [size for size, _ in own]
        axes.fill_between(
            sizes,
            [min(row["values"]) for _, row in own],
            [max(row["values"]) for _, row in own],
            color=OURS,
            alpha=0.15,
        )
        axes.plot(sizes, [row["median"] for _, row in own], marker="o", color=OURS)
        axes.axhline(1, color="black", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_ylim(0, max(1.6, *(row["median"] * 1.1 for _, row in own)))
        axes.set_title(what)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("times a bare span")
    _save(figure, path)
