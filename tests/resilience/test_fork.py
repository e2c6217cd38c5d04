"""Children of a process that measures: each measurement stands in the one file, once, as a whole line."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.collectors import http_collector
from tests.support.subprocesses import PATIENT, clean_environment, facts_of, run_python, written


def by_name(folder: Path) -> Counter[str]:
    """How often each operation stands in the file."""
    return Counter(line["operation_name"] for line in written(folder))


def span_ids(folder: Path) -> list[str]:
    """The span id of every line."""
    return [line["span_id"] for line in written(folder)]


@pytest.mark.promise("fork")
@pytest.mark.parametrize("exporter", ["none", "otlp"])
def test_parent_and_child_both_measure(exporter: str, tmp_path: Path) -> None:
    """What waits at the fork is the parent's to tell; both go on, and each tells its own once."""
    done = run_python(
        """
        @measure_latency("speech_to_text")
        def in_child(): pass
        @measure_latency("speech_to_text")
        def in_parent(): pass

        init()
        for _ in range(200): listen()
        child = os.fork()
        if child == 0:
            for _ in range(200): in_child()
            cl.runtime.lifecycle._runtime.pipeline.flush(60)
            names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("callbot"))
            assert len(names) == 7, names
            sys.exit(9)
        for _ in range(200): in_parent()
        tell(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), dropped=dropped.by_reason())
        """,
        tmp_path,
        {
            "OTEL_TRACES_EXPORTER": exporter,
            "OTEL_METRICS_EXPORTER": exporter,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        },
    )
    assert facts_of(done) == {"code": 9, "dropped": {}}
    assert by_name(tmp_path) == {"listen": 200, "in_child": 200, "in_parent": 200}
    assert len(set(span_ids(tmp_path))) == 600
    assert "Traceback" not in done.stderr


@pytest.mark.promise("chaos")
def test_what_was_counted_before_the_fork_is_in_the_parents_metrics_alone(tmp_path: Path) -> None:
    """Under the child's own ``service.instance.id`` the Collector gets what the child measured, from 0 on."""
    with http_collector() as collector:
        done = run_python(
            """
            init()
            for _ in range(5): listen()
            assert cl.runtime.lifecycle._runtime.pipeline.flush(60)
            child = os.fork()
            if child == 0:
                for _ in range(3): listen()
                sys.exit(0 if shutdown(60) else 9)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            listen()
            tell(code=code, ended=shutdown(60))
            """,
            tmp_path,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_METRIC_EXPORT_INTERVAL": "100",
            },
            timeout_s=115,
        )
        assert facts_of(done) == {"code": 0, "ended": True}
    told = [
        (attribute.value.string_value, point.count)
        for request in collector.metrics
        for resource in request.resource_metrics
        for attribute in resource.resource.attributes
        if attribute.key == "service.instance.id"
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "callbot.operation.duration"
        for point in metric.histogram.data_points
    ]
    assert sorted(max(n for each, n in told if each == instance) for instance in {each for each, _ in told}) == [3, 6]


