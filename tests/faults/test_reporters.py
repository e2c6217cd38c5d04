"""Reporters that hang, fail or are away: what they cost the process, its end, its children and its traces."""

from pathlib import Path
from time import time

import pytest

from tests.faults.servers import refusing, silent
from tests.subprocesses import facts_of, run_python, written

REPORTERS = """
import socket, urllib.parse, urllib.request
from callbot_latency import PermanentError, TransientError, report_manager

class BlackHole:
    def __init__(self):
        self.entered = threading.Event()
    def report(self, batch):
        self.entered.set()
        threading.Event().wait(60)
    def notify(self, alert):
        threading.Event().wait(60)
    def close(self):
        threading.Event().wait(60)

class Away:
    entered = threading.Event()
    def report(self, batch):
        self.entered.set()
        raise TransientError("connection refused")

class Kept:
    def __init__(self): self.names = []
    def report(self, batch): self.names += [metric.operation_name for metric in batch]
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "shutdown()"])
@pytest.mark.parametrize("collector", [silent, refusing])
def test_the_end_keeps_its_bound_though_every_reporter_hangs(end: str, collector: object, tmp_path: Path) -> None:
    """Four black holes, one that is away, a Collector that hangs or refuses: 2.5 s in all, and the file is whole."""
    with collector() as url:  # type: ignore[operator]
        done = run_python(
            REPORTERS
            + f"""
holes = [BlackHole() for _ in range(4)]
for reporter in (*holes, Away()):
    report_manager.add_reporter(reporter)
init()
for _ in range(500): listen()
for hole in holes: hole.entered.wait(10)
Away.entered.wait(10)
tell(ending_s=time.time())
{end}
""",
            tmp_path,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"},
        )
    assert time() - facts_of(done)["ending_s"] <= 2.5
    assert "Traceback" not in done.stderr
    assert len(written(tmp_path)) == 500


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "shutdown(timeout_s=2)"])
def test_collector_slack_pushgateway_and_influxdb_hang_at_once(end: str, tmp_path: Path) -> None:
    """The real reporters, each with something in hand that nobody takes: 2.5 s in all, and the file is whole."""
    with silent() as url:
        done = run_python(
            f"""
from callbot_latency import report_manager
init()
for _ in range(100): listen()
cl.record(cl.LatencyMetric("speech_to_text", "slow", 9_000.0, "success"))
def busy(): return {{entry.name for entry in report_manager._entries if entry.lane._in_hand}}
deadline_s = time.monotonic() + 10
while not {{"slack", "influxdb"}} <= busy():
    assert time.monotonic() < deadline_s, busy()
    threading.Event().wait(0.01)
tell(ending_s=time.time(), names=sorted(report_manager.status()))
{end}
""",
            tmp_path,
            {
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
            timeout_s=60,
        )
    facts = facts_of(done)
    assert time() - facts["ending_s"] <= 2.5
    assert facts["names"] == ["influxdb", "jsonl", "pushgateway", "slack"]
    assert "Traceback" not in done.stderr
    assert len(written(tmp_path)) == 101


def test_shutdown_says_what_was_not_confirmed(tmp_path: Path) -> None:
    """False, within its time; each reporter's loss under its own name, and nobody else's."""
    done = run_python(
        REPORTERS
        + """
holes = [BlackHole() for _ in range(4)]
kept = Kept()
for reporter in (*holes, Away(), kept):
    report_manager.add_reporter(reporter)
init()
for _ in range(500): listen()
for hole in holes: hole.entered.wait(10)
Away.entered.wait(10)
began_s = time.monotonic()
on_time = shutdown(timeout_s=2)
took_s = time.monotonic() - began_s
laws = [s.accepted == s.delivered + sum(s.dropped.values()) + s.pending for s in report_manager.status().values()]
tell(on_time=on_time, took_s=took_s, dropped=dropped.by_reason(), laws=laws, kept=len(kept.names))
os._exit(0)
""",
        tmp_path,
    )
    facts = facts_of(done)
    assert facts["on_time"] is False
    assert facts["took_s"] <= 2.5
    assert facts["laws"] == [True] * 7
    assert facts["kept"] == 500
    names = ["black_hole", "black_hole_2", "black_hole_3", "black_hole_4", "away"]
    assert facts["dropped"] == {f"{name}_unconfirmed": 500 for name in names}
    assert len(written(tmp_path)) == 500


def test_a_million_measurements_into_a_stuck_reporter(tmp_path: Path) -> None:
    """Memory grows by less than 10 MB once its buffer is full, every drop is counted, and one line a minute says so."""
    done = run_python(
        REPORTERS
        + """
