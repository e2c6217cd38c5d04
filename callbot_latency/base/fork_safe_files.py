"""Files that a process opens for itself: a forked child knows each that it inherits, and closes it.

A ``flock`` belongs to the open file, which a forked child shares: the child keeps the lock of a parent that dies with
it. A child closes what it finds in a set of descriptors. One that another thread of the parent has opened at the fork,
but not yet put there, it cannot find; so the parent, whose thread sees that a fork came, closes that one unlocked and
opens the file once more.
"""

import os
from pathlib import Path
from time import sleep
from typing import Final

__all__ = ["open_fork_safe"]

_UNDER_WAY_S: Final = 0.001
_TRIES: Final = 200
"""As many forks in a row, or one that takes a fifth of a second: then the file is opened all the same."""

_begun = 0
_over = 0


def open_fork_safe(path: Path, flags: int, mode: int, held: set[int]) -> int:
    """A descriptor of the file, in `held` before anybody can lock it, and in no forked child that does not know it.

    Raises:
        OSError: it cannot be opened.

    """
    global _over  # noqa: PLW0603 - forks are the process' own
    for _ in range(_TRIES):
        before = _begun
        if _over == before:
            file = _open(path, flags, mode, held)
            if _begun == before:
                return file
            held.discard(file)
            os.close(file)
        sleep(_UNDER_WAY_S)  # the fork waits for nobody
    _over = _begun  # an exception of a signal handler of the application may have cut one of the hooks short
    return _open(path, flags, mode, held)


def _open(path: Path, flags: int, mode: int, held: set[int]) -> int:
    file = os.open(path, flags, mode)
    held.add(file)
    return file


def _before_fork() -> None:
    global _begun  # noqa: PLW0603 - forks are the process' own
    _begun += 1


def _after_fork_in_parent() -> None:
    global _over  # noqa: PLW0603
    _over += 1


def _after_fork_in_child() -> None:
    global _over  # noqa: PLW0603
    _over = _begun  # of two forks at once each child has one


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
