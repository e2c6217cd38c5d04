"""Instructions, counted by callgrind: a second opinion that no other load on the machine can sway.

A small module in C, built when it is needed, tells callgrind when to count. Needs valgrind with its headers and a C
compiler; `missing()` says what is not there.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("collect.c")
VALGRIND: Final = ("valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no")
_DUMP: Final = re.compile(
    r"^desc: Trigger: Client Request: (?P<name>[^\n]*)$.*^totals: (?P<count>\d+)$", re.MULTILINE | re.DOTALL
)


def missing() -> str | None:
    """What is not there that counting needs, in words; None where nothing is missing."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if shutil.which("cc") is None:
        return "there is no C compiler"
    built = subprocess.run(_compiler("-fsyntax-only"), capture_output=True, text=True, check=False)
    return None if built.returncode == 0 else f"{SOURCE.name} does not compile: {built.stderr.strip().splitlines()[0]}"


def _compiler(*more: str) -> list[str]:
    return ["cc", "-O1", "-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}", str(SOURCE), *more]


def counted(module: str, *arguments: str, one_thread: bool, from_start: bool = True) -> dict[str, int]:
    """Instructions that `python -m module arguments` dumps under callgrind, by the name of the dump.

    Args:
        module: finds the module `collect` at hand.
        arguments: of its command line.
        one_thread: count the thread that dumps, and not all of them.
        from_start: count without being told to by `collect.toggle()` or a `collect.Counted`.

    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(_compiler("-o", f"{folder}/collect.so"), check=True)
        options = [
            f"--separate-threads={'yes' if one_thread else 'no'}",
            f"--collect-atstart={'yes' if from_start else 'no'}",
            f"--callgrind-out-file={folder}/out",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((folder, *_path())), "PYTHONHASHSEED": "0"}
        command = [*VALGRIND, *options, sys.executable, "-m", module, *arguments]
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        found = [_DUMP.search(file.read_text()) for file in Path(folder).glob("out.*")]
    return {dump["name"]: int(dump["count"]) for dump in found if dump is not None}


def _path() -> Sequence[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
