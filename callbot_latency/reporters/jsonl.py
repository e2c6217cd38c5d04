"""A line of JSON for each measurement, in a file that several processes may share."""

import errno
import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..drops import dropped
from ..guard import AtMostOncePer, delivered
from ..metric import LatencyMetric
from ..semconv import DROPPED_FAILED_SUFFIX

__all__ = ["JsonlReporter"]

_log = logging.getLogger(__name__)

NAME: Final = "jsonl"
_FAILED: Final = NAME + DROPPED_FAILED_SUFFIX
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class JsonlReporter:
    """Appends each batch by one ``write`` on ``O_APPEND``, whole lines only; mode 0600, folders are made.

    A file that was rotated or removed is opened anew. What cannot be written is counted as ``jsonl_failed`` and
    logged at most once a minute; the next batch tries again.
    """

    name = NAME

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._complain = AtMostOncePer()

    def start(self) -> None:
        """In a forked child: give up the parent's open file, whose lock would be shared. The first batch opens ours."""
        self._close()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Write a batch."""
        lines: list[bytes] = []
        for metric in batch:
            delivered(lambda m: lines.append(_line(m)), metric, _FAILED, 1)
        try:
            if lines:
                self._append(b"".join(lines))
        except OSError as error:
            self._close()
            dropped.add(_FAILED, len(lines))
            if self._complain():
                _log.error(
                    "cannot write %s: %s; measurements are lost to the file until it can be written "
                    "(LATENCY_METRICS_FILE_PATH names it)",
                    self._path,
                    error.strerror or error,
                )

    def close(self) -> None:
        """Close the file."""
        self._close()

    def _append(self, lines: bytes) -> None:
        file = self._opened()
        with _locked(file):
            size = os.fstat(file).st_size
            # A process that was killed in the middle of a write leaves half a line: ours starts on a line of its own.
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            data = b"\n" + lines if torn else lines
            if os.write(file, data) < len(data):
                # The disk is full: whole lines only. The lock keeps other writers of ours out meanwhile.
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, "No space left on device")

    def _opened(self) -> int:
        if self._file is not None and self._is_current(self._file):
            return self._file
        self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, _FLAGS, 0o600)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "not a regular file")
        self._file = file
        return file

    def _is_current(self, file: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(file))

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _line(metric: LatencyMetric) -> bytes:
    return json.dumps(metric.to_dict()).encode() + b"\n"


@contextmanager
def _locked(file: int) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