from callbot_latency import LatencyMetric
from callbot_latency.reporters.manager import ReportManager

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

stuck, manager = BlackHole(), ReportManager()
manager.add_reporter(stuck)
manager.start()
def a_batch():
    return [LatencyMetric("speech_to_text", "f", 1.0, "success") for _ in range(1_000)]
manager.report(a_batch())
stuck.entered.wait(10)
for _ in range(20): manager.report(a_batch())
before = resident_bytes()
for _ in range(1_000): manager.report(a_batch())
grown = resident_bytes() - before
status = manager.status()["black_hole"]
tell(grown=grown, dropped=dict(status.dropped), pending=status.pending, accepted=status.accepted)
os._exit(0)
""",
        tmp_path,
        timeout_s=60,
    )
    facts = facts_of(done)
    assert facts["grown"] < 10e6
    assert facts["accepted"] == 1_021_000
    assert facts["pending"] == 16_384 + 1_000
    assert facts["dropped"] == {"black_hole_lane_full": 1_021_000 - 16_384 - 1_000}
    assert done.stderr == ""


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
            raise TransientError("429", retry_after_s=0.5)
        super().report(batch)

parent, kept, waits = os.getpid(), Kept(), Waits()
for reporter in (kept, waits):
    report_manager.add_reporter(reporter)
init()
for _ in range(10): listen()
Waits.busy.wait(10)
@measure_latency("speech_to_text")
def in_child(): pass
child = os.fork()
if child == 0:
    kept.names.clear(); waits.names.clear()
    assert [s.accepted for s in report_manager.status().values()] == [0, 0, 0], report_manager.status()
    for _ in range(5): in_child()
    ended = shutdown(timeout_s=5)
    delivered = [s.delivered for s in report_manager.status().values()]
    os._exit(0 if ended and (kept.names, waits.names, delivered) == (["in_child"] * 5,) * 2 + ([5, 5, 5],) else 8)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
ended = shutdown(timeout_s=5)
tell(code=code, ended=ended, kept=kept.names, waits=waits.names, dropped=dropped.by_reason())
""",
        tmp_path,
    )
    facts = facts_of(done)
    listened = ["listen"] * 10
    assert facts == {"code": 0, "ended": True, "kept": listened, "waits": ["tried", *listened], "dropped": {}}


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
        signal.alarm(10)
        report_manager.add_reporter(mine := Kept())
        for _ in range(5): in_child()
        ended = shutdown(timeout_s=8)
        os._exit(0 if ended and mine.names == ["in_child"] * 5 else 8)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
for thread in threads: thread.join()
tell(codes=codes)
""",
        tmp_path,
        timeout_s=90,
    )
    assert facts_of(done)["codes"] == [0] * 50
    assert "Traceback" not in done.stderr


def test_our_own_requests_make_no_spans(tmp_path: Path) -> None:
    """With `requests` instrumented: 0 spans from reporters that work or fail; the callbacks keep theirs."""
    done = run_python(
        REPORTERS
        + """
import http.server
import requests
from callbot_latency import add_alert_callback
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

class Posting:
    def __init__(self, path):
        self.path, self.posts = path, 0
    def report(self, batch):
        self.posts += 1
        if not requests.post(url + self.path, json=[metric.to_dict() for metric in batch], timeout=5).ok:
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
add_alert_callback(lambda alert: requests.post(url + "/callback", data=b"", timeout=5))
init()
for _ in range(20): listen()
cl.record(cl.LatencyMetric("speech_to_text", "slow", 9000.0, "success"))
shutdown(timeout_s=5)
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
