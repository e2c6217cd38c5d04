"""A small disk for the metrics file, which is filled to its last byte and freed again."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SIZE_MB = 64


class SmallDisk:
    """A tmpfs where this user may mount one; else the processes that write take a limit on the size of their files.

    Args:
        folder: where it is.

    Attributes:
        tell: tells the bot a command; its limit is what stands for the disk without a mount.

    """

    tell: Callable[..., None]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
        self.is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def __str__(self) -> str:
        return (
            f"a tmpfs of {SIZE_MB} MB" if self.is_mounted else "a limit on the size of files (no tmpfs for this user)"
        )

    def fill(self) -> None:
        """From now on there is no room for another byte."""
        if not self.is_mounted:
            self.tell("limit", full=True)
            return
        with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 10, 1):
                with suppress(OSError):
                    while filler.write(b"\0" * size):
                        pass

    def free(self) -> None:
        """Everything as before."""
        if self.is_mounted:
            (self.folder / "filler").unlink(missing_ok=True)
        else:
            self.tell("limit", full=False)

    def close(self) -> None:
        """Give it back; lines that are to be read must have been read."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
