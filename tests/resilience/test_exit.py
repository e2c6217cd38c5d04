"""However the process ends: what was measured stands in the file; exit code and signal handlers are as without us."""

import signal
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from tests.support.collectors import HANGING_EXPORTS, silent
from tests.support.subprocesses import (
    at_once,
    clean_environment,
    command,
    count_written,
    facts_of,
    run_python,
    until,
    written,
)

MEASURE = "init()\nfor _ in range(500): listen()\n"
WAIT = """
tell(ready=True)
threading.Event().wait(100)
"""


def end_by(
    number: signal.Signals,
    code: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], object] = lambda: None,
) -> tuple[int, str, str]:
    """Run `code`, send the signal once it tells its first facts, and return exit code, output and errors.

    `before` runs in between.
    """
    with subprocess.Popen(
        command(code),
        cwd=cwd,
        env=clean_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            before()
            process.send_signal(number)
            out, err = process.communicate(timeout=100)
        except BaseException:
            process.kill()
            raise
    assert first.startswith("FACTS"), err
    return process.returncode, out, err


@pytest.mark.promise("process-end")
@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no line free')", 1, "no line free"),
        ("raise ValueError('the application failed')", 1, "ValueError: the application failed"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("shutdown(); sys.exit(4)", 4, ""),
    ],
)
def test_each_end_keeps_the_file_and_the_exit_code(ending: str, code: int, said: str, tmp_path: Path) -> None:
    """500 measurements wait when the process ends: 500 lines, the exit code it would have had, no word of ours."""
    done = run_python(MEASURE + ending, tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("Traceback") == (1 if "Error" in said or "Interrupt" in said else 0)
    assert "callbot_latency" not in done.stderr
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("killed-process")
def test_an_end_without_goodbye_leaves_whole_lines(tmp_path: Path) -> None:
    """os._exit and SIGKILL give nobody a chance: what was written by then is whole."""
    measure = "init()\nfor _ in range(2_000): listen()\nlen(latency_tracker.metrics)\n"
    endings = ("os._exit(5)", "os.kill(os.getpid(), signal.SIGKILL)")
    first, second = at_once(lambda ending: run_python(measure + ending, tmp_path), endings)
    assert (first.returncode, second.returncode) == (5, -signal.SIGKILL)
    assert len(written(tmp_path)) <= 4_000


@pytest.mark.promise("process-end")
def test_sigterm_while_the_main_thread_waits(tmp_path: Path) -> None:
    """Nothing handles SIGTERM but us: the file is written, and the process dies of SIGTERM all the same."""
    code, _, err = end_by(signal.SIGTERM, MEASURE + WAIT, tmp_path)
    assert (code, err) == (-signal.SIGTERM, "")
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("process-end")
def test_ctrl_c_while_the_main_thread_waits(tmp_path: Path) -> None:
    """Ctrl-C is the application's KeyboardInterrupt, and the file is written."""
    code, _, err = end_by(signal.SIGINT, MEASURE + WAIT, tmp_path)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "callbot_latency" not in err
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("process-end")
def test_ctrl_c_where_the_default_of_the_system_is_set(tmp_path: Path) -> None:
    """As uvicorn's workers under gunicorn do: without a handler it would end the process on the spot."""
    default = "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    code, _, err = end_by(signal.SIGINT, default + MEASURE + WAIT, tmp_path)
    assert (code, err) == (-signal.SIGINT, "")
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("process-end")
def test_sigterm_keeps_its_bound_beside_a_silent_collector(tmp_path: Path) -> None:
    """The process dies in time though nobody takes the spans for 60 s; what waits is written meanwhile."""
    bounded, patient = tmp_path / "bounded", tmp_path / "patient"
    bounded.mkdir()
    patient.mkdir()
    with silent() as url:
        environment = {**HANGING_EXPORTS, "OTEL_EXPORTER_OTLP_ENDPOINT": url}

        def ends() -> tuple[int, float]:
            code = MEASURE + "until(lambda: has_delivered(500))\nkeep_the_bound()\n"
            code += "tell(ready=True)\nthreading.Event().wait(100)"
            signalled_s: list[float] = []
            ended, _, _ = end_by(
                signal.SIGTERM, code, bounded, environment, before=lambda: signalled_s.append(monotonic())
            )
            return ended, monotonic() - signalled_s[0]

        def writes() -> None:
            with subprocess.Popen(
                command(MEASURE + WAIT),
                cwd=patient,
                env=clean_environment(environment),
                stdout=subprocess.PIPE,
            ) as process:
                assert process.stdout is not None
                try:
                    process.stdout.readline()
                    process.send_signal(signal.SIGTERM)
                    until(lambda: count_written(patient) == 500, "what waited")
                    assert process.poll() is None, "the Collector is not waited for"
                finally:
                    process.kill()

        with ThreadPoolExecutor() as pool:
            ending, writing = pool.submit(ends), pool.submit(writes)
            (code, took_s), _ = ending.result(), writing.result()
    assert code == -signal.SIGTERM
    assert took_s < 10
    assert len(written(bounded)) == len(written(patient)) == 500


@pytest.mark.promise("process-end")
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_applications_sigterm_handler_runs_once(when: str, tmp_path: Path) -> None:
    """Set before `init()` or after: it runs once, with its arguments, and decides how the process ends."""
    handler = """
def on_sigterm(number, frame):
    print("HANDLED", number, frame is not None, flush=True)
    sys.exit(7)
"""
    install = "signal.signal(signal.SIGTERM, on_sigterm)\n"
    start = install + MEASURE if when == "before" else MEASURE + install
    code, out, err = end_by(signal.SIGTERM, handler + start + WAIT, tmp_path)
    assert (code, err) == (7, "")
    assert out.count("HANDLED 15 True") == 1
    assert len(written(tmp_path)) == 500


def test_a_handler_that_goes_on_goes_on_measuring(tmp_path: Path) -> None:
    """An application that takes SIGTERM as a wish and finishes its calls loses none of them."""
    code, out, err = end_by(
        signal.SIGTERM,
        """
over = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())
"""
        + MEASURE
        + """
tell(ready=True)
over.wait(100)
for _ in range(100): listen()
tell(seen=len(latency_tracker.metrics))
""",
        tmp_path,
    )
    assert (code, err) == (0, "")
    assert '"seen": 600' in out
    assert len(written(tmp_path)) == 600


def test_an_ignored_sigterm_stays_ignored(tmp_path: Path) -> None:
    """SIG_IGN, set before `init()`, is what SIGTERM still meets."""
    done = run_python(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + MEASURE
        + """
os.kill(os.getpid(), signal.SIGTERM)
tell(ignored=signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
""",
        tmp_path,
    )
    assert facts_of(done) == {"ignored": True}
    assert len(written(tmp_path)) == 500


def test_handlers_of_other_signals_are_not_touched(tmp_path: Path) -> None:
    """SIGINT, SIGHUP, SIGQUIT, SIGCHLD, SIGUSR1: as before `init()`; SIGTERM once ours, not once a session."""
    done = run_python(
        """
        numbers = [n for n in signal.valid_signals() if n != signal.SIGTERM]
        before = [repr(signal.getsignal(n)) for n in numbers]
        init()
        first = signal.getsignal(signal.SIGTERM)
        shutdown()
        init()
        same = before == [repr(signal.getsignal(n)) for n in numbers]
        tell(same=same, once=signal.getsignal(signal.SIGTERM) is first)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"same": True, "once": True}


def test_sigterm_after_shutdown_is_death_by_sigterm(tmp_path: Path) -> None:
    """Our handler stays after `shutdown()`, and changes nothing."""
    done = run_python(
        MEASURE + "shutdown()\nos.kill(os.getpid(), signal.SIGTERM)\nthreading.Event().wait(100)", tmp_path
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("process-end")
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_event_loops_own_handler_runs(when: str, tmp_path: Path) -> None:
    """``loop.add_signal_handler(SIGTERM, ...)`` set before `init()` or after it is called in the loop, once."""
    add = "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)"
    first, second = (add, "init()") if when == "before" else ("init()", add)
    code, out, err = end_by(
        signal.SIGTERM,
        f"""
import asyncio
async def main():
    over = asyncio.Event()
    {first}
    {second}
    for _ in range(500): listen()
    tell(ready=True)
    await asyncio.wait_for(over.wait(), 100)
    listen()
    print("OVER", flush=True)
asyncio.run(main())
sys.exit(6)
""",
        tmp_path,
    )
    assert (code, err) == (6, "")
    assert out.count("OVER") == 1
    assert len(written(tmp_path)) == 501


def test_init_in_a_thread_leaves_sigterm_to_the_application(tmp_path: Path) -> None:
    """Python lets the main thread alone set handlers; a later `init()` there sets ours."""
    done = run_python(
        """
        def elsewhere(): init(); listen(); shutdown()
        thread = threading.Thread(target=elsewhere)
        thread.start(); thread.join()
        default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        init()
        for _ in range(10): listen()
        tell(default=default)
        os.kill(os.getpid(), signal.SIGTERM)
        """,
        tmp_path,
    )
    assert done.returncode == -signal.SIGTERM
    assert '"default": true' in done.stdout
    assert done.stderr == ""
    assert len(written(tmp_path)) == 11


@pytest.mark.parametrize("app_handler", ["None", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"])
def test_sigterm_while_statistics_are_read_loses_no_line(app_handler: str, tmp_path: Path) -> None:
    """The interrupted read holds a lock that the worker needs: it goes on, and everything that finished is written."""
    code = f"""
    {app_handler}
    init()
    for _ in range(10_000): listen()
    latency_tracker.get_stats()
    def measure():
        for _ in range(70): listen()
        tell(ready=True)
    # Kept, since Python swallows what a handler raises in the weakref callback of a thread that is collected.
    measuring = threading.Thread(target=measure)
    measuring.start()
    while True:
        latency_tracker._forget_stats()
        latency_tracker.get_stats()
    """
    code_of_exit, _, err = end_by(signal.SIGTERM, code, tmp_path)
    assert code_of_exit == (-signal.SIGTERM if app_handler == "None" else 7), err
    assert err == ""
    assert len(written(tmp_path)) == 10_070


@pytest.mark.promise("interrupted-code")
def test_sigterm_in_the_middle_of_shutdown_or_a_read(tmp_path: Path) -> None:
    """A signal that meets the main thread inside of our own locks ends the process in time, and hangs nowhere."""
    done = run_python(
        """
        import itertools
        init()
        goes_on = threading.Event()
        def send():
            goes_on.wait()
            threading.Event().wait(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2_000): listen()
        threading.Thread(target=send, daemon=True).start()
        for n in itertools.count():
            listen()
            latency_tracker.get_stats()
            latency_tracker.snapshot()
            if n % 50 == 49:
                goes_on.set()
                shutdown()
                init()
        """,
        tmp_path,
    )
    assert done.returncode == -signal.SIGTERM
    assert "Traceback" not in done.stderr
    assert len(written(tmp_path)) > 2_000


@pytest.mark.promise("process-end")
def test_the_end_starts_no_thread(tmp_path: Path) -> None:
    """Python 3.12 starts none while it ends: all is written all the same, also where SIGTERM comes meanwhile."""
    done = run_python(
        """
        import _thread
        init()
        for _ in range(500): listen()
        def refuse(*arguments, **named):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        def ending():
            _thread.start_new_thread = threading._start_new_thread = threading._start_joinable_thread = refuse
            os.kill(os.getpid(), signal.SIGTERM)
        atexit.register(ending)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("cancellation")
def test_a_hundred_calls_at_once_and_ctrl_c(tmp_path: Path) -> None:
    """100 tasks measure when Ctrl-C comes: the application's KeyboardInterrupt, whole lines, cancelled ones told."""
    code, out, err = end_by(
        signal.SIGINT,
        """
import asyncio
@measure_latency("rag_inference")
async def ask():
    await asyncio.sleep(60)

@measure_latency("text_to_speech")
async def speak():
    while True:
        yield b"."
        await asyncio.sleep(0.001)

async def one(n):
    async with cl.call(f"CA{n}"):
        listen()
        if n == 99:
            tell(ready=True)
        if n % 2:
            await ask()
        async for _ in speak():
            pass

async def main():
    init()
    await asyncio.gather(*(one(n) for n in range(100)))

asyncio.run(main())
""",
        tmp_path,
    )
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "callbot_latency failed" not in err
    assert "Task exception was never retrieved" not in err
    assert "detach" not in err
    lines = written(tmp_path)
    listened = {line["call_sid"] for line in lines if line["operation_name"] == "listen"}
    assert listened == {f"CA{n}" for n in range(100)}
    others = [line for line in lines if line["operation_name"] != "listen"]
    assert {line["status"] for line in others} == {"cancelled"}
    assert len({line["call_sid"] for line in others}) == 100


@pytest.mark.promise("process-end")
@pytest.mark.parametrize("where", ["before", "in the lifespan"])
def test_uvicorn_that_is_told_to_end_loses_nothing(where: str, tmp_path: Path) -> None:
    """SIGTERM: it closes its application, which still measures, and dies of the signal as without us."""
    before, within = ("init()", "") if where == "before" else ("", "init()")
    code, _, err = end_by(
        signal.SIGTERM,
        f"""
import uvicorn
async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    {within}
    for _ in range(500): listen()
    await send({{"type": "lifespan.startup.complete"}})
    tell(ready=True)
    assert (await receive())["type"] == "lifespan.shutdown"
    listen()
    {"shutdown()" if within else ""}
    await send({{"type": "lifespan.shutdown.complete"}})
{before}
uvicorn.run(app, port=0, log_level="warning")
""",
        tmp_path,
    )
    assert (code, err) == (-signal.SIGTERM, "")
    assert len(written(tmp_path)) == 501
