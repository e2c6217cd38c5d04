"""What holds for every sequence of batches, size and number of backups."""

import json
import threading
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import LatencyMetric
from callbot_latency.reporters.jsonl import JsonlReporter
from callbot_latency.reporters.rotation import Backup, Backups, backups_of
from tests.support.rotated import rows_of

days = st.dates(date(1970, 1, 1), date(9999, 12, 31))


def metric(n: int) -> LatencyMetric:
    return LatencyMetric("speech_to_text", "f", n, "success")


def end(reporter: JsonlReporter) -> None:
    """Close it, and wait for the thread that compresses, which `close` does only for a moment."""
    reporter.close()
    for thread in threading.enumerate():
        if thread.name == "callbot_latency.backups":
            thread.join(60)


def size_of(batch: list[LatencyMetric]) -> int:
    return sum(len(json.dumps(one.to_dict())) + 1 for one in batch)


def files_of(batches: list[list[LatencyMetric]], max_bytes: int) -> list[list[float]]:
    """How the lines should be spread over the files: a batch that does not fit begins the next one."""
    files: list[list[LatencyMetric]] = [[]]
    for batch in batches:
        if files[-1] and size_of(files[-1]) + size_of(batch) > max_bytes:
            files.append([])
        files[-1] += batch
    return [[one.latency_ms for one in file] for file in files]


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    max_bytes=st.integers(1, 5000),
    keep=st.integers(0, 6),
    restarts=st.sets(st.integers(0, 24)),
)
def test_the_newest_lines_are_kept_in_order_and_whole_batches(
    sizes: list[int], max_bytes: int, keep: int, restarts: set[int]
) -> None:
    """The file and its newest archives hold exactly the last lines, whatever restarts there were between."""
    first = [sum(sizes[:i]) for i in range(len(sizes))]
    batches = [[metric(n) for n in range(at, at + size)] for at, size in zip(first, sizes, strict=True)]
    expected = files_of(batches, max_bytes)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        reporter = JsonlReporter(path, max_mb=max_bytes / 1e6, backups=keep)
        for number, batch in enumerate(batches):
            if number in restarts:
                end(reporter)
                reporter = JsonlReporter(path, max_mb=max_bytes / 1e6, backups=keep)
            reporter.report(batch)
        end(reporter)
        Backups(path, keep).tidy(threading.Event())
        assert all(forms == {".gz"} for forms in backups_of(path).values())
        assert len(backups_of(path)) == min(keep, len(expected) - 1)
        assert [row["latency_ms"] for row in rows_of(path)] == sum(expected[-1 - keep :], [])


@given(found=st.sets(st.builds(Backup, days.map(str), st.integers(1, 10**9 - 1)), max_size=8), keep=st.integers(0, 8))
def test_the_oldest_by_day_and_number_go_first(found: set[Backup], keep: int) -> None:
    """Names are read back as they were made."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.[x]*.jsonl"
        for backup in found:
            backup.beside(path, ".gz").touch()
        assert backups_of(path).keys() == found
        Backups(path, keep).tidy(threading.Event())
        assert backups_of(path).keys() == set(sorted(found)[max(0, len(found) - keep) :])
