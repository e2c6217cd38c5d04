"""A line of JSON for each measurement."""

import json
import logging
import os
import stat
import subprocess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from callbot_latency import LatencyMetric, TransientError, measure_latency, record, shutdown
from callbot_latency.delivery.lane import Lane
from callbot_latency.reporters.jsonl import JsonlReporter
from tests.conftest import Start
from tests.support.measured import metric
from tests.support.subprocesses import clean_environment, command, facts_of, run_python, written


def lines_of(path: Path) -> list[Any]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_the_metric(tmp_path: Path) -> None:
    """Keys in the order of the format, added ones after; what it says is read back equal."""
    told = [metric(1.5, call_sid="CA1", metadata={"text": "é\n\u2028"}), metric(severity="warning", trace_id="a" * 32)]
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    reporter.report(told)
    reporter.close()
    rows = lines_of(tmp_path / "m.jsonl")
    assert [LatencyMetric.from_dict(row) for row in rows] == told
    ten = ["operation_type", "operation_name", "latency_ms", "status", "timestamp", "call_sid", "stream_sid",
           "provider", "error_message", "metadata"]  # fmt: skip
    assert [list(row) for row in rows] == [ten, [*ten, "severity", "trace_id"]]


def test_an_operation_ends_up_in_the_file(start: Start) -> None:
    """From the decorator to the line, without a word by the application."""
    config = start()
    measure_latency("rag_inference", "ask", provider="x")(lambda: None)()
    assert shutdown(60)
    (row,) = lines_of(config.metrics_file_path)
    assert (row["operation_type"], row["operation_name"], row["provider"]) == ("rag_inference", "ask", "x")


def test_without_file_logging_there_is_no_file(start: Start) -> None:
    """LATENCY_FILE_LOGGING_ENABLED=false."""
    config = start(file_logging_enabled=False)
    record(metric())
    assert shutdown(60)
    assert not config.metrics_file_path.exists()


@pytest.mark.promise("broken-file")
def test_the_file_is_private_and_folders_are_made(tmp_path: Path) -> None:
    """0600, whatever the umask allows; nothing is made before the first measurement."""
    path = tmp_path / "a" / "b" / "m.jsonl"
    reporter = JsonlReporter(path)
    reporter.start()
    assert not path.parent.exists()
    umask = os.umask(0)
    try:
        reporter.report([metric()])
    finally:
        os.umask(umask)
        reporter.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> "SimpleQueue[int]":
    """How many lines each write had, as they come."""
    lines, write = SimpleQueue[int](), os.write

    def counted(file: int, data: bytes) -> int:
        done = write(file, data)
        lines.put(data.count(b"\n"))
        return done

    monkeypatch.setattr("callbot_latency.reporters.jsonl.os.write", counted)
    return lines


@pytest.mark.parametrize(("interval_s", "batches"), [(60, 100), (JsonlReporter.interval_s, 1)])
def test_lines_of_many_batches_are_one_write(
    tmp_path: Path, writes: "SimpleQueue[int]", interval_s: float, batches: int
) -> None:
    """The worker hands over ten at a time, and each write may hold up an event loop. Few wait for a moment alone."""
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    lane = Lane("jsonl", reporter, batch_size=reporter.batch_size, interval_s=interval_s)
    lane.start()
    for _ in range(batches):
        lane.report([metric(n) for n in range(10)])
    assert writes.get(timeout=60) == 10 * batches
    assert lane.close(60)
    assert writes.empty()


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """By the next process, and the next batch."""
    for n in range(3):
        reporter = JsonlReporter(tmp_path / "m.jsonl")
        reporter.report([metric(n)])
        reporter.report([metric(n)])
        reporter.close()
    assert [row["latency_ms"] for row in lines_of(tmp_path / "m.jsonl")] == [0, 0, 1, 1, 2, 2]


@pytest.mark.promise("killed-process")
def test_half_a_line_of_a_killed_process_takes_no_other_along(tmp_path: Path) -> None:
    """Ours starts on a line of its own."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"whole": 1}\n{"operation_type": "spee')
    reporter = JsonlReporter(path)
    reporter.report([metric(1)])
    reporter.report([metric(2)])
    reporter.close()
    whole, torn, *ours = path.read_text().splitlines()
    assert (whole, torn) == ('{"whole": 1}', '{"operation_type": "spee')
    assert [json.loads(line)["latency_ms"] for line in ours] == [1, 2]


@pytest.mark.promise("broken-file")
@pytest.mark.parametrize("how", ["moved", "removed", "replaced", "folder removed"])
def test_a_rotated_file_is_opened_anew(how: str, tmp_path: Path) -> None:
    """As logrotate does it: the next batch is in the new file, the old one keeps what it had."""
    path = tmp_path / "logs" / "m.jsonl"
    reporter = JsonlReporter(path)
    reporter.report([metric(1)])
    if how == "moved":
        path.rename(tmp_path / "logs" / "m.jsonl.1")
    elif how == "replaced":
        path.rename(tmp_path / "logs" / "m.jsonl.1")
        path.touch(0o600)
    else:
        path.unlink()
    if how == "folder removed":
        path.parent.rmdir()
    reporter.report([metric(2)])
    reporter.close()
    assert [row["latency_ms"] for row in lines_of(path)] == [2]
    if how in {"moved", "replaced"}:
        assert [row["latency_ms"] for row in lines_of(tmp_path / "logs" / "m.jsonl.1")] == [1]


def test_a_truncated_file_goes_on_from_its_start(tmp_path: Path) -> None:
    """Logrotate's copytruncate leaves no hole."""
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    reporter.report([metric(1)])
    os.truncate(tmp_path / "m.jsonl", 0)
    reporter.report([metric(2)])
    reporter.close()
    assert [row["latency_ms"] for row in lines_of(tmp_path / "m.jsonl")] == [2]


