"""What the bot forks: processes that measure for a while, and end as they should or are killed."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callbot_latency import measure_latency_context, report_manager, shutdown

EVERY_S = 0.01
PATIENCE_S = 100.0
END_WITHIN_S = 4.0
RECORD_BYTES = 4096


@dataclass
class Children:
    """Forks children that measure under names of their own, and tells how they ended.

    Args:
        folder: where each writes what it measured; not on the small disk.
        ports: of the bot and of what it asks: a child lets go of their connections, which would stay open with it.
        begin: what a child does first.
        account: what it tells of itself when it ends.

    """

    folder: Path
    ports: frozenset[int]
    begin: Callable[[], None]
    account: Callable[[str], dict[str, Any]]
    ended: dict[str, str] = field(default_factory=dict)
    forks: list[tuple[float, float]] = field(default_factory=list)
    """When each began, and when the bot went on."""
    _number: int = 0
    _watched: list[threading.Thread] = field(default_factory=list)

    def fork(self, for_s: float, *, kill: bool) -> None:
        """One more, that measures for so long, and is killed in the middle of it or ends."""
        self._number += 1
        tag = f"c{self._number}"
        began_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._live(tag, PATIENCE_S if kill else for_s)
        self.forks.append((began_s, time.monotonic()))
        watch = threading.Thread(target=self._watch, args=(tag, pid, for_s, kill), name=f"watch {tag}")
        watch.start()
        self._watched.append(watch)

    def wait(self) -> None:
        """Until all of them have ended."""
        for watch in self._watched:
            watch.join()

    def _watch(self, tag: str, pid: int, for_s: float, kill: bool) -> None:
        deadline_s = time.monotonic() + for_s + (0 if kill else PATIENCE_S)
        while time.monotonic() < deadline_s:
            over, how = os.waitpid(pid, os.WNOHANG)
            if over:
                code = os.waitstatus_to_exitcode(how)
                # gRPC knows no fork beside its threads: a child may crash in it, and is then as one who was killed.
                self.ended[tag] = "ended" if code == 0 else "crashed" if code < 0 else f"exit status {code}"
                return
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.ended[tag] = "killed" if kill else "hung"

    def _live(self, tag: str, for_s: float) -> None:
        """In the child; never returns."""
        status = 1
        try:
            self.begin()
            _let_go_of(self.ports)
            record = os.open(self.folder / f"{tag}.json", os.O_WRONLY | os.O_CREAT, 0o600)
            measured = self._measure(tag, for_s, record)
            began_s = time.monotonic()
            in_time = shutdown(END_WITHIN_S)
            told = {**self.account(tag), "measured": measured, "in_time": in_time}
            _write(record, {**told, "shutdown_s": time.monotonic() - began_s})
            status = 0
        except BaseException as error:
            with suppress(OSError):
                (self.folder / f"{tag}.error").write_text(repr(error))
        finally:
            os._exit(status)

    def _measure(self, tag: str, for_s: float, record: int) -> int:
        until_s, measured = time.monotonic() + for_s, 0
        while time.monotonic() < until_s:
            file = report_manager.status()["jsonl"]
            # What is begun is told before, what is written after it was: the file has something between the two.
            _write(record, {"tag": tag, "measured": measured + 1, "delivered": file.delivered})
            with measure_latency_context("speech_to_text", f"load_{tag}", call_sid=f"{tag}-{measured}"):
                if measured % 50 == 0:
                    time.sleep(0.003)
            measured += 1
            time.sleep(EVERY_S)
        return measured


def _write(record: int, told: dict[str, Any]) -> None:
    """In one step, so that one who is killed leaves the last or the one before it."""
    os.pwrite(record, json.dumps(told).encode().ljust(RECORD_BYTES), 0)


def _let_go_of(ports: frozenset[int]) -> None:
    """Close what was the bot's: the other end would wait for an end that this process holds up."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as held:
            if held.family == socket.AF_INET and ports & {held.getsockname()[1], *_peer(held)}:
                os.close(int(entry.name))


def _peer(held: socket.socket) -> tuple[int, ...]:
    with suppress(OSError):
        return (held.getpeername()[1],)
    return ()