@pytest.mark.promise("fork")
def test_an_operation_that_is_open_at_the_fork_is_told_once(tmp_path: Path) -> None:
    """It ends in both processes; the parent tells it, the child does not."""
    done = run_python(
        """
        init()
        with measure_latency_context("rag_inference", "open"):
            child = os.fork()
            with measure_latency_context("rag_inference", "inner"):
                pass
        if child == 0:
            sys.exit()
        tell(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        tmp_path,
    )
    assert facts_of(done) == {"code": 0}
    assert by_name(tmp_path) == {"inner": 2, "open": 1}
    assert done.stderr == ""


@pytest.mark.promise("fork")
def test_a_turn_that_is_open_at_the_fork_is_told_once(tmp_path: Path) -> None:
    """It ends in both processes; the parent tells it, the child does not, and hangs on no lock of the call's.

    What the child opens itself, it tells.
    """
    done = run_python(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor
        ended = []
        class Ends(SpanProcessor):
            def on_end(self, span):
                if span.name == cl.semconv.TURN_SPAN: ended.append(span.context.span_id)

        init()
        trace.get_tracer_provider().add_span_processor(Ends())
        held, leave = threading.Event(), threading.Event()
        def hold(lock):
            with lock:
                held.set()
                leave.wait()
        bound = cl.call("CA1")
        with bound:
            with cl.turn() as opened:
                with measure_latency_context("rag_inference", "before"): pass
                holding = threading.Thread(target=hold, args=(bound.timeline._lock,))
                holding.start()
                held.wait(60)
                child = os.fork()
                if child == 0: signal.alarm(60)
                leave.set()
                opened.audio_sent()
                with measure_latency_context("rag_inference", "after"): pass
            with cl.turn():
                pass
        if child == 0:
            os._exit(len(ended) if shutdown(60) else 8)
        holding.join()
        tell(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ended=len(ended))
        """,
        tmp_path,
    )
    assert facts_of(done) == {"code": 1, "ended": 2}
    assert done.stderr == ""
    turns = [line for line in written(tmp_path) if line.get("kind") == "turn"]
    assert sorted(turn["turn"] for turn in turns) == [1, 2, 2]
    assert len({turn["span_id"] for turn in turns}) == 3
    assert [turn["operations"] for turn in turns if turn["turn"] == 1] == [2]


