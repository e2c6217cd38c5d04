"""The metrics file on a full disk, where it cannot be, or where nobody reads: the application does not notice."""

import json
import os
import resource
import signal
import subprocess
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from callbot_latency.reporters.rotation import Backups, backups_of
from tests.support.rotated import rows_of, whole_rows_of
from tests.support.subprocesses import clean_environment, command, facts_of, run_python, written

MEASURE = """
init()
for _ in range(100): listen()
until(lambda: has_failed(100))
began_s = time.monotonic()
on_time = shutdown(timeout_s=0.5)
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


@pytest.mark.promise("broken-file")
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
    assert facts["dropped"] == {"jsonl_unconfirmed": 100}
    assert facts["took_s"] < 10
    told = done.stderr.splitlines()
    assert sum("LATENCY_METRICS_FILE_PATH" in line for line in told) == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "elsewhere.jsonl").exists()


@pytest.mark.promise("broken-file")
def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    """The file may grow to 20,000 bytes: what does not fit is counted, what stands there is whole."""
    done = run_python(
        f"""
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))
        init()
        for _ in range(20):
            for _ in range(10): listen()
            from callbot_latency.runtime import lifecycle as runtime
            runtime._runtime.pipeline.flush(0.05)
        until(lambda: has_failed(200))
        shutdown(timeout_s=0.5)
        tell(dropped=dropped.by_reason())
        """,
        tmp_path,
    )
    lost = facts_of(done)["dropped"]["jsonl_unconfirmed"]
    assert 0 < lost < 200
    assert len(written(tmp_path)) == 200 - lost
    assert done.stderr.count("LATENCY_METRICS_FILE_PATH") == 1


@pytest.mark.promise("broken-file")
def test_a_file_that_can_be_written_again_is_written_again(tmp_path: Path) -> None:
    """Once the obstacle is gone everything stands in the file: it waited."""
    done = run_python(
        """
        from callbot_latency.runtime import lifecycle as runtime
        os.makedirs("outputs/logs/latency_metrics.jsonl")
        init()
        listen()
        early = runtime._runtime.pipeline.flush(0.2)
        os.rmdir("outputs/logs/latency_metrics.jsonl")
        for _ in range(10): listen()
        later = runtime._runtime.pipeline.flush(60)
        shutdown()
        tell(flushed=[early, later], dropped=dropped.by_reason())
        """,
        tmp_path,
    )
    assert facts_of(done) == {"flushed": [False, True], "dropped": {}}
    assert len(written(tmp_path)) == 11


@pytest.mark.parametrize(("first", "then", "lost"), [("init()", "", {}), ("", "init()", {"jsonl_unconfirmed": 20})])
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
        until(lambda: has_failed(20) or has_delivered(20))
        shutdown(timeout_s={0.5 if lost else 60})
        tell(seen=len(latency_tracker.metrics), dropped=dropped.by_reason())
        """,
        gone,
    )
    assert facts_of(done) == {"seen": 20, "dropped": lost}
    assert "Traceback" not in done.stderr
    assert len(written(gone)) == 20 - sum(lost.values())


# -- rotation ---------------------------------------------------------------------------------------------------------

WRITER = """
import random
from pathlib import Path
from callbot_latency.reporters.jsonl import JsonlReporter
from callbot_latency.reporters.rotation import backups_of
from tests.support.rotated import rows_of

path = Path("m.jsonl").absolute()
written = []

def write(reporter, numbers):
    for n in numbers:
        metric = cl.LatencyMetric("speech_to_text", "f", n, "success", metadata={"x": f"{random.getrandbits(1600):x}"})
        try:
            reporter.report([metric])
        except cl.TransientError:
            continue
        written.append(n)

def numbers():
    return [row["latency_ms"] for row in rows_of(path)]
"""


