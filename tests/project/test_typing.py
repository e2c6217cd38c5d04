"""What the decorator does to types: nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]


def test_mypy_sees_the_users_types() -> None:
    """Every use is of the type it would be without us, and every line that is marked as an error is one."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--warn-unused-ignores",
            "--config-file=",
            "--python-version=3.11",
            f"--cache-dir={ROOT / '.mypy_cache' / 'uses'}",
            "tests/typing/uses.py",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
