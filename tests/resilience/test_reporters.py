"""Reporters that hang, fail or are away: what they cost the process, its end, its children and its traces."""

from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.collectors import HANGING_EXPORTS, refusing, silent
from tests.support.subprocesses import at_once, facts_of, run_python, written

REPORTERS = """
import socket, urllib.parse, urllib.request
from callbot_latency import PermanentError, TransientError, report_manager

class BlackHole:
    def __init__(self):
        self.entered = threading.Event()
    def report(self, batch):
        self.entered.set()
        threading.Event().wait()
    def notify(self, alert):
        threading.Event().wait()
    def close(self):
        threading.Event().wait()

class Away:
    entered = threading.Event()
    def report(self, batch):
        self.entered.set()
        raise TransientError("connection refused")

class Kept:
    def __init__(self): self.names = []
    def report(self, batch): self.names += [metric.operation_name for metric in batch]
"""
BOUND_S = 10.0
"""The end has 2 s for all together. In turn those that hang would take over 30 s, and each by itself for ever."""


@pytest.mark.promise("end-in-time")
@pytest.mark.parametrize("collector", [silent, refusing])
def test_the_end_keeps_its_bound_though_every_reporter_hangs(collector: object, tmp_path: Path) -> None:
    """Twenty black holes, one that is away, a Collector that hangs or refuses: 10 s in all, and the file is whole.

    With 60 s for the end, what waits is written while they hang.
    """
    holes = """
holes = [BlackHole() for _ in range(20)]
for reporter in (*holes, Away()):
    report_manager.add_reporter(reporter)
init()
for _ in range(500): listen()
for hole in holes: hole.entered.wait(60)
Away.entered.wait(60)
"""
    written_first = "until(lambda: has_delivered(500))\nkeep_the_bound()\n"
    # They hang until the file is whole, which the end alone makes it.
    written_last = """
until(lambda: has_delivered(500))
def write_what_waits():
    for _ in range(500): listen()
    shutdown()
whole = lambda: open("outputs/logs/latency_metrics.jsonl").read().count("\\n") == 1_000
threading.Thread(target=lambda: (until(whole), tell(whole=True), os._exit(0)), daemon=True).start()
"""
    ends = {
        "none": written_first + "tell(ending_s=time.monotonic())",
        "exit": written_first + "tell(ending_s=time.monotonic())\nsys.exit(0)",
        "shutdown": written_first + "tell(ending_s=time.monotonic())\nshutdown()",
        "patient": written_last + "write_what_waits()",
    }
    with collector() as url:  # type: ignore[operator]
        environment = {
            **HANGING_EXPORTS,
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
        }

        def ended(end: str) -> tuple[dict[str, Any], float]:
            (tmp_path / end).mkdir()
            done = run_python(REPORTERS + holes + ends[end], tmp_path / end, environment)
            over_s = monotonic()
            assert "Traceback" not in done.stderr, done.stderr
            return facts_of(done), over_s

        *bounded, (patient, _) = at_once(ended, ends)
    assert [
        end for end, (facts, over_s) in zip(ends, bounded, strict=False) if over_s - facts["ending_s"] > BOUND_S
    ] == []
    assert patient == {"whole": True}
    assert [len(written(tmp_path / end)) for end in ends] == [500, 500, 500, 1_000]


@pytest.mark.promise("end-in-time")
@pytest.mark.parametrize("end", ["", "sys.exit(0)", "shutdown(timeout_s=2)"])
def test_collector_slack_pushgateway_and_influxdb_hang_at_once(end: str, tmp_path: Path) -> None:
    """The real reporters, six of each, with something in hand that nobody takes: 10 s in all, and the file is whole."""
    with silent() as url:
        done = run_python(
            f"""
from callbot_latency import InfluxDBReporter, PrometheusReporter, report_manager
from callbot_latency.reporters.slack import SlackReporter
for n in range(2, 7):
    report_manager.add_reporter(SlackReporter(f"{url.replace("http", "https")}/services/T/B/{{n}}", timeout_s=60))
    report_manager.add_reporter(PrometheusReporter(f"{url}/{{n}}"))
    report_manager.add_reporter(InfluxDBReporter(influxdb_url=f"{url}/{{n}}", token="t", org="o", bucket="b"))
init()
for _ in range(100): listen()
cl.record(cl.LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))
def busy(): return {{entry.name for entry in report_manager._entries if entry.lane._in_flight()}}
until(lambda: sum(name.startswith(("slack", "influxdb")) for name in busy()) == 12)
until(lambda: has_delivered(101))
keep_the_bound()
tell(ending_s=time.monotonic(), names=sorted(report_manager.status()))
{end}
""",
            tmp_path,
            {
                **HANGING_EXPORTS,
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_METRICS_EXPORTER": "otlp",
                "SLACK_WEBHOOK_URL": f"{url.replace('http', 'https')}/services/T/B/x",
                "PROMETHEUS_PUSHGATEWAY_URL": url,
                "INFLUXDB_URL": url,
                "INFLUXDB_TOKEN": "t",
                "INFLUXDB_ORG": "o",
                "INFLUXDB_BUCKET": "b",
            },
        )
        over_s = monotonic()
    facts = facts_of(done)
    assert over_s - facts["ending_s"] <= BOUND_S
    names = [f"{name}{n}" for name in ("influxdb", "pushgateway", "slack") for n in ("", "_2", "_3", "_4", "_5", "_6")]
    assert facts["names"] == sorted(["jsonl", *names])
    assert "Traceback" not in done.stderr
    assert len(written(tmp_path)) == 101


