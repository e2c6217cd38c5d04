"""Reporters whose extra is not installed."""

import subprocess
import sys

import pytest

CODE = """
import importlib, sys
module, reporter, library, url = sys.argv[1:]
sys.modules[library] = None
try:
    getattr(importlib.import_module(f"callbot_latency.reporters.{module}"), reporter)(url)
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "reporter", "library", "url"),
    [
        ("apprise", "AppriseReporter", "apprise", "json://host"),
        ("slack", "SlackReporter", "slack_sdk", "https://hooks.slack.com/services/x"),
    ],
)
def test_without_the_extra_one_line_says_what_to_install(module: str, reporter: str, library: str, url: str) -> None:
    """At construction, not at the first alert."""
    command = [sys.executable, "-c", CODE, module, reporter, library, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{reporter} needs {library}: pip install callbot-latency[{module}]"
