"""A file that grows is moved aside by size and by day; what was moved is compressed, and the oldest removed.

Several processes share the file without knowing of each other. Two rules keep every line:

- Whoever writes or moves the file holds its ``flock``, and looks once more, with the lock, whether the path still leads
  to it. So nobody writes into a file that was moved, except one who had the lock before.
- Whoever compresses a moved file takes its lock once, after which nobody writes into it any more. The lock on the
  archive that is being made lets one process alone make it; with that process' death it is free again.

A process that dies leaves at worst the moved file beside half an archive: the next start or rotation makes it anew.
"""

import fcntl
import gzip
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from time import monotonic, time
from typing import Final, NamedTuple

from ..base.fork_safe_files import open_fork_safe
from ..base.internal_errors import RateLimiter, call_safely
from ..semconv import LOGGER_ROTATION

__all__ = ["Backup", "Backups", "Rotation", "backups_of", "is_at", "locked"]

_log = logging.getLogger(LOGGER_ROTATION)

BYTES_OF_A_MB: Final = 1_000_000
SLICE_BYTES: Final = 1 << 18
"""How much is compressed before the thread looks whether it should end: some milliseconds."""
RETRY_S: Final = 60.0
"""After a rotation that failed the file grows on for so long before the next attempt."""
CLOSE_WAIT_S: Final = 0.2
"""How long `Backups.close` waits for a slice; the thread is a daemon and keeps no exit waiting."""

_DAY_S: Final = 86_400
_PRIVATE: Final = 0o600
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ARCHIVE, _HALF = ".gz", ".gz.part"


class Backup(NamedTuple):
    """A file that was moved aside: the UTC day of its last line, and its number on that day. Sorts by age."""

    day: str
    number: int

    def beside(self, path: Path, suffix: str = "") -> Path:
        """Where it is: ``<path>.<day>.<number>``."""
        return path.with_name(f"{path.name}.{self.day}.{self.number}{suffix}")


def backups_of(path: Path) -> dict[Backup, set[str]]:
    """What was moved aside of `path`, and in which forms: ``""`` as it was, ``.gz``, and ``.gz.part`` for half of one.

    Raises:
        OSError: the folder cannot be read.

    """
    name = re.compile(re.escape(path.name) + r"\.(\d{4}-\d\d-\d\d)\.([1-9]\d{0,8})(|\.gz|\.gz\.part)")
    found: dict[Backup, set[str]] = {}
    for there in os.listdir(path.parent):  # noqa: PTH208 - names alone, without a Path for each
        if match := name.fullmatch(there):
            found.setdefault(Backup(match[1], int(match[2])), set()).add(match[3])
    return found


