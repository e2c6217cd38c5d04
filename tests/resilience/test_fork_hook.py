"""What we do at the moment of a fork: little, and nothing that waits for anybody."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.subprocesses import facts_of, run_python, written

MOST_CALLS = 500
"""What our part of a fork may call in the child."""


@pytest.mark.promise("fork")
def test_before_a_fork_and_after_it_in_the_parent_we_wait_for_nobody(tmp_path: Path) -> None:
    """We count, and hold back the signals that we handle: whatever our threads hold, the fork takes no longer."""
    done = run_python(
        """
        import subprocess
        code = '''
        import json, os, sys
        hooks, real = [], os.register_at_fork
        def register(**given):
            hooks.extend((when, hook) for when, hook in given.items() if "callbot" in (hook.__module__ or ""))
            real(**given)
        os.register_at_fork = register
        from callbot_latency import init
        init()
        called = set()
        sys.setprofile(lambda frame, event, what: called.add(what.__name__) if event == "c_call" else None)
        for when in ("before", "after_in_parent"):
            for hook_when, hook in hooks:
                if hook_when == when: hook()
        sys.setprofile(None)
        print(json.dumps([sorted(when for when, hook in hooks), sorted(called)]))
        '''
        tell(seen=json.loads(subprocess.check_output([sys.executable, "-c", code])))
        """,
        tmp_path,
    )
    hooks, called = facts_of(done)["seen"]
    assert hooks == ["after_in_child"] * 2 + ["after_in_parent"] * 2 + ["before"] * 2
    assert "pthread_sigmask" in called
    assert not set(called) & {"acquire", "__enter__", "wait", "sleep", "select", "flock", "open", "write", "read"}


@pytest.mark.promise("fork")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "converting"])
def test_a_child_pays_little_and_does_no_io(busy: bool, tmp_path: Path) -> None:
    """Counted in our hook, not timed, in 10 children; while 1,500 measurements wait, too."""
    done = run_python(
        f"""
        from callbot_latency.runtime import lifecycle as runtime
        seen, hook = [], runtime._after_fork_in_child
        inside, calls = False, []
        waits = {{"acquire", "wait", "sleep", "select", "flock", "join"}}
        def profile(frame, event, what):
            if event in ("call", "c_call"):
                calls.append(what.__name__ if event == "c_call" else "")
        def measured():
            global inside
            calls.clear()
            sys.setprofile(profile)
            inside = True
            hook()
            inside = False
            sys.setprofile(None)
            seen.extend([len(calls), sorted(waits & set(calls))])
        main = threading.get_ident()
        events = set()
        def audit(event, _):
            if inside and threading.get_ident() == main: events.add(event)
        sys.addaudithook(audit)
        runtime._after_fork_in_child = measured
        init()
        listen()
        runtime._runtime.pipeline.flush(60)
        facts = []
        for _ in range(10):
            if {busy}:
                for _ in range(1500): listen()
            ear, mouth = os.pipe()
            if os.fork() == 0:
                os.write(mouth, json.dumps([*seen, sorted(events)]).encode())
                os._exit(0)
            facts.append(json.loads(os.read(ear, 10_000)))
            os.wait()
            os.close(ear), os.close(mouth)
        tell(facts=facts)
        """,
        tmp_path,
        timeout_s=115,
    )
    facts: list[Any] = facts_of(done)["facts"]
    counts, waits = [each[0] for each in facts], [each[1] for each in facts]
    sys.stdout.write(f"calls of a child's hook: {counts}; by the name of one that may wait: {waits}\n")
    assert max(counts) < MOST_CALLS
    assert not any(waits)
    assert {event for each in facts for event in each[2]} <= {"_thread.start_new_thread"}


@pytest.mark.promise("fork")
def test_a_child_hangs_on_no_lock_of_opentelemetry_and_tells_its_own_counts_alone(tmp_path: Path) -> None:
    """Its locks are held by other threads at the fork: the reader is in the exporter, another one everywhere else."""
    done = run_python(
        """
        from contextlib import ExitStack
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader

        in_export, leave, counts = threading.Event(), threading.Event(), {}
        class Exporter(MetricExporter):
            def export(self, data, timeout_millis=0, **_):
                for resource in data.resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            points = metric.data.data_points
                            counts[metric.name] = sum(getattr(p, "count", getattr(p, "value", 0)) for p in points)
                if os.getpid() == parent:
                    in_export.set()
                    leave.wait()
                return MetricExportResult.SUCCESS
            def force_flush(self, timeout_millis=0): return True
            def shutdown(self, timeout_millis=0, **_): pass
        parent = os.getpid()
        reader = PeriodicExportingMetricReader(Exporter(), export_interval_millis=3_600_000)
        provider = MeterProvider([reader])
        metrics.set_meter_provider(provider)
        theirs = metrics.get_meter("the application").create_counter("theirs")
        theirs.add(7)
        init()
        for _ in range(200): listen()
        cl.runtime.lifecycle._runtime.pipeline.flush(60)
        threading.Thread(target=reader.collect, daemon=True).start()
        assert in_export.wait(60)

        consumer = provider._measurement_consumer
        storage = consumer._reader_storages[reader]
        ours = [
            match
            for instrument, matches in storage._instrument_view_instrument_matches.items()
            if instrument.instrumentation_scope.name == "callbot_latency"
            for match in matches
        ]
        locks = [consumer._lock, storage._lock, *(match._lock for match in ours)]
        locks += [aggregation._lock for match in ours for aggregation in match._attributes_aggregation.values()]
        held = threading.Event()
        def hold():
            with ExitStack() as stack:
                for lock in locks: stack.enter_context(lock)
                held.set()
                leave.wait()
        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(60)

        child = os.fork()
        if child == 0:
            signal.alarm(60)
            for _ in range(3): listen()
            assert cl.runtime.lifecycle._runtime.pipeline.flush(50)
            counts.clear()
            assert provider.force_flush(50_000)
            assert counts["callbot.operation.duration"] == 3, counts
            assert counts["theirs"] == 7, counts
            os._exit(0 if shutdown(timeout_s=50) else 8)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        leave.set()
        tell(code=code, locks=len(locks))
        """,
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["code"] == 0, done.stderr
    assert facts["locks"] >= 4
    assert len(written(tmp_path)) == 203