def test_a_child_that_starts_and_ends_measuring_itself(tmp_path: Path) -> None:
    """`shutdown()` and `init()` in the child are its own; also where the parent ended before the fork."""
    done = run_python(
        """
        init(); listen()
        codes = []
        for ended in (False, True):
            if ended:
                shutdown()
            child = os.fork()
            if child == 0:
                shutdown(); init(); listen(); shutdown(); listen()
                os._exit(threading.active_count())
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        tell(codes=codes)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"codes": [1, 1]}
    assert by_name(tmp_path) == {"listen": 3}
    assert done.stderr == ""


def test_grandchildren_measure_too(tmp_path: Path) -> None:
    """Three generations, one line each."""
    done = run_python(
        """
        init()
        for generation in range(3):
            if os.fork():
                os.wait()
                break
        listen()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert by_name(tmp_path) == {"listen": 4}


@pytest.mark.promise("fork")
@pytest.mark.parametrize("exporter", ["none", "prometheus"])
def test_forks_while_other_threads_measure(exporter: str, tmp_path: Path) -> None:
    """20 forks under load: no child hangs on a lock that a thread of the parent held."""
    done = run_python(
        """
        @measure_latency("speech_to_text")
        def in_child(): pass

        init()
        over = threading.Event()
        def load():
            while not over.is_set():
                for _ in range(50): listen()
                over.wait(0.005)
        def read():
            while not over.is_set():
                latency_tracker.get_stats()
                over.wait(0.005)
        threads = [threading.Thread(target=target, daemon=True) for target in (load, load, load, read)]
        for thread in threads: thread.start()
        codes = []
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                for _ in range(10): in_child()
                os._exit(0 if shutdown(timeout_s=60) else 8)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()
        for thread in threads: thread.join()
        tell(codes=codes)
        """,
        tmp_path,
        {"OTEL_METRICS_EXPORTER": exporter, "OTEL_EXPORTER_PROMETHEUS_PORT": "0"},
        timeout_s=115,
    )
    assert facts_of(done) == {"codes": [0] * 20}
    assert by_name(tmp_path)["in_child"] == 200
    assert "Traceback" not in done.stderr


@pytest.mark.promise("fork")
def test_a_child_goes_on_whatever_lock_the_worker_holds(tmp_path: Path) -> None:
    """The parent's worker hangs in the middle of an instrument, for good: the child's own gets through all the same."""
    done = run_python(
        """
        from opentelemetry.sdk.metrics._internal import _view_instrument_match as inside
        match = inside._ViewInstrumentMatch
        real, entered, leave = match.consume_measurement, threading.Event(), threading.Event()

        def slow(self, *args, **kwargs):
            with self._lock:
                if not entered.is_set():
                    entered.set()
                    leave.wait()
            return real(self, *args, **kwargs)

        match.consume_measurement = slow
        init()
        listen()
        entered.wait(60)
        child = os.fork()
        if child == 0:
            listen()
            os._exit(0 if shutdown(timeout_s=60) else 8)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        leave.set()
        tell(code=code)
        """,
        tmp_path,
        {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "0"},
    )
    assert facts_of(done) == {"code": 0}
    assert by_name(tmp_path) == {"listen": 2}


BOT = (
    PATIENT
    + """
import os
from callbot_latency import init, measure_latency

@measure_latency("rag_inference")
def answer(n):
    return os.getpid()
"""
)


@pytest.mark.promise("workers")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_measure(method: str, tmp_path: Path) -> None:
    """Processes and pools of each start method: their measurements reach the file before they end."""
    (tmp_path / "bot.py").write_text(BOT)
    starts = "" if method == "fork" else "bot.init()"
    (tmp_path / "work.py").write_text(f"""
import bot
def work(n):
    {starts or "pass"}
    for _ in range(50):
        bot.answer(n)
def one(n):
    {starts or "pass"}
    return bot.answer(n)
""")
    done = run_python(
        f"""
        sys.path.insert(0, "")
        import multiprocessing, work
        from concurrent.futures import ProcessPoolExecutor
        context = multiprocessing.get_context("{method}")
        init()
        listen()
        children = [context.Process(target=work.work, args=(n,)) for n in range(3)]
        for child in children: child.start()
        for child in children: child.join(300)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            pids = set(pool.map(work.one, range(40)))
        with context.Pool(2) as pool:
            pool.map(work.one, range(10))
            pool.close()
            pool.join()
        tell(codes=[child.exitcode for child in children], elsewhere=os.getpid() not in pids)
        """,
        tmp_path,
        {"PYTHONPATH": f"{clean_environment()['PYTHONPATH']}:{tmp_path}"},
        timeout_s=380,
    )
    assert facts_of(done) == {"codes": [0, 0, 0], "elsewhere": True}
    assert by_name(tmp_path) == {"listen": 1, "answer": 3 * 50 + 40 + 10}
    assert len(set(span_ids(tmp_path))) == 201
    assert "Traceback" not in done.stderr


@pytest.mark.promise("workers")
def test_a_child_that_fails_or_is_terminated_keeps_its_measurements(tmp_path: Path) -> None:
    """A forked Process that raises, or gets SIGTERM: what it measured stands in the file, and its exit code stays."""
    done = run_python(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        def fails():
            for _ in range(50): listen()
            raise ValueError("the application failed")
        def waits():
            for _ in range(50): listen()
            ready.set()
            # In short waits: Python runs no handler for a signal that comes just before a wait begins.
            for _ in range(2_000): threading.Event().wait(0.05)
        init()
        first, second = context.Process(target=fails), context.Process(target=waits)
        first.start(); first.join(60)
        second.start(); ready.wait(60); second.terminate(); second.join(60)
        tell(codes=[first.exitcode, second.exitcode])
        """,
        tmp_path,
    )
    assert facts_of(done) == {"codes": [1, -15]}
    assert by_name(tmp_path) == {"listen": 100}


def test_a_subprocess_inherits_nothing(tmp_path: Path) -> None:
    """Programs that the application starts get neither our descriptors nor our handlers."""
    done = run_python(
        """
        import subprocess
        init()
        listen()
        # What the worker saw is written within 0.15 s; the open file is what must not be inherited.
        deadline_s = time.monotonic() + 60
        while not os.path.exists("outputs/logs/latency_metrics.jsonl") and time.monotonic() < deadline_s:
            threading.Event().wait(0.01)
        code = "import os, signal, sys; os.system('ls -l /proc/self/fd'); sys.exit(int(signal.getsignal(15)))"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, close_fds=False, preexec_fn=lambda: None
        )
        tell(out=said.stdout, code=said.returncode)
        """,
        tmp_path,
    )
    facts = facts_of(done)
    assert "/dev/null" in facts["out"] or "pipe" in facts["out"]
    assert "jsonl" not in facts["out"]
    assert facts["code"] == 0
    assert by_name(tmp_path) == {"listen": 1}


@pytest.mark.promise("fork")
@pytest.mark.timeout(300)
def test_a_hundred_forks_while_each_lock_of_ours_is_held_in_turn(tmp_path: Path) -> None:
    """By another thread of the parent, which the child does not have: every call of ours goes through there."""
    done = run_python(
        """
        import gc
        from callbot_latency import report_manager
        from callbot_latency.runtime import lifecycle as runtime
        class Kept:
            def report(self, batch): pass
        @measure_latency("speech_to_text")
        def in_child(): pass

        LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
        def locks():
            yield runtime, "_lifecycle"
            for thing in gc.get_objects():
                if type(thing).__module__.startswith("callbot_latency"):
                    for name, value in list(getattr(thing, "__dict__", {}).items()):
                        if isinstance(value, LOCKS): yield thing, name

        def hold(lock, held, leave):
            # A lane's thread keeps its own turn for good: that is held already.
            mine = lock.acquire(timeout=0.05)
            held.set()
            leave.wait()
            if mine: lock.release()

        init()
        report_manager.add_reporter(Kept())
        cl.add_alert_callback(str)
        listen()
        found, codes, children = list(locks()), {}, []
        def end(child, of):
            codes.setdefault(of, []).append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        for n in range(max(100, len(found))):
            thing, name = found[n % len(found)]
            held, leave = threading.Event(), threading.Event()
            holding = threading.Thread(target=hold, args=(getattr(thing, name), held, leave))
            holding.start()
            held.wait(60)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                in_child()
                latency_tracker.get_stats(), dropped.by_reason(), report_manager.status()
                cl.add_alert_callback(str)
                report_manager.add_reporter(Kept())
                ended = shutdown(timeout_s=60)
                init()
                os._exit(0 if ended and shutdown(timeout_s=60) else 8)
            leave.set()
            holding.join()
            children.append((child, f"{type(thing).__name__}.{name}"))
            if len(children) == 4: end(*children.pop(0))
        for child in children: end(*child)
        failed = {name: each for name, each in codes.items() if any(each)}
        tell(failed=failed, locks=sorted(codes), forks=n + 1)
        """,
        tmp_path,
        timeout_s=280,
    )
    facts = facts_of(done)
    assert facts["failed"] == {}
    assert facts["forks"] >= 100
    assert {"Lane._changed", "Pipeline._lock", "ReportManager._lock", "LatencyTracker._lock"} < set(facts["locks"])
    assert by_name(tmp_path) == {"listen": 1, "in_child": facts["forks"]}
    assert "Traceback" not in done.stderr


@pytest.mark.promise("lifecycle")
def test_a_fork_while_nothing_runs_or_amid_a_start_leaves_a_child_that_can_start(tmp_path: Path) -> None:
    """Another thread reads while we are off, then is in the middle of `init()`: the child hangs in neither."""
    done = run_python(
        """
        from callbot_latency.runtime import lifecycle as runtime
        init()
        listen()
        shutdown()

        def child_of(thread, ready, leave):
            thread.start()
            assert ready.wait(60)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                latency_tracker.get_stats(), latency_tracker.reset_stats()
                listen()
                before = len(latency_tracker.metrics)
                init()
                listen()
                after = len(latency_tracker.metrics)
                os._exit(0 if shutdown(timeout_s=60) and (before, after) == (0, 1) else 8)
            leave.set()
            thread.join()
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        ready, leave = threading.Event(), threading.Event()
        def reads():
            with latency_tracker._lock:
                ready.set()
                leave.wait()
        reading = child_of(threading.Thread(target=reads), ready, leave)

        ready, leave = threading.Event(), threading.Event()
        connect = type(latency_tracker).connect
        def slowly(self, session, drain, discard):
            type(latency_tracker).connect = connect
            connect(self, session, drain, discard)
            with session.submit.__self__._lock:
                ready.set()
                leave.wait()
        type(latency_tracker).connect = slowly
        starting = child_of(threading.Thread(target=init), ready, leave)
        shutdown()
        tell(reading=reading, starting=starting)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"reading": 0, "starting": 0}
    assert by_name(tmp_path) == {"listen": 3}


