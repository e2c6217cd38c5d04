"""The direct reporters on their lanes: what is lost, and what it costs the end of the process."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import InfluxDBReporter, LatencyMetric, PrometheusReporter
from callbot_latency.delivery.lane import Lane
from tests.support.collectors import BROKEN
from tests.support.scripted_http import HANG, Answer, Request, scripted
from tests.support.subprocesses import facts_of, run_python

pytestmark = pytest.mark.real_time

ANSWERS = {
    "take": Answer(204),
    "busy": Answer(503),
    "refuse": Answer(404),
}


def metrics(n: int) -> list[LatencyMetric]:
    return [LatencyMetric("rag_inference", "query", float(i), "success", call_sid=f"CA{i}") for i in range(n)]  # type: ignore[arg-type]


@pytest.mark.promise("busy-servers")
def test_influxdb_keeps_the_contract_of_a_reporter() -> None:
    """Nothing lost unsaid, nothing sent twice: ok, transient, permanent, mixed and slow."""
    from callbot_latency.testing import Server, check_reporter_contract

    with ExitStack() as servers:

        def make(server: Server) -> InfluxDBReporter:
            def answer(request: Request) -> Answer:
                return ANSWERS[server.request(re.findall(r'call_sid="(\w+)"', request.body.decode())).value]

            url = servers.enter_context(scripted(answer)).url
            return InfluxDBReporter(influxdb_url=url, token="t", org="o", bucket="b", timeout_ms=60_000)

        check_reporter_contract(make)


@pytest.mark.promise("busy-servers")
@pytest.mark.usefixtures("faults_contained")
def test_the_pushgateway_is_told_every_count_once_it_is_back() -> None:
    """Ten pushes, every second one refused or broken: the last one carries all, and the lane keeps nothing back."""
    with scripted(*[Answer(503), Answer(200)] * 5) as server:
        reporter = PrometheusReporter(server.url, timeout_s=60)
        lane = Lane("pushgateway", reporter, batch_size=10, interval_s=60)
        lane.start()
        lane.report(metrics(100))
        assert lane.close(60)
        counts = re.findall(
            rb"^callbot_operation_duration_seconds_count\S+ (\S+)", server.requests[-1].body, re.MULTILINE
        )
        assert [float(count) for count in counts] == [100]
        status = lane.status()
        assert (status.delivered, status.pending, dict(status.dropped), status.retried) == (100, 0, {}, 0)
        assert status.last_error is not None
        assert "503" in status.last_error


@pytest.mark.usefixtures("faults_contained")
def test_a_bot_that_measures_nothing_goes_on_pushing() -> None:
    """After a push that failed the next one carries its counts within the interval, with no new measurement."""
    arrived = threading.Event()

    def takes(_: Request) -> Answer:
        arrived.set()
        return Answer(200)

    with scripted(Answer(503), takes) as server:
        reporter = PrometheusReporter(server.url, timeout_s=60, interval_s=0.2)
        lane = Lane("pushgateway", reporter, batch_size=reporter.batch_size, interval_s=reporter.interval_s)
        lane.start()
        lane.report(metrics(3))
        assert arrived.wait(60)
        failed, pushed = server.requests[:2]
        count = re.search(rb"^callbot_operation_duration_seconds_count\S+ (\S+)", pushed.body, re.MULTILINE)
        assert lane.close(60)
    assert pushed.at_s - failed.at_s < 10
    assert count is not None
    assert float(count[1]) == 3
    assert b"callbot_operations_active" in pushed.body
    status = lane.status()
    assert (status.accepted, status.delivered, dict(status.dropped)) == (3, 3, {})


@pytest.mark.promise("http-errors")
@pytest.mark.usefixtures("faults_contained")
def test_influxdb_loses_nothing_while_it_is_busy() -> None:
    """429 for a moment: no request before the moment named, every point once, in as many requests as needed."""
    asked: list[float] = []

    def answer(_: Request) -> Answer:
        asked.append(time.monotonic())
        return Answer(429, headers={"Retry-After": "0.3"}) if len(asked) == 1 else Answer(204)

    with scripted(answer) as server:
        reporter = InfluxDBReporter(influxdb_url=server.url, token="t", org="o", bucket="b", timeout_ms=60_000)
        lane = Lane("influxdb", reporter, batch_size=1000, interval_s=0.01)
        lane.start()
        lane.report(metrics(2500))
        assert lane.flush(60)
        assert lane.close(60)
        assert asked[1] - asked[0] >= 0.3
        lines = Counter(line for request in server.requests[1:] for line in request.body.split(b"\n"))
        assert len(lines) == 2500
        assert set(lines.values()) == {1}
        assert lane.status().delivered == 2500


@pytest.mark.promise("end-in-time")
@pytest.mark.parametrize("kind", [*BROKEN, "hang"])
def test_the_end_of_the_process_waits_for_neither(kind: str, tmp_path: Path) -> None:
    """Pushgateway and InfluxDB both away: `shutdown()` stays within its bound, and what was lost is counted.

    A reporter that was waited for would take a minute or more.
    """
    with ExitStack() as servers:
        url = servers.enter_context(BROKEN[kind]() if kind in BROKEN else scripted(HANG))
        url = url if isinstance(url, str) else url.url
        settings = {
            "PROMETHEUS_PUSHGATEWAY_URL": url,
            "INFLUXDB_URL": url,
            "INFLUXDB_TOKEN": "s3cret",
            "INFLUXDB_ORG": "o",
            "INFLUXDB_BUCKET": "b",
            "LATENCY_INFLUXDB_TIMEOUT_MS": "600000",
        }
        done = run_python(
            """
            from callbot_latency.reporters import pushgateway
            pushgateway.PrometheusReporter.__init__.__kwdefaults__["timeout_s"] = 600.0
            init()
            for _ in range(100):
                listen()
            while cl.report_manager.status()["influxdb"].accepted < 100:
                time.sleep(0.01)
            began = time.monotonic()
            shutdown(0.5)
            tell(took_s=time.monotonic() - began, dropped=dropped.by_reason())
            """,
            tmp_path,
            settings,
            timeout_s=100,
        )
        assert done.returncode == 0, done.stderr
        facts = facts_of(done)
        assert facts["took_s"] < 10
        assert facts["dropped"]["influxdb_unconfirmed"] == 100
        assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.promise("overload")
@pytest.mark.usefixtures("faults_contained")
def test_a_million_measurements_into_a_server_that_hangs_are_bounded() -> None:
    """What the lane keeps is its capacity; the reporter keeps one batch."""
    with scripted(HANG) as server:
        reporter = InfluxDBReporter(influxdb_url=server.url, token="t", org="o", bucket="b", timeout_ms=60_000)
        lane = Lane("influxdb", reporter, batch_size=1000, interval_s=0.01)
        lane.start()
        batch: list[Any] = metrics(1000)
        for _ in range(1000):
            lane.report(batch)
        assert lane.status().pending <= 16_384 + 1000
        assert len(reporter._kept) <= 1000
        assert not lane.close(0.1)
        assert threading.active_count() < 20


@pytest.fixture(autouse=True)
def _servers_end_first() -> Iterator[None]:
    """A lane that was left hanging ends with its server."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("callbot_latency."):
            thread.join(60)
