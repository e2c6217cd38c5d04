"""The metrics file on a system that takes a batch, or does not: by limits, permissions and what is in its place."""

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

from callbot_latency import LatencyMetric, TransientError, TurnMetric
from callbot_latency.reporters.jsonl import JsonlReporter
from callbot_latency.testing import Answer, Server

HALF_A_BATCH = 500
NOBODY = 65_534
_numbers = count()


class FaultyFile:
    """A reporter to a real file, for `check_reporter_contract`; not beside anything else that writes to a disk.

    Attributes:
        refused: names of the errors that the system gave.
        halves: how often the system wrote a part of a batch.

    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.refused: set[str] = set()
        self.halves = 0
        self._folder = Path(f"{server.scenario}_{next(_numbers)}").absolute()
        self._folder.mkdir(mode=0o700)
        self._path = self._folder / "metrics.jsonl"
        self._file = JsonlReporter(self._path)
        self._size = 0
        self._faults = cycle([self._full, self._closed, self._replaced])

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        self._play(self._file.report, batch)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        self._play(self._file.report_turns, turns)

    def close(self) -> None:
        self._file.close()

    def _play(self, write: Callable[[Sequence], None], batch: Sequence) -> None:
        well = self.server.request(()) is Answer.TAKE
        try:
            if well:
                write(batch)
            else:
                with next(self._faults)():
                    write(batch)
        except TransientError as error:
            cause: OSError = error.__cause__
            self.refused.add(errno.errorcode[cause.errno])
            raise
        finally:
            self.server.taken += self._new_ids()

    def _new_ids(self) -> list[str]:
        """What stands in the file since the last look, each line of which must be whole."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._size)
            written = file.read()
        self._size += len(written)
        assert written.endswith(b"\n") or not written
        return [json.loads(line)["call_sid"] for line in written.splitlines()]

    @contextmanager
    def _full(self) -> Iterator[None]:
        """Half a batch has room: the write is short."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size + HALF_A_BATCH, limits[1]))
        self.halves += 1
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    @contextmanager
    def _closed(self) -> Iterator[None]:
        """Nobody may enter the folder; root, who always may, is somebody else meanwhile."""
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
            try:
                yield
            finally:
                os.seteuid(0)
        else:
            self._folder.chmod(0)
            try:
                yield
            finally:
                self._folder.chmod(0o700)

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """A folder where the file should be."""
        aside = self._path.with_suffix(".aside")
        there = self._path.exists()
        if there:
            self._path.rename(aside)
        self._path.mkdir()
        try:
            yield
        finally:
            self._path.rmdir()
            if there:
                aside.rename(self._path)
