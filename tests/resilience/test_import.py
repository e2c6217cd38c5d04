"""Importing the package starts nothing and costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.subprocesses import at_once, clean_environment, facts_of

WATCHED = """
import json, os, sys, threading

def state():
    # Not the folder that is listed, which is closed by now, nor what a newer libffi keeps open for ctypes.
    links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    held = sorted(os.readlink(link) for link in links if os.path.lexists(link))
    return [target for target in held if "/libffi.so" not in target], [thread.name for thread in threading.enumerate()]

class Recording(dict):
    read = set()
    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)
    def __contains__(self, key):
        self.read.add(key)
        return super().__contains__(key)
    def __iter__(self):
        self.read.add("every name")
        return super().__iter__()
    def keys(self):
        self.read.add("every name")
        return super().keys()
    def items(self):
        self.read.add("every name")
        return super().items()

before = state()
os.environ = Recording(os.environ)
os.getenv = os.environ.get
files = []

def watch(event, args):
    if event == "open" and args[1] is not None and "r" not in args[1]:
        files.append(str(args[0]))

sys.addaudithook(watch)
"""


def run_watched(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` after the beginning that watches what it does to the process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCHED + code],
        cwd=cwd,
        env=clean_environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.promise("import")
def test_import_starts_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    """No thread, descriptor, file, environment read or output; no SDK, no settings, no transport."""
    done = run_watched(
        """
import callbot_latency
after = state()
heavy = ["opentelemetry.sdk", "pydantic", "pydantic_settings", "structlog", "grpc", "google.protobuf", "requests"]
print("FACTS " + json.dumps({
    "same": before == after, "read": sorted(os.environ.read), "files": files,
    "heavy": [name for name in heavy if name in sys.modules],
}))
""",
        tmp_path,
    )
    assert facts_of(done) == {"same": True, "read": [], "files": [], "heavy": []}
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("import")
def test_loading_every_public_name_starts_nothing(tmp_path: Path) -> None:
    """Also with each public name loaded: no thread, no descriptor, no file, no output, and no setting of ours read."""
    done = run_watched(
        """
import callbot_latency
for name in callbot_latency.__all__:
    getattr(callbot_latency, name)
from callbot_latency.semconv import ENVIRONMENT
after = state()
ours = sorted(name for name in os.environ.read if name in ENVIRONMENT or name.startswith("LATENCY_"))
print("FACTS " + json.dumps({"same": before == after, "files": files, "ours": ours}))
""",
        tmp_path,
    )
    assert facts_of(done) == {"same": True, "files": [], "ours": []}
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def loaded_by(code: str, cwd: Path) -> set[str]:
    """The modules that are there after `code`."""
    done = run_watched(code + '\nprint("FACTS " + json.dumps({"loaded": sorted(sys.modules)}))', cwd)
    return set(facts_of(done)["loaded"])


@pytest.mark.promise("import")
def test_the_decorator_loads_fewer_modules_than_the_sdk_of_traces(tmp_path: Path) -> None:
    """What an import costs, without a clock: 25 modules of ours at most, and 8 that the SDK does not load itself."""
    codes = ("import callbot_latency; callbot_latency.measure_latency", "import opentelemetry.sdk.trace")
    ours, theirs = at_once(lambda code: loaded_by(code, tmp_path), codes)
    beyond = ours - theirs
    of_us = {name for name in beyond if name.partition(".")[0] == "callbot_latency"}
    assert len(of_us) <= 25, sorted(of_us)
    assert len(beyond - of_us) <= 8, sorted(beyond - of_us)
    assert len(ours) < len(theirs)
