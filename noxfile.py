"""The unit tests on each Python that is found, with the newest of what we depend on or the oldest that we claim.

`make test-matrix` runs it, and says which Pythons are missing.
"""

import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Those need servers, packages in environments of their own, or a machine that does nothing else.
LEFT_OUT = [f"--ignore=tests/{name}" for name in ("accuracy", "chaos", "e2e", "recordings", "resilience")]


def oldest_claimed() -> list[str]:
    """Each dependency of the package and of what it offers as an extra, at its lower bound."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    claimed = [*project["dependencies"]]
    for extra in ("slack", "apprise", "influxdb", "deploy", "instrument"):
        claimed += extras[extra]
    return [need.replace(">=", "==") for need in claimed]


def run_tests(session: nox.Session) -> None:
    """The unit tests, or what is named after `--`."""
    session.run("python", "-m", "pytest", *(session.posargs or LEFT_OUT))


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """With the newest of everything."""
    session.install("-e", ".[example,test]")
    run_tests(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """With the oldest of what is claimed."""
    session.install("-e", ".[example,test]", *oldest_claimed())
    run_tests(session)
