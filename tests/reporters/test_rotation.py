"""A file that grows: moved aside by size and by day, compressed, the oldest removed, and no line lost."""

import fcntl
import gzip
import json
import logging
import os
import re
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from time import monotonic, sleep

import pytest

from callbot_latency import LatencyMetric
from callbot_latency.base.drop_counters import dropped
from callbot_latency.reporters.jsonl import JsonlReporter
from callbot_latency.reporters.rotation import Backup, Backups, Rotation, backups_of
from tests.support.rotated import rows_of
from tests.support.subprocesses import clean_environment, command


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def metric(n: float = 0) -> LatencyMetric:
    return LatencyMetric("speech_to_text", "f", n, "success")


LINE_BYTES = len(json.dumps(metric(1).to_dict())) + 1


def numbers(path: Path) -> list[float]:
    return [row["latency_ms"] for row in rows_of(path)]


def until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for what the thread of the backups does; a hang fails the test."""
    deadline_s = monotonic() + timeout_s
    while not true():
        assert monotonic() < deadline_s
        sleep(0.005)


def compressed(path: Path, count: int) -> Callable[[], bool]:
    return lambda: list(backups_of(path).values()) == [{".gz"}] * count


@contextmanager
def reporting(path: Path, lines: float = 1, backups: int = 100) -> Iterator[JsonlReporter]:
    """A reporter whose file holds `lines` lines."""
    reporter = JsonlReporter(path, max_mb=lines * LINE_BYTES / 1e6, backups=backups)
    reporter.start()
    try:
        yield reporter
    finally:
        reporter.close()


def left_behind(path: Path, day: str, number: int, text: str = '{"n": 1}\n', form: str = "") -> Path:
    file = Backup(day, number).beside(path, form)
    data = text.encode()
    file.write_bytes(gzip.compress(data) if form == ".gz" else data)
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


def days_ago(path: Path, days: int) -> str:
    """The file's last line is of that day."""
    then = datetime.now(UTC) - timedelta(days=days)
    os.utime(path, (then.timestamp(), then.timestamp()))
    return then.strftime("%Y-%m-%d")


# -- when -------------------------------------------------------------------------------------------------------------


def test_a_full_file_is_moved_aside_and_compressed(path: Path) -> None:
    """Before the line that would not fit; name, number and day say the order; as private as the file."""
    with reporting(path, lines=2.5) as reporter:
        for n in range(1, 6):
            reporter.report([metric(n)])
        until(compressed(path, 2))
    assert numbers(path) == [1, 2, 3, 4, 5]
    archives = sorted(path.parent.glob("*.gz"))
    assert [file.name for file in archives] == [f"m.jsonl.{today()}.1.gz", f"m.jsonl.{today()}.2.gz"]
    assert [len(gzip.decompress(file.read_bytes()).splitlines()) for file in archives] == [2, 2]
    assert {stat.S_IMODE(file.stat().st_mode) for file in (path, *archives)} == {0o600}


def test_a_file_that_is_exactly_full_stays(path: Path) -> None:
    """Until the next line."""
    with reporting(path, lines=2) as reporter:
        reporter.report([metric(1)])
        reporter.report([metric(2)])
        assert not backups_of(path)
        reporter.report([metric(3)])
        assert len(backups_of(path)) == 1


def test_a_batch_is_one_write_even_where_it_is_larger_than_a_file(path: Path) -> None:
    """It is not split, and leaves no empty file behind."""
    with reporting(path, lines=2) as reporter:
        for _ in range(3):
            reporter.report([metric(n) for n in range(5)])
        until(compressed(path, 2))
    assert numbers(path) == [0, 1, 2, 3, 4] * 3


def test_the_first_line_of_a_day_moves_the_earlier_day_aside(path: Path) -> None:
    """Its name has the day of its lines, in UTC, whatever the time zone of the process."""
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(1)])
        day = days_ago(path, 3)
        reporter.report([metric(2)])
        reporter.report([metric(3)])
        until(compressed(path, 1))
    assert list(backups_of(path)) == [Backup(day, 1)]
    assert numbers(path) == [1, 2, 3]


def test_a_day_that_another_process_began_is_known_by_the_next(path: Path) -> None:
    """The file itself says it, so a restart at night rotates too."""
    path.write_text('{"latency_ms": 1}\n')
    day = days_ago(path, 1)
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(2)])
    assert list(backups_of(path)) == [Backup(day, 1)]


def test_an_empty_file_and_one_of_tomorrow_stay(path: Path) -> None:
    """There is nothing to move, and a clock that was set back is no new day."""
    path.touch()
    days_ago(path, 2)
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(1)])
        days_ago(path, -1)
        reporter.report([metric(2)])
    assert not backups_of(path)


