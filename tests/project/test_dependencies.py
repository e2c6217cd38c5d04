"""What the package imports is declared, and each dependency has its reason."""

import ast
import re
import sys
import tomllib

from tests.support.subprocesses import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OFFERED = ("slack", "apprise", "influxdb", "deploy", "instrument")
"""The extras for users; the others are for this repository."""
WRAPPED = {"openai", "httpx", "simple-salesforce"}
"""The application's own clients: imported where it asks for them to be measured."""
OTHERWISE = {"yaml": "pyyaml", "dotenv": "python-dotenv", "pydantic-core": "pydantic"}
"""Modules of another name than their package; pydantic pins its core to the very version."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    needs = [*PROJECT["dependencies"], *(need for extra in OFFERED for need in extras[extra])]
    return {plain(re.split(r"[^\w-]", need)[0]) for need in needs}


def imported() -> set[str]:
    """The modules of others that any line of the package imports, at whatever depth."""
    found = set()
    for file in (ROOT / "callbot_latency").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                # One namespace of several packages: which one, tells the module below.
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] not in {*sys.stdlib_module_names, "callbot_latency"}}


def package_of(module: str) -> str:
    """The package on the index that has it."""
    match module.split("."):
        case ["opentelemetry", "sdk", *_]:
            return "opentelemetry-sdk"
        case ["opentelemetry", "exporter", "prometheus", *_]:
            return "opentelemetry-exporter-prometheus"
        case ["opentelemetry", "instrumentation", *_]:
            return "opentelemetry-instrumentation"
        case ["opentelemetry", "context" | "metrics" | "trace" | "util", *_]:
            return "opentelemetry-api"
        case [top, *_]:
            return OTHERWISE.get(plain(top), plain(top))
    raise AssertionError(module)


def test_nothing_is_imported_that_is_not_declared() -> None:
    """Also what loads on use, and what another dependency happens to bring along."""
    packages = {package_of(module) for module in imported()}
    assert packages - declared() == WRAPPED
    # The OTLP exporter is imported by its name in a setting.
    assert declared() - packages == {"opentelemetry-exporter-otlp"}


def test_each_dependency_has_its_reason() -> None:
    """docs/architecture.md has a line for each, with the name of the extra where it is one."""
    text = (ROOT / "docs/architecture.md").read_text().split("## Dependencies, and why each")[1]
    reasons = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    named = {plain(name) for row in reasons for name in re.findall(r"[\w-]+", row.partition("(")[0])}
    named = {f"opentelemetry{name}" if name.startswith("-") else name for name in named}
    assert named - {"package", "-"} == declared()
    extras = PROJECT["optional-dependencies"]
    assert set(re.findall(r"\(extra `(\w+)`\)", text)) == set(OFFERED)
    assert {"example", "test", "check", "bench"} == set(extras) - set(OFFERED)