@pytest.mark.promise("lifecycle")
def test_a_session_that_is_ended_while_another_thread_forks_ends(tmp_path: Path) -> None:
    """Its worker, which was asked to wait for the fork, goes on, writes what it has, and is gone."""
    done = run_python(
        """
        def end():
            # Between the fork's beginning and the fork itself: hooks run the last registered first.
            ending = threading.Thread(target=shutdown, args=(0.1,))
            ending.start()
            ending.join()

        os.register_at_fork(before=end)
        init()
        worker = cl.runtime.lifecycle._runtime.pipeline._thread
        listen()
        child = os.fork()
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        worker.join(60)
        tell(alive=worker.is_alive(), seen=len(latency_tracker.metrics))
        """,
        tmp_path,
    )
    assert facts_of(done) == {"alive": False, "seen": 1}


@pytest.mark.promise("fork")
def test_a_reporter_that_forks_leaves_the_child_its_own_counts(tmp_path: Path) -> None:
    """The lane's thread goes on in the child, out of `report()`: it ends there, and what it had is the parent's."""
    done = run_python(
        """
        children = []
        class Forking:
            def report(self, batch):
                if children:
                    seen.append((threading.current_thread(), len(batch)))
                    return
                children.append(os.fork())
                if children == [0]:
                    threading.Thread(target=goes_on, args=(threading.current_thread(),)).start()

        def goes_on(inherited):
            signal.alarm(100)
            inherited.join(60)
            alive = inherited.is_alive()
            for _ in range(20): listen()
            flushed = cl.runtime.lifecycle._runtime.pipeline.flush(60)
            status = cl.report_manager.status()["forking"]
            tell(
                alive=alive, flushed=flushed, elsewhere=all(each is not inherited for each, _ in seen),
                counts=[status.accepted, status.delivered, status.pending, sum(n for _, n in seen)],
            )
            os._exit(0 if shutdown(60) else 8)

        seen = []
        init()
        cl.report_manager.add_reporter(Forking(), name="forking")
        listen()
        assert cl.runtime.lifecycle._runtime.pipeline.flush(60)
        status = cl.report_manager.status()["forking"]
        code = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
        print("PARENT", code, status.accepted, status.delivered, status.pending)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"alive": False, "flushed": True, "elsewhere": True, "counts": [20, 20, 0, 20]}
    assert "PARENT 0 1 1 0" in done.stdout
    assert by_name(tmp_path) == {"listen": 21}


@pytest.mark.promise("fork")
def test_a_fork_while_another_thread_reads_the_settings(tmp_path: Path) -> None:
    """The child reads them too: nothing of theirs is locked for all of a class."""
    done = run_python(
        """
        from callbot_latency import config
        real, entered, leave = config.Thresholds, threading.Event(), threading.Event()

        def slow(by_type):
            if threading.current_thread().name == "slow":
                entered.set()
                leave.wait()
            return real(by_type)

        config.Thresholds = slow
        reading = threading.Thread(target=lambda: config.LatencyConfig().thresholds, name="slow")
        reading.start()
        entered.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            config.LatencyConfig().thresholds
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        leave.set()
        reading.join()
        tell(code=code)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"code": 7}