def on_a_small_disk(code: str, options: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `code` with a file system of its own as the working folder; only root can make one."""
    mounted = f'mount -t tmpfs -o {options} none "{folder}" && cd "{folder}" && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", mounted, "sh"]
    if os.geteuid() or subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    line = [*within, *command(WRITER + textwrap.dedent(code))]
    return subprocess.run(
        line, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.promise("broken-file")
def test_a_disk_that_fills_up_during_rotation_loses_only_what_is_counted(tmp_path: Path) -> None:
    """No archive can be made: the moved files stay as they are. With room again, lines and archives go on."""
    done = on_a_small_disk(
        """
        filler = Path("filler")
        filler.write_bytes(b"x" * 150_000)
        reporter = JsonlReporter(path, max_mb=0.05, backups=1000)
        reporter.start()
        write(reporter, range(1000))
        full = len(written)
        filler.unlink()
        write(reporter, range(1000, 1100))
        reporter.close()
        again = JsonlReporter(path, max_mb=0.05, backups=1000)
        again.start()
        write(again, [1100])
        until(lambda: all(forms == {".gz"} for forms in backups_of(path).values()))
        again.close()
        tell(full=full, after=written[full:], equal=numbers() == written, files=len(backups_of(path)))
        """,
        "size=400k",
        tmp_path,
    )
    facts = facts_of(done)
    assert 0 < facts["full"] < 1000
    assert facts["after"] == list(range(1000, 1101))
    assert facts["equal"]
    assert facts["files"] > 3
    assert done.stderr.count("cannot write") == 1
    assert done.stderr.count("cannot compress") <= 1


def test_a_disk_without_room_for_another_file_keeps_the_one_there_is(tmp_path: Path) -> None:
    """Every line is written, the file grows on, one line in the log says so."""
    done = on_a_small_disk(
        """
        reporter = JsonlReporter(path, max_mb=0.01, backups=5)
        reporter.start()
        write(reporter, range(200))
        reporter.close()
        tell(equal=numbers() == written == list(range(200)), files=os.listdir())
        """,
        "size=4m,nr_inodes=2",
        tmp_path,
    )
    assert facts_of(done) == {"equal": True, "files": ["m.jsonl"]}
    assert done.stderr.count("cannot rotate") == 1
    assert "nothing is lost" in done.stderr


def test_a_folder_that_may_not_be_written_keeps_its_file() -> None:
    """The file was made for us by somebody else: it grows on, and no line is lost."""
    # Not pytest's own folder, which every session that starts beside this one closes to other users.
    with tempfile.TemporaryDirectory() as folder:
        tmp_path = Path(folder)
        tmp_path.chmod(0o555)
        path = tmp_path / "m.jsonl"
        path.touch()
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        done = run_python(
            WRITER
            + textwrap.dedent("""
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        reporter = JsonlReporter(path, max_mb=0.01, backups=5)
        reporter.start()
        write(reporter, range(200))
        reporter.close()
        tell(equal=numbers() == written == list(range(200)), files=os.listdir())
        """),
            tmp_path,
        )
        tmp_path.chmod(0o755)
        assert facts_of(done) == {"equal": True, "files": ["m.jsonl"]}
    assert done.stderr.count("cannot rotate") == 1
    assert "Permission denied" in done.stderr


STOPS_IN_THE_MIDDLE = """
        import gzip
        whole, in_the_middle = gzip.GzipFile, threading.Event()
        class Half(whole):  # the archive has its beginning, and nothing follows
            def write(self, data):
                super().write(data)
                self.flush()
                self.fileobj.flush()
                in_the_middle.set()
                threading.Event().wait()
        gzip.GzipFile = Half
"""


@pytest.mark.promise("killed-process")
def test_a_process_killed_while_it_compresses_loses_nothing(tmp_path: Path) -> None:
    """The archive is half there, the file it is made of is whole; the next start makes it anew."""
    line = json.dumps({"latency_ms": 1, "x": "y" * 900}) + "\n"
    plain = tmp_path / "m.jsonl.2025-01-01.1"
    plain.write_text(line * 1_000)
    code = """
        reporter = JsonlReporter(path, max_mb=1, backups=5)
        reporter.start()
        write(reporter, [2])
        assert in_the_middle.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_python(WRITER + textwrap.dedent(STOPS_IN_THE_MIDDLE) + textwrap.dedent(code), tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "m.jsonl.2025-01-01.1.gz.part").stat().st_size
    assert plain.exists()
    assert not (tmp_path / "m.jsonl.2025-01-01.1.gz").exists()
    done = run_python(
        WRITER
        + textwrap.dedent("""
        reporter = JsonlReporter(path, max_mb=1, backups=5)
        reporter.start()
        write(reporter, [3])
        until(lambda: list(backups_of(path).values()) == [{".gz"}])
        reporter.close()
        tell(rows=len(numbers()), last=numbers()[-2:])
        """),
        tmp_path,
    )
    assert facts_of(done) == {"rows": 1_002, "last": [2, 3]}


@pytest.mark.promise("killed-process")
def test_writers_that_are_killed_lose_no_line_that_they_had_written(tmp_path: Path) -> None:
    """Six processes rotate and compress until SIGKILL; what each told to be written is there once."""
    code = WRITER + textwrap.dedent("""
    reporter = JsonlReporter(path, max_mb=0.02, backups=10_000)
    reporter.start()
    for n in range(100_000):
        reporter.report([cl.LatencyMetric("speech_to_text", f"p{os.getpid()}", n, "success")])
        os.write(1, f"{n}\\n".encode())
    """)
    environment = clean_environment()
    writers = [subprocess.Popen(command(code), cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(6)]
    told = {}
    for count, writer in enumerate(writers, 1):
        assert writer.stdout
        with writer.stdout as told_of:
            lines = [told_of.readline() for _ in range(100 * count)]
            writer.kill()
            lines += told_of.readlines()
            whole = [line for line in lines if line.endswith(b"\n")]
        told[f"p{writer.pid}"] = int(whole[-1])
        writer.wait()
    path = tmp_path / "m.jsonl"
    Backups(path, 10_000).tidy(threading.Event())
    assert len(backups_of(path)) >= 5
    assert all(forms == {".gz"} for forms in backups_of(path).values())
    found: dict[str, list[float]] = {}
    for row in whole_rows_of(path):
        found.setdefault(row["operation_name"], []).append(row["latency_ms"])
    for name, last in told.items():
        # The line after the last that it told of may have been written too.
        assert sorted(found[name]) in (list(range(last + 1)), list(range(last + 2)))


def test_the_last_lines_at_exit_may_rotate(tmp_path: Path) -> None:
    """By the environment alone, up to the end of the program; the archive may be the next start's."""
    settings = {"LATENCY_METRICS_FILE_MAX_MB": "0.005", "LATENCY_METRICS_FILE_BACKUPS": "50"}
    code = """
    init()
    for _ in range(5):
        for _ in range(20): listen()
        cl.runtime.lifecycle._runtime.pipeline.flush(60)
    for _ in range(20): listen()
    """
    for _ in range(2):
        done = run_python(code, tmp_path, settings)
        assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "outputs" / "logs" / "latency_metrics.jsonl"
    assert len(backups_of(path)) >= 5
    assert len(rows_of(path)) == 240


HAS_ENDED = """
        def has_ended(pid):  # a zombie without further threads: nobody has its files any more
            return os.listdir(f"/proc/{pid}/task") == [str(pid)] and " Z " in open(f"/proc/{pid}/stat").read()
"""


@pytest.mark.promise("fork")
def test_a_fork_in_the_middle_of_an_archive_holds_it_up_for_nobody(tmp_path: Path) -> None:
    """The parent is killed while it compresses; its child lives on and does not keep the archive's lock."""
    line = json.dumps({"latency_ms": 1, "x": "y" * 900}) + "\n"
    (tmp_path / "m.jsonl.2025-01-01.1").write_text(line * 1_000)
    done = run_python(
        HAS_ENDED
        + STOPS_IN_THE_MIDDLE
        + """
        init()
        listen()
        from callbot_latency.reporters.rotation import backups_of
        from pathlib import Path
        path = Path("m.jsonl")
        cl.runtime.lifecycle._runtime.pipeline.flush(60)
        assert in_the_middle.wait(60)
        parent = os.getpid()
        if os.fork():
            time.sleep(100)
        gzip.GzipFile = whole
        os.kill(parent, signal.SIGKILL)
        until(lambda: has_ended(parent))
        listen()
        cl.runtime.lifecycle._runtime.pipeline.flush(60)
        until(lambda: list(backups_of(path).values()) == [{".gz"}])
        tell(done=True)
        """,
        tmp_path,
        {"LATENCY_METRICS_FILE_PATH": "m.jsonl"},
    )
    assert done.returncode == -signal.SIGKILL
    assert '"done": true' in done.stdout
    assert len(rows_of(tmp_path / "m.jsonl")) == 1_002


@pytest.mark.promise("fork")
@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.2025-01-01.1", "m.jsonl.2025-01-01.1.gz.part"])
def test_a_fork_while_a_file_is_opened_shares_no_lock_with_the_child(name: str, tmp_path: Path) -> None:
    """The child cannot know a file that the parent's thread has just opened, and would keep its lock for ever."""
    (tmp_path / "m.jsonl.2025-01-01.1").write_text('{"latency_ms": 1}\n')
    done = run_python(
        HAS_ENDED
        + f"""
        import fcntl
        from callbot_latency.reporters import rotation
        name = {name!r}
        is_open, go_on, locked = threading.Event(), threading.Event(), threading.Event()
        os_open, flock = os.open, fcntl.flock
        def held_up(path, *arguments):
            file = os_open(path, *arguments)
            if str(path).endswith("/" + name) and not is_open.is_set():
                is_open.set()
                go_on.wait(60)
            return file
        def noticed(file, how):
            flock(file, how)
            if how != fcntl.LOCK_UN and os.readlink(f"/proc/self/fd/{{file}}").endswith("/" + name):
                locked.set()
                threading.Event().wait()
        os.open, fcntl.flock = held_up, noticed
        init()
        listen()
        assert is_open.wait(60)
        parent = os.getpid()
        if os.fork():
            go_on.set()
            assert locked.wait(60)
            os.kill(parent, signal.SIGKILL)
        while not has_ended(parent):
            time.sleep(0.005)
        flock(os_open(name, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        tell(free=True)
        os._exit(0)
        """,
        tmp_path,
        {"LATENCY_METRICS_FILE_PATH": "m.jsonl"},
    )
    assert done.returncode == -signal.SIGKILL
    assert '"free": true' in done.stdout, done.stderr
