"""`make stack` and the harness of these tests: real servers come and go, and none stays behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from devservers import servers
from devservers.processes import StackError
from devservers.stack import NAMES, Stack, main, missing_servers
from tests.support.subprocesses import ROOT, clean_environment

Binary = Callable[[str], Path]


def _pids_with(word: str) -> list[int]:
    """Processes whose command line holds `word`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "cmdline").read_text() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _gone(pids: list[int]) -> bool:
    """Whether none of them runs any more; one that nobody has waited for is gone too."""
    states = []
    for pid in pids:
        try:
            states.append((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return set(states) <= {"Z", "X"}


def _started(folder: Path, names: str) -> "subprocess.Popen[str]":
    """`python -m devservers.stack` in a process of its own, once all of its servers are ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "devservers.stack", f"--servers={names}"],
        cwd=ROOT,
        env=clean_environment({"TMPDIR": str(folder)}),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Ctrl-C ends"):
            return process
    pytest.fail("the stack did not start")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_every_server_ends_with_the_command(number: signal.Signals, tmp_path: Path, binary: Binary) -> None:
    """Ctrl-C and SIGTERM end the servers and remove their folder."""
    binary("pushgateway")
    binary("alertmanager")
    with _started(tmp_path, "pushgateway,alertmanager") as process:
        pids = _pids_with(str(tmp_path))
        assert pids
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (0 if number is signal.SIGINT else 128 + number)
    assert _gone(pids)
    assert list(tmp_path.iterdir()) == []


def test_servers_do_not_outlive_a_killed_command(tmp_path: Path, binary: Binary) -> None:
    """Even SIGKILL, which nothing can answer, leaves no server behind."""
    binary("alertmanager")
    with _started(tmp_path, "alertmanager") as process:
        pids = _pids_with(str(tmp_path))
        assert pids
        process.kill()
        process.wait(60)
    # The kernel signals them as their parent dies; they are gone at the next look or the one after.
    for _ in range(1_200):
        if _gone(pids):
            break
        signal.sigtimedwait([], 0.05)
    assert _gone(pids)


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path, binary: Binary) -> None:
    """The error names the server and has the end of its log; what had started is ended."""
    binary("pushgateway")
    binary("alertmanager")
    (tmp_path / "alertmanager").write_text("a file, where it wants a folder")
    stack = Stack(["pushgateway", "alertmanager"], folder=tmp_path)
    with pytest.raises(StackError, match=r"(?s)alertmanager ended.*not a directory"), stack:
        pass
    assert stack.running() == []


def test_a_server_killed_and_started_again_has_its_address(tmp_path: Path, binary: Binary) -> None:
    """Whoever sends to it need not know that it was away."""
    binary("pushgateway")
    with Stack(["pushgateway"], folder=tmp_path) as stack:
        address = f"{stack.url('pushgateway')}/-/ready"
        stack.kill("pushgateway")
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
        stack.start("pushgateway")
        assert httpx.get(address).is_success


def test_an_unknown_server_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists those that there are."""
    with pytest.raises(SystemExit):
        main(["--servers=jeager"])
    told = capsys.readouterr().err
    assert "unknown jeager" in told
    assert all(name in told for name in NAMES)


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with neither servers, Go, apt-get nor a package index."""
    monkeypatch.setenv("CALLBOT_STACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.usefixtures("nothing_here")
def test_what_is_missing_is_said_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Lenient: every missing server is named, with what was tried, and that its tests are not run; else a failure."""
    missing = missing_servers(say=lambda _: None)
    assert set(missing) == set(NAMES)
    assert "Go failed" in missing["jaeger"]
    assert "put prometheus and promtool on PATH" in missing["prometheus"]
    assert main(["--build-only", "--lenient", "--servers=prometheus,alertmanager"]) == 0
    told = capsys.readouterr().out
    assert "MISSING prometheus" in told
    assert "What needs prometheus, alertmanager is not tested." in told
    assert main(["--build-only", "--servers=prometheus"]) == 1
    with pytest.raises(servers.MissingServerError, match="no promtool on PATH"):
        servers.binary("promtool")


@pytest.mark.skipif(not Path("/usr/bin/apt-get").exists(), reason="apt-get is Debian's")
def test_debian_packages_are_unpacked_beside_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fetched into the cache, where it runs: nothing is installed, no service is started."""
    monkeypatch.setenv("CALLBOT_STACK_CACHE", str(tmp_path))
    monkeypatch.setattr(servers.shutil, "which", lambda name, **_: "/usr/bin/apt-get" if name == "apt-get" else None)
    servers.obtain("pushgateway", print)
    command = servers.binary("pushgateway")
    assert command.is_relative_to(tmp_path)
    assert subprocess.run([command, "--version"], check=True, capture_output=True).returncode == 0