@pytest.mark.promise("fork")
@pytest.mark.parametrize("room", ["none", "one"])
def test_a_child_without_room_for_threads_measures_nothing_and_says_so(room: str, tmp_path: Path) -> None:
    """Nobody could report it; its code runs unharmed, and its end waits for nobody. The parent goes on.

    What ends before that is known is counted.
    """
    done = run_python(
        """
        import logging
        from callbot_latency.runtime import lifecycle
        logging.basicConfig(format="%(message)s")
        measured = threading.Event()
        def no_room(*_):
            if threading.current_thread() is not threading.main_thread():
                measured.wait(60)
            raise RuntimeError("can't start new thread")
        class NoRoom:
            start_new_thread = no_room

        init()
        start = threading.Thread.start
        threading.Thread.start = no_room
        if os.environ["ROOM"] == "none":
            lifecycle._thread = NoRoom
        child = os.fork()
        if child == 0:
            listen()
            measured.set()
            deadline_s = time.monotonic() + 60
            while lifecycle._runtime is not None and time.monotonic() < deadline_s:
                time.sleep(0.001)
            heard = [listen() for _ in range(5)]
            tell(heard=len(heard), tracked=len(latency_tracker.metrics), ended=shutdown(60), lost=dropped.by_reason())
            os._exit(0)
        threading.Thread.start = start
        assert os.waitpid(child, 0)[1] == 0
        listen()
        assert shutdown(60)
        """,
        tmp_path,
        {"ROOM": room},
    )
    lost = {"no_time": 1} if room == "one" else {}
    assert facts_of(done) == {"heard": 5, "tracked": 0, "ended": True, "lost": lost}
    assert done.stderr.count("no thread can be started in this forked process") == 1
    assert by_name(tmp_path) == {"listen": 1}