def test_without_rotation_the_file_grows_on(path: Path) -> None:
    """Neither by size nor by day, and what others left is not touched."""
    half = left_behind(path, "2025-01-01", 1)
    reporter = JsonlReporter(path, max_mb=0, backups=0)
    reporter.report([metric(1)])
    days_ago(path, 1)
    reporter.report([metric(2)] * 1000)
    reporter.close()
    assert half.exists()
    assert len(path.read_text().splitlines()) == 1001


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_the_oldest_beyond_the_number_are_removed(path: Path) -> None:
    """By day, then by number as a number; nothing that has another name."""
    for day, number in (("2025-01-01", 1), ("2025-01-02", 2), ("2025-01-02", 10)):
        left_behind(path, day, number, form=".gz")
    others = [path.with_name(name) for name in (
        "m.jsonl-20250101", "m.jsonl.1", "m.jsonl.2025-01-01.1.gz.bak", "m.jsonl.2025-01-01.01", "xm.jsonl.2025-01-01.1"
    )]  # fmt: skip
    for other in others:
        other.touch()
    with reporting(path, backups=2) as reporter:
        reporter.report([metric(1)])
        reporter.report([metric(2)])
        until(lambda: set(backups_of(path)) == {Backup("2025-01-02", 10), Backup(today(), 1)})
    assert all(other.exists() for other in others)


def test_none_is_kept_where_none_is_wanted(path: Path) -> None:
    """LATENCY_METRICS_FILE_BACKUPS=0."""
    with reporting(path, backups=0) as reporter:
        for n in range(3):
            reporter.report([metric(n)])
        until(lambda: list(path.parent.iterdir()) == [path])
    assert numbers(path) == [2]


def test_what_an_earlier_process_left_is_finished_at_the_first_line(path: Path) -> None:
    """Moved and not compressed, half an archive beside it, an archive beside what it was made of, half of nothing."""
    left_behind(path, "2025-01-01", 1, '{"latency_ms": 1}\n')
    left_behind(path, "2025-01-01", 2, '{"latency_ms": 2}\n')
    left_behind(path, "2025-01-01", 2, "half", ".gz.part")
    left_behind(path, "2025-01-01", 3, '{"latency_ms": 3}\n')
    left_behind(path, "2025-01-01", 3, '{"latency_ms": 3}\n', ".gz")
    left_behind(path, "2025-01-01", 4, "half", ".gz.part")
    with reporting(path, lines=1000, backups=3) as reporter:
        reporter.report([metric(4)])
        until(compressed(path, 3))
    assert numbers(path) == [1, 2, 3, 4]


def test_where_nothing_is_left_no_thread_is_started(path: Path) -> None:
    """An ordinary start, and ordinary batches."""
    left_behind(path, "2025-01-01", 1, form=".gz")
    before = threading.enumerate()  # one of another test may be about to end
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(1)])
        started = [thread for thread in threading.enumerate() if thread not in before]
        assert not [thread for thread in started if thread.name == "callbot_latency.backups"]


# -- several writers --------------------------------------------------------------------------------------------------

WRITE = """
import random
from pathlib import Path
from callbot_latency.reporters.jsonl import JsonlReporter
reporter = JsonlReporter(Path("m.jsonl"), max_mb=0.03, backups=1000)
reporter.start()
n = 0
while n < 600:
    batch = random.randrange(1, 12)
    reporter.report([
        cl.LatencyMetric("speech_to_text", f"p{os.getpid()}", k, "success", metadata={"x": "x" * random.randrange(400)})
        for k in range(n, n + batch)
    ])
    n += batch
    time.sleep(random.random() / 500)
reporter.close()
tell(wrote=n, dropped=dropped.by_reason())
"""


@pytest.mark.promise("shared-file")
@pytest.mark.real_time
def test_eight_processes_over_many_rotations_lose_and_tear_no_line(tmp_path: Path) -> None:
    """Each line that one of them wrote stands exactly once in the file and its archives, which are not too large."""
    writers = [
        subprocess.Popen(command(WRITE), cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    told = [json.loads(writer.communicate(timeout=110)[0].removeprefix("FACTS ")) for writer in writers]
    assert [fact["dropped"] for fact in told] == [{}] * 8
    path = tmp_path / "m.jsonl"
    assert len(backups_of(path)) >= 20
    # The last to be moved may wait for the next start, which finishes them.
    Backups(path, 1000).tidy(threading.Event())
    assert set(map(frozenset, backups_of(path).values())) == {frozenset({".gz"})}
    found = Counter((row["operation_name"], row["latency_ms"]) for row in rows_of(path))
    assert set(found.values()) == {1}
    for writer, fact in zip(writers, told, strict=True):
        assert sum(name == f"p{writer.pid}" for name, _ in found) == fact["wrote"]
    assert max(len(gzip.decompress(file.read_bytes())) for file in tmp_path.glob("*.gz")) <= 30_000


def test_a_writer_that_waited_for_the_lock_follows_the_file(path: Path) -> None:
    """Another process holds the lock, moves the file away and lets go: the line is in the new file."""
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(1)])
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            writer = threading.Thread(target=reporter.report, args=([metric(2)],))
            writer.start()
            until(lambda: "FLOCK" in waiting_for_locks())
            moved = path.rename(path.with_name("moved"))
            fcntl.flock(other, fcntl.LOCK_UN)
            writer.join(60)
    assert len(moved.read_text().splitlines()) == 1
    assert [row["latency_ms"] for row in map(json.loads, path.read_text().splitlines())] == [2]


