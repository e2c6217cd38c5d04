"""What we send and say ourselves is measured by nobody, whatever is instrumented, and whether it arrives or not."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.subprocesses import facts_of, run_python, written

REPORTERS = ["apprise", "by_httpx", "by_requests", "by_urllib3", "influxdb", "pushgateway", "slack"]

BOT = """
import http.server, itertools, logging
import httpx, requests, urllib3
from callbot_latency import InfluxDBReporter, PrometheusReporter, instrument, report_manager
from callbot_latency.reporters.apprise import AppriseReporter
from callbot_latency.reporters.slack import SlackReporter
from opentelemetry import context, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from tests.support.scripted_http import Answer, scripted
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, is_instrumentation_enabled
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

answers = itertools.cycle(%s)
asked = set()

def answer(request):
    asked.add(request.path.partition("?")[0])
    return Answer(200 if request.path.endswith("/app") else next(answers))

serving = scripted(answer)
url = serving.__enter__().root

class Posting:
    def __init__(self, name, post):
        self.name, self.post = name, post
    def report(self, batch):
        status = self.post(f"{url}/rag/{self.name}")
        if status == 503: raise cl.TransientError("503", retry_after_s=0.05)
        if status == 400: raise cl.PermanentError("400")
    def notify(self, alert):
        self.report([alert.metric])

def by_requests(url): return requests.post(url, data=b"{}", timeout=60).status_code
def by_httpx(url): return httpx.post(url, content=b"{}", timeout=60).status_code
def by_urllib3(url): return urllib3.request("POST", url, body=b"{}", timeout=60, retries=False).status

# As opentelemetry-instrumentation-urllib3 does it: that package is not for every version of OpenTelemetry.
urlopen = urllib3.connectionpool.HTTPConnectionPool.urlopen
def instrumented(self, method, url, *args, **kwargs):
    if not is_http_instrumentation_enabled():
        return urlopen(self, method, url, *args, **kwargs)
    with trace.get_tracer("urllib3").start_as_current_span("urllib3 " + method):
        return urlopen(self, method, url, *args, **kwargs)
urllib3.connectionpool.HTTPConnectionPool.urlopen = instrumented

HTTPXClientInstrumentor().instrument()
RequestsInstrumentor().instrument()
LoggingInstrumentor().instrument(inject_trace_context=True)

class Watching(logging.Handler):
    '''An application's handler that measures: once for what is worth a warning, however many records there are.'''
    depth, deepest, warnings, records = threading.local(), 0, 0, 0
    def emit(self, record):
        if not record.name.startswith("callbot_latency"): return
        depth = self.depth.n = getattr(self.depth, "n", 0) + 1
        try:
            Watching.deepest = max(self.deepest, depth)
            Watching.records += 1
            if record.levelno >= logging.WARNING:
                Watching.warnings += 1
                ship()
        finally:
            self.depth.n -= 1

@measure_latency("rag_inference", "ship")
def ship(): pass

logging.getLogger().addHandler(Watching())
logging.getLogger("callbot_latency").setLevel(logging.DEBUG)

open_to_measuring = []
def watch(event, args):
    if event == "socket.connect" and threading.current_thread() is not threading.main_thread():
        if is_instrumentation_enabled():
            open_to_measuring.append(threading.current_thread().name)
sys.addaudithook(watch)

os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
init(cl.LatencyConfig(alert_cooldown_s=60, logging_enabled=True))
instrument(rag_url=url + "/rag")
exporter = InMemorySpanExporter()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
for reporter in (
    SlackReporter(url + "/slack"),
    AppriseReporter(url.replace("http", "json") + "/apprise"),
    PrometheusReporter(url, interval_s=0.1),
    InfluxDBReporter(influxdb_url=url, token="t", org="o", bucket="b"),
    Posting("by_requests", by_requests),
    Posting("by_httpx", by_httpx),
    Posting("by_urllib3", by_urllib3),
):
    report_manager.add_reporter(reporter)

deadline_s = time.monotonic() + 100
def wait_for(what):
    while not what():
        assert time.monotonic() < deadline_s, (asked, report_manager.status())
        threading.Event().wait(0.01)

for post in (by_requests, by_httpx, by_urllib3): post(url + "/rag/app")
for _ in range(20): listen()
cl.record(cl.LatencyMetric("speech_to_text", "slow", 9000.0, "success"))
cl.runtime.lifecycle._runtime.pipeline.flush(0.1)
expected = ("/slack", "/apprise", "/metrics", "/api", "/rag/by_requests", "/rag/by_httpx", "/rag/by_urllib3")
wait_for(lambda: all(any(path.startswith(each) for path in asked) for each in expected))
for _ in range(20):
    listen()
    threading.Event().wait(0.02)
cl.runtime.lifecycle._runtime.pipeline.flush(0.1)
trace.get_tracer_provider().force_flush()
wait_for(lambda: "/v1/traces" in asked)
shutdown()
names = [span.name for span in exporter.get_finished_spans()]
tell(
    spans={name: names.count(name) for name in sorted(set(names))},
    open_to_measuring=open_to_measuring, deepest=Watching.deepest, warnings=Watching.warnings,
    records=Watching.records, asked=sorted(asked),
    failed=sorted(name for name, status in report_manager.status().items() if status.last_error),
)
"""


@pytest.mark.promise("self-observation")
@pytest.mark.parametrize("answers", [[200], [503, 400]], ids=["taken", "failing"])
def test_what_we_send_and_say_is_not_measured(answers: list[int], tmp_path: Path) -> None:
    """With `requests`, `urllib3`, `httpx` and `logging` instrumented, and httpx by ourselves: the application's alone.

    Every connection that a thread of ours or of OpenTelemetry's opens is opened with instrumentations off. The
    application's handler of the log, which measures, is entered once a record.
    """
    done = run_python(
        BOT % answers,
        tmp_path,
        {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        },
        timeout_s=115,
    )
    facts = facts_of(done)
    assert facts["failed"] == ([] if answers == [200] else REPORTERS)
    shipped = facts["spans"].pop("rag_inference ship", 0)
    assert facts["spans"] == {"POST": 2, "rag_inference request": 1, "speech_to_text listen": 40, "urllib3 POST": 1}
    assert facts["open_to_measuring"] == []
    # Of its own lines the log has few, and those at the end come when nothing is measured any more.
    assert shipped <= facts["warnings"] <= 2 * len(REPORTERS)
    assert facts["deepest"] == 1
    assert facts["records"] > facts["warnings"]
    lines = Counter(line["operation_name"] for line in written(tmp_path))
    assert lines == Counter(listen=40, request=1, slow=1, ship=shipped)
