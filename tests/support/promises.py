"""The test column of docs/reliability.md, from the tests' markers.

A test that holds a promise has the mark ``@pytest.mark.promise("name", ...)`` with the names of the page's rows.
``python -m tests.support.promises`` writes the column; a test fails while the page and the marks differ.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.subprocesses import ROOT

PAGE = ROOT / "docs" / "reliability.md"
TEST_COLUMN = 3
"""Place of the test column; the first column holds the promise's name."""
_CELLS = re.compile(r"(?<!\\)\|")
_NAME = re.compile(r"`([a-z0-9-]+)`")


def held_promises() -> dict[str, list[str]]:
    """The names of the tests that hold each promise, by the promise's name: ``tests/file.py::test_name``."""
    held: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test, promises in _marked(path):
            for promise in promises:
                held[promise].append(f"{path.relative_to(ROOT)}::{test}")
    return dict(held)


def _marked(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each marked test of a file, with the names in its mark."""
    source = path.read_text()
    if "mark.promise(" not in source:
        return
    for node in ast.parse(source).body:
        for mark in getattr(node, "decorator_list", []):
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                yield node.name, [ast.literal_eval(name) for name in mark.args]  # type: ignore[attr-defined]


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of each row that names a promise, by its name."""
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in _CELLS.split(line)[1:-1]]
        name = _NAME.fullmatch(cells[0]) if cells else None
        if name is not None:
            rows[name[1]] = cells
    return rows


def with_tests(page: str, held: Mapping[str, Sequence[str]]) -> str:
    """The page, with the tests that hold each promise in its row."""
    lines = []
    rows = rows_of(page)
    for line in page.splitlines():
        name = _NAME.match(line.removeprefix("| "))
        if name is not None and name[1] in rows:
            cells = rows[name[1]]
            cells[TEST_COLUMN] = ", ".join(f"`{test}`" for test in held.get(name[1], ()))
            line = f"| {' | '.join(cells)} |"  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_tests(PAGE.read_text(), held_promises()))