def test_a_relative_path_stays_where_it_was_when_the_reporter_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that changes its working folder does not spread its lines."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    reporter = JsonlReporter(Path("logs/m.jsonl"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    reporter.report([metric(1)])
    reporter.close()
    assert len(lines_of(tmp_path / "logs" / "m.jsonl")) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_half_a_character_breaks_no_line(tmp_path: Path) -> None:
    """A lone surrogate, as a broken decoder leaves it, is replaced; every kind of line end is kept."""
    texts = ["\ud83d", "\udcff", "\r", "\x00", "\x85", "\u2029", "\u202e"]
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    reporter.report([metric(error_message=text, metadata={"text": text}) for text in texts])
    reporter.close()
    data = (tmp_path / "m.jsonl").read_bytes()
    assert data.isascii()
    assert [json.loads(line)["metadata"]["text"] for line in data.split(b"\n")[:-1]] == ["\ufffd", "\ufffd", *texts[2:]]


@pytest.mark.promise("broken-file")
def test_a_link_that_takes_the_files_place_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even to the file that was written so far."""
    path = tmp_path / "m.jsonl"
    reporter = JsonlReporter(path)
    reporter.report([metric(1)])
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(TransientError, match="is a symbolic link"):
        reporter.report([metric(2)])
    reporter.close()
    assert "is a symbolic link" in caplog.text
    assert len(lines_of(tmp_path / "moved")) == 1


def unusable(kind: str, folder: Path) -> Path:
    path = folder / "m.jsonl"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        (folder / "target").touch()
        path.symlink_to(folder / "target")
    else:
        (folder / "file").touch()
        path = folder / "file" / "m.jsonl"
    return path


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link", "beneath a file"])
def test_a_path_that_cannot_be_opened_is_one_line_and_tried_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No hang; the lane is asked to try again."""
    path = unusable(kind, tmp_path)
    reporter = JsonlReporter(path)
    for _ in range(3):
        with pytest.raises(TransientError, match="cannot write"):
            reporter.report([metric(), metric()])
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert str(path) in line.getMessage()
    assert ("is a symbolic link" in line.getMessage()) == (kind == "a link")
    assert "LATENCY_METRICS_FILE_PATH" in line.getMessage()
    if kind == "a folder":
        path.rmdir()
        reporter.report([metric(5)])
        reporter.close()
        assert [row["latency_ms"] for row in lines_of(path)] == [5]


@pytest.mark.real_time
def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """What does not fit is taken back whole and said so; what was there stays."""
    code = """
    import resource
    from callbot_latency.reporters.jsonl import JsonlReporter
    from pathlib import Path
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    reporter = JsonlReporter(Path("m.jsonl"))
    refused = 0
    for n in range(20):
        try:
            reporter.report([cl.LatencyMetric("speech_to_text", "f", n, "success")])
        except cl.TransientError:
            refused += 1
    tell(refused=refused)
    """
    told = facts_of(run_python(code, tmp_path, timeout_s=100))
    rows = lines_of(tmp_path / "m.jsonl")
    assert 0 < len(rows) < 20
    assert [row["latency_ms"] for row in rows] == [float(n) for n in range(len(rows))]
    assert told == {"refused": 20 - len(rows)}


@pytest.mark.promise("shared-file")
@pytest.mark.real_time
def test_several_processes_share_a_file(tmp_path: Path) -> None:
    """Only whole lines, and all of them."""
    code = """
    init()
    for n in range(500):
        with measure_latency_context("speech_to_text", f"p{os.getpid()}", metadata={"n": n, "long": "x" * 300}):
            pass
    shutdown(60)
    """
    processes = [subprocess.Popen(command(code), cwd=tmp_path, env=clean_environment()) for _ in range(3)]
    assert [process.wait(100) for process in processes] == [0, 0, 0]
    rows = written(tmp_path)
    for process in processes:
        numbers = [row["metadata"]["n"] for row in rows if row["operation_name"] == f"p{process.pid}"]
        assert numbers == list(range(500))
    assert len(rows) == 1500


@pytest.mark.promise("shared-file")
@pytest.mark.real_time
def test_long_lines_of_eight_processes_stay_whole(tmp_path: Path) -> None:
    """4,000 lines of 20,000 characters, each written by itself: all of them, none within another."""
    code = """
    from pathlib import Path
    from callbot_latency.reporters.jsonl import JsonlReporter

    def write():
        reporter = JsonlReporter(Path("outputs/logs/latency_metrics.jsonl"))
        reporter.start()
        for n in range(500):
            reporter.report([
                cl.LatencyMetric("speech_to_text", f"p{os.getpid()}", n, "success", metadata={"long": "x" * 20_000})
            ])
        reporter.close()

    ready, go = os.pipe()  # no child writes before all are there
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            os.close(go)
            os.read(ready, 1)
            try:
                write()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    os.close(go)
    tell(pids=children, failed=[status for child in children if (status := os.waitpid(child, 0)[1])])
    """
    told = facts_of(run_python(code, tmp_path, timeout_s=100))
    assert told["failed"] == []
    rows = written(tmp_path)
    for pid in told["pids"]:
        numbers = [row["latency_ms"] for row in rows if row["operation_name"] == f"p{pid}"]
        assert numbers == [float(n) for n in range(500)]
    assert {len(row["metadata"]["long"]) for row in rows} == {20_000}
    assert len(rows) == 4_000
