"""What the benchmarks are made of, without measuring anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import FAMILIES
from benchmarks.figures.profile import PARTS, Part, resolve
from benchmarks.tools import docs
from benchmarks.tools.harness import Figure, interleaved, ratio, table
from tests.support.subprocesses import ROOT

PAGE = (ROOT / docs.PAGE).read_text()


def test_the_variants_take_turns() -> None:
    """None runs twice before the others have run, in any round."""
    order: list[str] = []

    def variant(name: str) -> Any:
        return lambda calls: order.append(name) or float(calls)

    values = interleaved({"a": variant("a"), "b": variant("b")}, rounds=3, chunks=4, calls=5)
    assert order == ["a", "b"] * 12
    assert values == {"a": [5.0] * 3, "b": [5.0] * 3}


def test_a_ratio_is_of_the_same_round() -> None:
    """A slow round slows both, and its ratio stays."""
    assert ratio("a / b", [10.0, 20.0], [20.0, 40.0]).values == [0.5, 0.5]


@pytest.mark.parametrize(
    ("values", "at_least", "met"),
    [([0.9, 1.0, 9.0], False, True), ([0.1, 1.1, 1.2], False, False), ([1.0, 1.0], True, True), ([0.5], True, False)],
)
def test_a_goal_is_held_against_the_median(values: list[float], at_least: bool, met: bool) -> None:
    """Neither the best round reaches it, nor does the worst miss it."""
    assert Figure("a", "x", values, 1.0, at_least=at_least).met is met


def test_what_has_no_goal_is_neither_met_nor_missed() -> None:
    """The table says nothing of it."""
    row = Figure("a", "x", [1.0]).to_dict()
    assert row["met"] is None
    assert "yes" not in table([row])
    assert "NO" not in table([row])


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.target)
def test_every_part_of_the_profile_is_a_function_that_exists(part: Part) -> None:
    """A part that was renamed would silently be missing from the table."""
    assert resolve(part.target) is not None


@pytest.mark.parametrize("name", [*FAMILIES, "profile", "sustained", "machine", "missed"])
def test_the_page_has_a_place_for_each_family(name: str) -> None:
    """What `make bench` prints can be written there."""
    assert "| new |" in docs.put(PAGE, name, "| new |")


def test_what_is_written_into_the_page_replaces_what_was_there() -> None:
    """And nothing around it."""
    once = docs.put(PAGE, "off", "first")
    assert docs.put(once, "off", "second") == once.replace("first\n<!-- end off", "second\n<!-- end off")


def test_a_missed_goal_says_by_how_much_and_what_it_would_take() -> None:
    """One that was reached is not in the list."""
    rows = [Figure("ours / ddtrace", "x", [1.5], 1.0).to_dict(), Figure("get_stats", "ms", [1.0], 2.0).to_dict()]
    assert docs.missed(rows).startswith("- **ours / ddtrace**: 1.5 x, goal <= 1 x. It would take: its span")
    assert "get_stats" not in docs.missed(rows)


def test_the_figures_of_a_folder_are_written_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family's JSON file becomes its table."""
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    monkeypatch.setattr(docs, "PAGE", page)
    report = {"figures": [Figure("nothing over nothing", "us", [0.125], 0.2).to_dict()]}
    (tmp_path / "off.json").write_text(json.dumps(report))
    docs.write_docs(tmp_path)
    assert "| nothing over nothing |  |  | 0.125 us | 0.125 us | <= 0.2 us | yes |" in page.read_text()