def waiting_for_locks() -> str:
    """The locks of this process for which somebody waits."""
    lines = Path("/proc/locks").read_text().splitlines()
    held = {line.split(":")[0] for line in lines if "->" not in line and f" {os.getpid()} " in line}
    return "\n".join(line for line in lines if "->" in line and line.split(":")[0] in held)


def test_one_process_alone_makes_an_archive(path: Path) -> None:
    """What another is compressing is left to it."""
    plain = left_behind(path, "2025-01-01", 1)
    half = left_behind(path, "2025-01-01", 1, "half", ".gz.part")
    with half.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        Backups(path, 9).tidy(threading.Event())
        assert (plain.exists(), half.read_text()) == (True, "half")
        fcntl.flock(other, fcntl.LOCK_UN)
    Backups(path, 9).tidy(threading.Event())
    assert compressed(path, 1)()


def test_what_is_still_written_into_a_moved_file_is_compressed_too(path: Path) -> None:
    """By one who had the lock when it was moved."""
    plain = left_behind(path, "2025-01-01", 1, '{"latency_ms": 1}\n')
    with plain.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        thread = threading.Thread(target=Backups(path, 9).tidy, args=(threading.Event(),))
        thread.start()
        until(lambda: "FLOCK" in waiting_for_locks())
        writer.write(b'{"latency_ms": 2}\n')
        writer.flush()
        fcntl.flock(writer, fcntl.LOCK_UN)
        thread.join(60)
    path.touch()
    assert numbers(path) == [1, 2]
    assert compressed(path, 1)()


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_close_does_not_wait_for_a_large_archive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between two slices; nothing is lost, and the next start makes the archive."""
    line = json.dumps({"latency_ms": 1, "x": "y" * 900}) + "\n"
    left_behind(path, "2025-01-01", 1, line * 1_000)
    # By its clock each slice takes 1,000 s, and so does the pause after it.
    looks = count()
    monkeypatch.setattr("callbot_latency.reporters.rotation.monotonic", lambda: 1_000 * next(looks))
    with reporting(path, lines=1000) as reporter:
        reporter.report([metric(1)])
        until(lambda: ".gz.part" in next(iter(backups_of(path).values())))
        began_s = monotonic()
        reporter.close()
        assert monotonic() - began_s < 10
    until(lambda: list(backups_of(path).values()) == [{""}])


@pytest.mark.parametrize("mtime_s", [2**38, 2**62])
def test_a_file_of_no_day_that_has_a_name_stays(mtime_s: int, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Some file systems know the year 10680. One line in the log, and the next attempt waits."""
    path.write_text("{}\n")
    there = os.stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, 3, mtime_s, mtime_s, mtime_s))
    rotation = Rotation(path, 1e-6, 1)
    assert rotation.is_due(there, 1)
    assert not rotation.move_aside(there)
    assert not rotation.is_due(there, 1)
    assert list(path.parent.iterdir()) == [path]
    assert "nothing is lost" in caplog.text


def test_an_obstacle_is_passed_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder with the name of the next archive: the one after is taken, and the others are compressed."""
    day = today()
    obstacle = Backup(day, 1).beside(path)
    obstacle.mkdir()
    with reporting(path, lines=1) as reporter:
        reporter.report([metric(1)])
        reporter.report([metric(2)])
        until(lambda: backups_of(path) == {Backup(day, 1): {""}, Backup(day, 2): {".gz"}})
    obstacle.rmdir()
    assert numbers(path) == [1, 2]
    assert "cannot compress" in caplog.text
    assert "Is a directory" in caplog.text


def test_what_cannot_be_compressed_stays_as_it_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log a minute; the others' turn comes all the same at the next start."""
    plain = left_behind(path, "2025-01-01", 1)
    obstacle = Backup("2025-01-01", 1).beside(path, ".gz.part")
    obstacle.mkdir()
    backups = Backups(path, 9)
    backups.tidy(threading.Event())
    backups.tidy(threading.Event())
    assert plain.exists()
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert re.search(r"cannot compress .*m\.jsonl.*nothing is lost", line.getMessage())
    obstacle.rmdir()
    backups.tidy(threading.Event())
    assert compressed(path, 1)()


def test_no_rotation_counts_as_a_loss(path: Path) -> None:
    """The counter of lost lines stays where it is."""
    before = dropped.by_reason()
    with reporting(path) as reporter:
        for n in range(5):
            reporter.report([metric(n)])
    assert dropped.by_reason() == before
