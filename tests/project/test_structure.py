"""Modules and functions of the package stay small enough to read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import callbot_latency

PACKAGE = Path(callbot_latency.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def functions_of(module: Path) -> Iterator[tuple[str, int]]:
    """Each function with its number of lines, its docstring not counted."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_no_module_has_more_than_350_lines() -> None:
    """A longer one does two things."""
    assert [str(module) for module in MODULES if len(module.read_text().splitlines()) > 350] == []


def test_no_function_has_more_than_40_lines() -> None:
    """Its docstring is not counted."""
    assert [(module.name, name) for module in MODULES for name, lines in functions_of(module) if lines > 40] == []


def test_no_folder_has_more_than_12_modules() -> None:
    """Besides its `__init__`."""
    folders = {module.parent for module in MODULES}
    crowded = {folder: [each for each in folder.glob("*.py") if each.name != "__init__.py"] for folder in folders}
    assert [folder.name for folder, modules in crowded.items() if len(modules) > 12] == []