@pytest.mark.promise("busy-servers")
def test_shutdown_says_what_was_not_confirmed(tmp_path: Path) -> None:
    """False, within its time; each reporter's loss under its own name, and nobody else's."""
    done = run_python(
        REPORTERS
        + """
holes = [BlackHole() for _ in range(40)]
kept = Kept()
for reporter in (*holes, Away(), kept):
    report_manager.add_reporter(reporter)
init()
for _ in range(500): listen()
for hole in holes: hole.entered.wait(60)
Away.entered.wait(60)
until(lambda: all(status.accepted == 500 for status in report_manager.status().values()))
until(lambda: has_delivered(500) and has_delivered(500, "kept"))
began_s = time.monotonic()
on_time = shutdown(timeout_s=1)
took_s = time.monotonic() - began_s
laws = [s.accepted == s.delivered + sum(s.dropped.values()) + s.pending for s in report_manager.status().values()]
tell(on_time=on_time, took_s=took_s, dropped=dropped.by_reason(), laws=laws, kept=len(kept.names))
os._exit(0)
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["on_time"] is False
    assert facts["took_s"] <= BOUND_S
    assert facts["laws"] == [True] * 43
    assert facts["kept"] == 500
    names = ["black_hole", *(f"black_hole_{n}" for n in range(2, 41)), "away"]
    assert facts["dropped"] == {f"{name}_unconfirmed": 500 for name in names}
    assert len(written(tmp_path)) == 500


@pytest.mark.promise("overload")
@pytest.mark.timeout(300)
def test_a_million_measurements_into_a_stuck_reporter(tmp_path: Path) -> None:
    """Memory grows by less than 10 MB once its buffer is full, every drop is counted, and one line a minute says so."""
    done = run_python(
        REPORTERS
        + """
from callbot_latency import LatencyMetric
from callbot_latency.delivery.manager import ReportManager

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

stuck, manager = BlackHole(), ReportManager()
manager.add_reporter(stuck)
manager.start()
def a_batch():  # each an object of its own, and quickly made: nobody looks at what is in it
    return [object.__new__(LatencyMetric) for _ in range(1_000)]
manager.report(a_batch())
stuck.entered.wait(60)
for _ in range(20): manager.report(a_batch())
before = resident_bytes()
for _ in range(1_000): manager.report(a_batch())
grown = resident_bytes() - before
status = manager.status()["black_hole"]
tell(grown=grown, dropped=dict(status.dropped), pending=status.pending, accepted=status.accepted)
os._exit(0)
""",
        tmp_path,
        timeout_s=280,
    )
    facts = facts_of(done)
    assert facts["grown"] < 10e6
    assert facts["accepted"] == 1_021_000
    assert facts["pending"] == 16_384 + 1_000
    assert facts["dropped"] == {"black_hole_lane_full": 1_021_000 - 16_384 - 1_000}
    assert done.stderr == ""


@pytest.mark.promise("fork")
def test_a_forked_child_reports_its_own(tmp_path: Path) -> None:
    """What waits at the fork is the parent's, also what its lane has in hand or is backing off with."""
    done = run_python(
        REPORTERS
        + """
class Waits(Kept):
    busy = threading.Event()
    def report(self, batch):
        if not self.names and os.getpid() == parent:
            self.names.append("tried")
            self.busy.set()
            raise TransientError("429", retry_after_s=0.3)
        super().report(batch)

parent, kept, waits = os.getpid(), Kept(), Waits()
for reporter in (kept, waits):
    report_manager.add_reporter(reporter)
init()
for _ in range(10): listen()
Waits.busy.wait(60)
@measure_latency("speech_to_text")
def in_child(): pass
child = os.fork()
if child == 0:
    kept.names.clear(); waits.names.clear()
    assert [s.accepted for s in report_manager.status().values()] == [0, 0, 0], report_manager.status()
    for _ in range(5): in_child()
    ended = shutdown(timeout_s=60)
    delivered = [s.delivered for s in report_manager.status().values()]
    os._exit(0 if ended and (kept.names, waits.names, delivered) == (["in_child"] * 5,) * 2 + ([5, 5, 5],) else 8)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
ended = shutdown(timeout_s=60)
tell(code=code, ended=ended, kept=kept.names, waits=waits.names, dropped=dropped.by_reason())
""",
        tmp_path,
    )
    facts = facts_of(done)
    listened = ["listen"] * 10
    assert facts == {"code": 0, "ended": True, "kept": listened, "waits": ["tried", *listened], "dropped": {}}


@pytest.mark.promise("fork")
@pytest.mark.timeout(300)
def test_forks_while_reporters_are_added_and_report(tmp_path: Path) -> None:
    """50 forks under load, some while a lock of ours is held: no child hangs, each reports its own."""
    done = run_python(
        REPORTERS
        + """
kept = Kept()
report_manager.add_reporter(kept)
init()
over = threading.Event()
def load():
    while not over.is_set():
        for _ in range(50): listen()
        over.wait(0.001)
def change():
    while not over.is_set():
        other = Kept()
        report_manager.add_reporter(other)
        report_manager.status()
        report_manager.remove_reporter(other)
threads = [threading.Thread(target=target, daemon=True) for target in (load, change)]
for thread in threads: thread.start()
@measure_latency("speech_to_text")
def in_child(): pass
codes = []
for _ in range(50):
    with report_manager._lock if _ % 2 else threading.Lock():
        child = os.fork()
    if child == 0:
        signal.alarm(100)
        report_manager.add_reporter(mine := Kept())
        for _ in range(5): in_child()
        ended = shutdown(timeout_s=90)
        os._exit(0 if ended and mine.names == ["in_child"] * 5 else 8)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
for thread in threads: thread.join()
tell(codes=codes)
""",
        tmp_path,
        timeout_s=280,
    )
    assert facts_of(done)["codes"] == [0] * 50
    assert "Traceback" not in done.stderr


@pytest.mark.promise("self-observation")
def test_our_own_requests_make_no_spans(tmp_path: Path) -> None:
    """With `requests` instrumented: 0 spans from reporters that work or fail; the callbacks keep theirs."""
    done = run_python(
        REPORTERS
        + """
import requests
from callbot_latency import add_alert_callback
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.scripted_http import Answer, scripted

serving = scripted(lambda request: Answer(503 if request.path == "/busy" else 200))
url = serving.__enter__().root

class Posting:
    def __init__(self, path):
        self.path, self.posts = path, 0
    def report(self, batch):
        self.posts += 1
        if not requests.post(url + self.path, json=[metric.to_dict() for metric in batch], timeout=60).ok:
            raise TransientError("503", retry_after_s=0.05)
    def notify(self, alert):
        self.report([alert.metric])

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
RequestsInstrumentor().instrument()
posting = [Posting("/ok"), Posting("/busy")]
for reporter in posting: report_manager.add_reporter(reporter)
add_alert_callback(lambda alert: requests.post(url + "/callback", data=b"", timeout=60))
init()
for _ in range(20): listen()
cl.record(cl.LatencyMetric("speech_to_text", "slow", 9000.0, "success"))
shutdown(timeout_s=60)
def name_of(span):
    address = span.attributes.get("url.full", span.attributes.get("http.url"))
    return address.removeprefix(url) if address else span.name
names = [name_of(span) for span in exporter.get_finished_spans()]
tell(posts=[each.posts for each in posting], spans={name: names.count(name) for name in names})
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert all(facts["posts"])
    assert facts["spans"] == {"/callback": 1, "speech_to_text listen": 20}


@pytest.mark.parametrize(
    "made",
    [
        "InfluxDBReporter(influxdb_url=url, token='t', org='o', bucket='b')",
        "PrometheusReporter(url)",
        "SlackReporter(url)",
        "AppriseReporter(url.replace('http', 'json'))",
    ],
    ids=lambda made: made.partition("(")[0],
)
def test_nothing_is_imported_on_a_lane(made: str, tmp_path: Path) -> None:
    """A fork in the middle of it would leave the child the module's lock for ever: who makes the reporter imports."""
    with refusing() as url:
        done = run_python(
            f"""
from callbot_latency import *
from callbot_latency.alerting import Alert
url = {url!r}.replace("127.0.0.1", "localhost")
metric = LatencyMetric(OperationType.STT, "x", 9000.0, OperationStatus.SUCCESS, severity=Severity.CRITICAL)
reporter = {made}
before = set(sys.modules)
try:
    reporter.report([metric]) if hasattr(reporter, "report") else reporter.notify(Alert(metric, Severity.CRITICAL, 1.0))
except TransientError:
    pass
tell(imported=sorted(set(sys.modules) - before))
""",
            tmp_path,
        )
    assert facts_of(done) == {"imported": []}