@contextmanager
def locked(file: int) -> Iterator[None]:
    """Hold the file's lock. It is given up by name: a forked child may have the same open file."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


class Rotation:
    """Moves the file at `path` aside when it is full or its day is over.

    Args:
        path: the file, absolute.
        max_mb: how much it may hold, in MB of 1,000,000 bytes; 0: it grows without end, and is never moved.
        backups: how many of those that were moved are kept; 0: none.

    """

    def __init__(self, path: Path, max_mb: float, backups: int) -> None:
        self._path = path
        self._max_bytes = int(max_mb * BYTES_OF_A_MB)
        self._on = max_mb > 0
        self._looked = False
        self._not_before_s = float("-inf")
        self.backups: Backups = Backups(path, backups)

    def start(self) -> None:
        """Once: finish what an earlier process left; where nothing is left, nothing but a look at the folder."""
        if self._on and not self._looked:
            self._looked = True
            self.backups.wake(only_if_needed=True)

    def is_due(self, there: os.stat_result, more: int) -> bool:
        """Whether the file `there` should be moved aside before `more` bytes are added to it.

        Its day is the UTC day of its last line, as the file system has it: the same for every process, and after a
        restart. A file without a line stays, and so does one whose day is still to come for a clock that was set back.
        """
        if not self._on or not there.st_size:
            return False
        is_full = there.st_size + more > self._max_bytes
        return (is_full or int(there.st_mtime) // _DAY_S < int(time()) // _DAY_S) and monotonic() >= self._not_before_s

    def move_aside(self, there: os.stat_result) -> bool:
        """Move the file aside, whose lock the caller holds, and have it compressed.

        Returns:
            False when that cannot be: the file stays where it is, and takes further lines.

        """
        try:
            day = datetime.fromtimestamp(there.st_mtime, UTC).date().isoformat()
            taken = [backup.number for backup in backups_of(self._path) if backup.day == day]
            # A disk may have room for lines, but for no other file: then the one that there is goes on.
            TemporaryFile(dir=self._path.parent).close()
            self._path.rename(Backup(day, max(taken, default=0) + 1).beside(self._path))
        except (OSError, ValueError, OverflowError) as error:  # a file may be of the year 10000
            self._not_before_s = monotonic() + RETRY_S
            _log.error(
                "cannot rotate %s: %s; it grows on, and nothing is lost; next attempt in %g s",
                self._path,
                getattr(error, "strerror", None) or error,
                RETRY_S,
            )
            return False
        self.backups.wake()
        return True

    def restart_after_fork(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._looked = False
        self.backups.restart_after_fork()

    def close(self) -> None:
        """Stop compressing; what is left is for the next start."""
        self.backups.close()


class Backups:
    """Compresses what was moved aside and removes what exceeds `keep`, on a thread that starts when there is work."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._complain = RateLimiter()
        self._held: set[int] = set()
        self._reset()

    def _reset(self) -> None:
        self._work: SimpleQueue[bool] = SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self, *, only_if_needed: bool = False) -> None:
        """Have the thread look; never waits."""
        if only_if_needed and not self._is_work():
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="callbot_latency.backups", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter ends, or has no thread left: the next start finds what there is to do.
                return
            self._thread = thread
        self._work.put(True)

    def _is_work(self) -> bool:
        try:
            found = backups_of(self._path)
        except OSError:
            return False
        return len(found) > self._keep or any(forms != {_ARCHIVE} for forms in found.values())

    def close(self) -> None:
        """End the thread between two slices."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._work.put(False)
            thread.join(CLOSE_WAIT_S)
            self._reset()

    def restart_after_fork(self) -> None:
        """In a forked child: give up what the parent is compressing, whose lock and bytes would outlive the parent."""
        if self._thread is None or self._thread.is_alive():
            return
        while self._held:
            os.close(self._held.pop())
        self._reset()

    def _run(self) -> None:
        work, stop = self._work, self._stop
        while work.get() and not stop.is_set():
            call_safely(self.tidy, stop)

    def tidy(self, stop: threading.Event) -> None:
        """Remove the oldest, then compress the others, the oldest first, until `stop` is set."""
        try:
            found = backups_of(self._path)
        except OSError as error:
            self._log_error(error)
            return
        whole = sorted(backup for backup, forms in found.items() if forms != {_HALF})
        too_old = set(whole[: max(0, len(whole) - self._keep)])
        for backup, forms in sorted(found.items()):
            if stop.is_set():
                return
            try:
                if backup in too_old:
                    for form in forms:
                        backup.beside(self._path, form).unlink(missing_ok=True)
                elif "" in forms:
                    self._compress(backup, stop)
                elif _HALF in forms:
                    self._remove_half(backup)
            except OSError as error:  # the next one may do all the same
                self._log_error(error)

    def _log_error(self, error: OSError) -> None:
        if self._complain():
            _log.error(
                "cannot compress or remove what was moved aside of %s: %s; nothing is lost, it is tried again at the "
                "next rotation or start",
                self._path,
                error.strerror or error,
            )

    def _compress(self, backup: Backup, stop: threading.Event) -> None:
        plain, half = backup.beside(self._path), backup.beside(self._path, _HALF)
        with self._open(half, os.O_CREAT) as archive:
            try:
                fcntl.flock(archive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not is_at(half, os.fstat(archive)):
                    return  # another process has just finished it
                if self._compressed(plain, archive, stop) and is_at(half, os.fstat(archive)):
                    half.rename(backup.beside(self._path, _ARCHIVE))
                    plain.unlink(missing_ok=True)
                else:
                    half.unlink(missing_ok=True)
            except BlockingIOError:
                return  # another process is at it
            except FileNotFoundError:
                half.unlink(missing_ok=True)  # it was compressed, or removed as the oldest, since we looked
            except OSError:
                half.unlink(missing_ok=True)
                raise
            finally:
                fcntl.flock(archive, fcntl.LOCK_UN)

    def _compressed(self, plain: Path, archive: int, stop: threading.Event) -> bool:
        with self._open(plain) as source:
            with locked(source):
                pass  # whoever was writing into it has finished, and nobody begins
            os.ftruncate(archive, 0)
            with (
                os.fdopen(archive, "wb", closefd=False) as target,
                gzip.GzipFile(fileobj=target, filename="", mode="wb", compresslevel=6) as packed,
            ):
                while part := os.read(source, SLICE_BYTES):
                    began_s = monotonic()
                    packed.write(part)
                    # As long a pause as a slice took: the application keeps half a core, whatever the size.
                    if stop.wait(monotonic() - began_s):
                        return False
        os.fsync(archive)
        return True

    @contextmanager
    def _open(self, path: Path, flags: int = 0) -> Iterator[int]:
        file = open_fork_safe(path, _OPEN | flags, _PRIVATE, self._held)
        try:
            yield file
        finally:
            self._held.discard(file)
            os.close(file)

    def _remove_half(self, backup: Backup) -> None:
        """Half an archive whose source somebody took away; one that is being finished has another name by now."""
        if not backup.beside(self._path).exists():
            backup.beside(self._path, _HALF).unlink(missing_ok=True)


def is_at(path: Path, file: os.stat_result) -> bool:
    """Whether `path` leads to `file`, itself and not by a link."""
    try:
        return os.path.samestat(path.lstat(), file)
    except FileNotFoundError:
        return False
