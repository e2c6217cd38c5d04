"""One real server as a process: started, awaited, ended, and never left behind."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

__all__ = ["ServerProcess", "StackError", "free_ports"]

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0


class StackError(RuntimeError):
    """A server did not start or ended by itself; the message holds the end of its log."""


@dataclass
class ServerProcess:
    """How a server is started, where its log is, and the address that answers once it is ready."""

    name: str
    command: list[str]
    ready: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    after_start: Callable[[], None] | None = None
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            StackError: it ended, or was not ready in time.

        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on, in our order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one prctl, no lock
            )
        self._wait_ready()
        if self.after_start:
            self.after_start()

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.ready):
            if not self.runs or time.monotonic() > deadline_s:
                why = "was not ready in time" if self.runs else "ended"
                raise StackError(f"{self.name} {why}; the end of {self.log}:\n{self.log_end()}")
            time.sleep(0.05)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.process is not None and self.runs:
            self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; SIGKILL where that takes too long."""
        if self.process is None:
            return
        self.tell(number)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_end(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


def free_ports(*names: str) -> dict[str, int]:
    """A free port of loopback for each name."""
    sockets = [socket.socket() for _ in names]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    finally:
        for one in sockets:
            one.close()


def _end_with_parent() -> None:
    """In the child: be killed when the process that started the stack is gone, however it went (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
