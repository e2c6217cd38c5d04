"""Files that a forked child knows of, whatever became of the count of forks."""

import os
from pathlib import Path

import pytest

from callbot_latency.base import fork_safe_files as held


@pytest.mark.promise("fork")
@pytest.mark.parametrize(("begun", "over"), [(1, 0), (0, 1)])
def test_a_hook_that_was_cut_short_holds_up_one_opening(
    begun: int, over: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler of the application may raise within it: the counts would disagree for ever."""
    waits: list[float] = []
    monkeypatch.setattr(held, "sleep", waits.append)
    monkeypatch.setattr(held, "_begun", begun)
    monkeypatch.setattr(held, "_over", over)
    files: set[int] = set()
    first = held.open_fork_safe(tmp_path / "file", os.O_CREAT | os.O_RDWR, 0o600, files)
    assert sum(waits) == pytest.approx(0.2)
    waits.clear()
    second = held.open_fork_safe(tmp_path / "file", os.O_RDWR, 0o600, files)
    assert not waits
    assert files == {first, second}
    for file in files:
        os.close(file)