@pytest.mark.promise("fork")
@pytest.mark.parametrize("default", ["", "signal.signal(signal.SIGINT, signal.SIG_DFL)"], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_child_without_room_for_threads(default: str, tmp_path: Path) -> None:
    """What it would do elsewhere before it goes it leaves."""
    done = run_python(
        f"""
        import _thread
        from callbot_latency.runtime import process_exit as exits
        number = signal.SIGINT if {default!r} else signal.SIGTERM
        {default}
        def no_room(*_):
            raise RuntimeError("can't start new thread")
        init()
        child = os.fork()
        if child == 0:
            threading.Thread.start = _thread.start_new_thread = no_room
            os.kill(os.getpid(), number)
            time.sleep(100)
            os._exit(7)
        tell(by_the_signal=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number)
        """,
        tmp_path,
    )
    assert facts_of(done) == {"by_the_signal": True}


@pytest.mark.promise("fork")
def test_a_child_that_is_told_to_end_at_once_ends(tmp_path: Path) -> None:
    """Python forgets the signals that reach a child before it is set up, where it handles them."""
    done = run_python(
        """
        import multiprocessing
        init()
        context = multiprocessing.get_context("fork")
        codes = []
        def stay():
            # One long sleep would miss a signal that comes just before it begins.
            for _ in range(1_000): time.sleep(0.1)
        for _ in range(20):
            child = context.Process(target=stay)
            child.start()
            child.terminate()
            child.join(60)
            codes.append(child.exitcode)
            child.kill()
        tell(codes=codes, blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        """,
        tmp_path,
        timeout_s=115,
    )
    assert facts_of(done) == {"codes": [-signal.SIGTERM] * 20, "blocked": 0}


@pytest.mark.promise("fork")
def test_a_signal_soon_after_a_fork_drops_nothing_of_the_parents(tmp_path: Path) -> None:
    """A thread of the parent measures meanwhile; its buffers are not the child's to count."""
    done = run_python(
        """
        init()
        over = threading.Event()
        def measure():
            while not over.wait(0.0005): listen()
        measuring = threading.Thread(target=measure)
        measuring.start()
        codes = []
        for n in range(30):
            child = os.fork()
            if child == 0:
                # One long sleep would miss a signal that comes just before it begins.
                for _ in range(1_000): time.sleep(0.1)
                os._exit(7)
            time.sleep(n / 15_000)
            os.kill(child, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()
        measuring.join()
        tell(codes=sorted(set(codes)))
        """,
        tmp_path,
        timeout_s=115,
    )
    assert facts_of(done) == {"codes": [-signal.SIGTERM]}
    assert done.stderr == ""
