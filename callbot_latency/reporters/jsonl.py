"""A line of JSON for each measurement, in a file that several processes may share."""

import errno
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

from ..base.fork_safe_files import open_fork_safe
from ..base.internal_errors import RateLimiter
from ..base.pacing import yielding
from ..delivery.attempt import Retry
from ..delivery.errors import PermanentError, TransientError
from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric
from ..semconv import LOGGER_JSONL
from .rotation import Rotation, is_at, locked

__all__ = ["JsonlReporter"]

_log = logging.getLogger(LOGGER_JSONL)

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

AGAIN_S: Final = 0.5
"""When a file that could not be written is tried again, in seconds."""
ATTEMPTS: Final = 100
"""How often the file may be moved away between our opening and our locking it. More is no rotation."""


class JsonlReporter:
    """Appends each batch by one ``write`` on ``O_APPEND``, whole lines only; mode 0600, folders are made.

    A file that was rotated or removed, by whomever, is opened anew. What cannot be
    written waits, which is logged at most once a minute; see `Lane` for how long.

    Args:
        path: the file, not a symbolic link; a relative one is meant from the folder that is the working one now.
        max_mb: a file that would exceed so many MB (of 1,000,000 bytes), or whose UTC day is over, is moved aside to
            ``<path>.<day>.<number>`` and compressed; 0: never.
        backups: how many of those are kept.

    """

    name: ClassVar[str] = "jsonl"
    batch_size: ClassVar[int] = 1_000
    interval_s: ClassVar[float] = 0.05
    """So long lines wait for more: one write for many, between two times that the worker is busy."""
    retry: ClassVar[Retry] = Retry(attempts=240)
    """Two minutes: what waits behind it could be written no more than this."""

    def __init__(self, path: Path, *, max_mb: float = 0, backups: int = 14) -> None:
        # Where even the working folder is gone, each write says so.
        with suppress(OSError):
            path = path.absolute()
        self._path = path
        self._held: set[int] = set()
        self._rotation = Rotation(path, max_mb, backups)
        self._complain = RateLimiter()

    def start(self) -> None:
        """In a forked child: give up the parent's open file, whose lock would be shared. The first batch opens ours."""
        self._close()
        self._rotation.restart_after_fork()

    def report(self, batch: Sequence[LatencyMetric | TurnMetric]) -> None:
        """Write a batch of measurements or of turns, each a line of its own kind.

        Raises:
            TransientError: it cannot be written now.
            PermanentError: some cannot be written as JSON; the others are written.

        """
        lines = [line for metric in yielding(batch) if (line := _line(metric)) is not None]
        refused = len(batch) - len(lines)
        try:
            if lines:
                self._append(b"".join(lines))
        except OSError as error:
            self._close()
            said = f"cannot write {self._path}: {self._explained(error)}"
            if self._complain():
                _log.error("%s (LATENCY_METRICS_FILE_PATH names it); measurements wait, as many as have room", said)
            raise TransientError(said, retry_after_s=AGAIN_S) from error
        if refused:
            raise PermanentError(f"{refused} cannot be written as JSON", refused=refused)

    report_turns = report

    def close(self) -> None:
        """Close the file, without waiting for what is being compressed."""
        self._close()
        self._rotation.close()

    def _append(self, lines: bytes) -> None:
        with self._current(len(lines)) as (file, size):
            # A process that was killed in the middle of a write leaves half a line: ours starts on a line of its own.
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            data = b"\n" + lines if torn else lines
            if os.write(file, data) < len(data):
                # The disk is full: whole lines only. The lock keeps other writers of ours out meanwhile.
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, "No space left on device")

    @contextmanager
    def _current(self, more: int) -> Iterator[tuple[int, int]]:
        """The file that is at the path, with room for `more` bytes, locked; and its size."""
        for _ in range(ATTEMPTS):
            file = self._opened()
            with locked(file):
                # Only now: while we waited for the lock, another process may have moved the file aside.
                there = os.fstat(file)
                if is_at(self._path, there) and not (
                    self._rotation.is_due(there, more) and self._rotation.move_aside(there)
                ):
                    yield file, there.st_size
                    return
            self._close()
        raise OSError(errno.EBUSY, "it is replaced again and again")

    def _opened(self) -> int:
        for file in self._held:
            return file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = open_fork_safe(self._path, _FLAGS, 0o600, self._held)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        self._rotation.start()
        return file

    def _explained(self, error: OSError) -> str:
        if error.errno == errno.ELOOP and self._path.is_symlink():
            return "is a symbolic link, which is not followed; name the file that is meant, or link its folder"
        return error.strerror or str(error)

    def _close(self) -> None:
        while self._held:
            os.close(self._held.pop())


def _line(metric: LatencyMetric | TurnMetric) -> bytes | None:
    """None for what cannot be written, so that it takes none of its batch along."""
    try:
        return json.dumps(metric.to_dict()).encode() + b"\n"
    except Exception:  # noqa: BLE001 - metadata handed in may be anything, and change meanwhile
        return None
