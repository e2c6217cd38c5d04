"""The metrics file on a full disk, where it cannot be, or where nobody reads: the application does not notice."""

import os
import resource
from pathlib import Path
from time import monotonic

import pytest

from tests.subprocesses import facts_of, run_python, written

MEASURE = """
init()
for _ in range(100): listen()
began_s = time.monotonic()
on_time = shutdown()
tell(took_s=time.monotonic() - began_s, dropped=dropped.by_reason(), seen=len(latency_tracker.metrics))
"""


def unwritable(folder: Path, how: str) -> Path:
    """A path at which no line can be written."""
    path = folder / "metrics.jsonl"
    if how == "the full device":
        return Path("/dev/full")
    if how == "a folder":
        path.mkdir()
    elif how == "beneath a file":
        path.write_text("")
        return path / "metrics.jsonl"
    elif how == "a pipe that nobody reads":
        os.mkfifo(path)
    elif how == "a link":
        path.symlink_to(folder / "elsewhere.jsonl")
    elif how == "a folder of the system":
        return Path("/proc/metrics.jsonl")
    elif how == "a read-only folder":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        locked = folder / "locked"
        locked.mkdir(mode=0o500)
        return locked / "metrics.jsonl"
    return path


@pytest.mark.parametrize(
    "how",
    [
        "the full device",
        "a folder",
        "beneath a file",
        "a pipe that nobody reads",
        "a link",
        "a folder of the system",
        "a read-only folder",
    ],
)
def test_a_file_that_cannot_be_written(how: str, tmp_path: Path) -> None:
    """One error in the log that names the variable, every line counted, the exit in time, the rest unaffected."""
    path = unwritable(tmp_path, how)
    done = run_python(MEASURE, tmp_path, {"LATENCY_METRICS_FILE_PATH": str(path)})
    facts = facts_of(done)
    assert facts["seen"] == 100
    assert facts["dropped"] == {"jsonl_failed": 100}
    assert facts["took_s"] < 2.5
    told = done.stderr.splitlines()
    assert sum("LATENCY_METRICS_FILE_PATH" in line for line in told) == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "elsewhere.jsonl").exists()


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    """The file may grow to 20,000 bytes: what does not fit is counted, what stands there is whole."""
    began_s = monotonic()
    done = run_python(
        f"""
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))
        init()
        for _ in range(20):
            for _ in range(10): listen()
            from callbot_latency import runtime
            runtime._runtime.pipeline.flush(5)
        shutdown()
        tell(dropped=dropped.by_reason())
        """,
        tmp_path,
    )
    lost = facts_of(done)["dropped"]["jsonl_failed"]
    assert 0 < lost < 200
    assert len(written(tmp_path)) == 200 - lost
    assert done.stderr.count("cannot write") == 1
    assert monotonic() - began_s < 10


def test_a_file_that_can_be_written_again_is_written_again(tmp_path: Path) -> None:
    """Once the obstacle is gone the next batch stands in the file."""
    done = run_python(
        """
        from callbot_latency import runtime
        os.makedirs("outputs/logs/latency_metrics.jsonl")
        init()
        listen()
        runtime._runtime.pipeline.flush(5)
        os.rmdir("outputs/logs/latency_metrics.jsonl")
        for _ in range(10): listen()
        shutdown()
        tell(dropped=dropped.by_reason())
        """,
        tmp_path,
    )
    assert facts_of(done)["dropped"] == {"jsonl_failed": 1}
    assert len(written(tmp_path)) == 10


@pytest.mark.parametrize(("first", "then", "lost"), [("init()", "", {}), ("", "init()", {"jsonl_failed": 20})])
def test_a_working_folder_that_is_gone(first: str, then: str, lost: dict[str, int], tmp_path: Path) -> None:
    """Removed before the first line, it is made anew; removed before `init()`, nobody knows where: told once."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run_python(
        f"""
        {first}
        os.rmdir(os.getcwd())
        {then}
        for _ in range(20): listen()
        shutdown()
        tell(seen=len(latency_tracker.metrics), dropped=dropped.by_reason())
        """,
        gone,
    )
    assert facts_of(done) == {"seen": 20, "dropped": lost}
    assert "Traceback" not in done.stderr
    assert len(written(gone)) == 20 - sum(lost.values())
