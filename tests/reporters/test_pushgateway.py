"""The reporter for the Pushgateway: what it counts, how it pushes, and what it says of a bad day."""

import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from callbot_latency import Thresholds, measure_latency_context
from callbot_latency.base.drop_counters import dropped, unmeasured
from callbot_latency.delivery.lane import Lane
from callbot_latency.model.operation import ThresholdsMs
from callbot_latency.pipeline.instruments import bucket_bounds_s
from callbot_latency.pipeline.prometheus_exposition import MAX_SERIES
from callbot_latency.reporters import PermanentError, TransientError
from callbot_latency.reporters.pushgateway import PrometheusReporter
from tests.conftest import Start
from tests.support import measured
from tests.support.collectors import refusing
from tests.support.scripted_http import DRIP, ECHO, HANG, RESET, Answer, Request, Server, Step, paths, scripted
from tests.support.subprocesses import run_python

DURATION = "callbot_operation_duration_seconds"
RESPONSE = "callbot_turn_response_seconds"
CONTRIBUTION = "callbot_turn_contribution_seconds"

metric = partial(measured.metric, provider="google")


def values(request: Request) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample of a push, by name and labels."""
    families = text_string_to_metric_families(request.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(request: Request, name: str) -> float:
    return sum(value for (sample, _), value in values(request).items() if sample == name)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no time-out is given, a busy machine has a minute for a push."""
    monkeypatch.setitem(PrometheusReporter.__init__.__kwdefaults__, "timeout_s", 60.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with scripted(Answer()) as running:
        yield running


def until_asked(server: Server) -> None:
    """Wait until the server has read the first request; a client that gave up may be ahead of it."""
    deadline_s = time.monotonic() + 60
    while not server.requests:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_push_is_one_put_of_a_group_of_this_process(server: Server) -> None:
    """Labels job and instance, host and process id: another worker's group is never replaced."""
    PrometheusReporter(server.url, job="bot").report([metric()])
    assert paths(server.requests) == [f"PUT /metrics/job/bot/instance/{socket.gethostname()}%3A{os.getpid()}"]


def test_the_grouping_key_adds_labels_or_names_another_instance(server: Server) -> None:
    """What stands in an address is escaped."""
    reporter = PrometheusReporter(f"{server.url}/prefix/", grouping_key={"instance": "a b", "site": "Köln"})
    reporter.report([metric()])
    assert paths(server.requests) == ["PUT /prefix/metrics/job/callbot/instance@base64/YSBi/site/K%C3%B6ln"]


def test_counts_are_cumulative(server: Server) -> None:
    """Each push carries everything, so that it may replace the last."""
    reporter = PrometheusReporter(server.url)
    reporter.report([metric(), metric()])
    reporter.report([metric()])
    assert [total(request, f"{DURATION}_count") for request in server.requests] == [2, 3]


def test_names_labels_and_edges_are_those_of_the_collector(server: Server) -> None:
    """Seconds; every threshold an edge; ids are no labels; nothing else is pushed."""
    thresholds = Thresholds({"speech_to_text": ThresholdsMs(777, 1234.5)})
    PrometheusReporter(server.url, thresholds=thresholds).report(
        [metric(1300, severity="critical", call_sid="CA1", stream_sid="MZ1", time_to_first_output_ms=50)]
    )
    (request,) = server.requests
    found = values(request)
    named = {("operation_type", "speech_to_text"), ("operation_name", "f"), ("provider", "google")}
    assert found[f"{DURATION}_sum", frozenset({*named, ("status", "success")})] == 1.3
    assert found["callbot_operation_time_to_first_output_seconds_sum", frozenset(named)] == 0.05
    severe = {("operation_type", "speech_to_text"), ("provider", "google"), ("severity", "critical")}
    assert found["callbot_threshold_breaches_total", frozenset(severe)] == 1
    edges = {float(dict(labels)["le"]) for name, labels in found if name == f"{DURATION}_bucket"}
    assert edges == {*bucket_bounds_s(thresholds), float("inf")}
    assert {0.777, 1.2345} < edges
    assert {name.rsplit("_", 1)[0] for name, _ in found} <= {
        DURATION,
        "callbot_operation_time_to_first_output_seconds",
        "callbot_threshold_breaches",
        "callbot_operations",
        "callbot_telemetry_dropped",
        "callbot_turns_unmeasured",
    }
    assert b"CA1" not in request.body
    assert b"MZ1" not in request.body


def test_turns_are_counted_as_by_the_collector(server: Server) -> None:
    """By anchor and until when, and the parts by their name; what was not measured is in the reasons alone."""
    unmeasured.add("test_pushgateway", 2)
    thresholds = Thresholds({"speech_to_text": ThresholdsMs(777, 1234.5)})
    reporter = PrometheusReporter(server.url, thresholds=thresholds)
    turns = [measured.turn(1), measured.turn(2, response_ms=None), measured.turn(3, anchor=None)]
    reporter.report_turns(turns)
    reporter.report([])
    (request,) = server.requests
    found = values(request)

    def summed(name: str, **labels: str) -> tuple[float, float]:
        wanted = frozenset(labels.items())
        return found[f"{name}_count", wanted], found[f"{name}_sum", wanted]

    assert summed(RESPONSE, anchor="stt_final", until="heard") == (1, 1.5)
    assert summed(RESPONSE, anchor="stt_final", until="sent") == (2, 2.8)
    assert summed(CONTRIBUTION, part="endpointing") == (2, 0.6)
    assert summed(CONTRIBUTION, part="speech_to_text") == (2, 2.4)
    assert total(request, f"{RESPONSE}_count") == 3
    assert found["callbot_turns_unmeasured_total", frozenset({("reason", "test_pushgateway")})] >= 2
    for histogram in (RESPONSE, CONTRIBUTION):
        edges = {float(dict(labels)["le"]) for name, labels in found if name == f"{histogram}_bucket"}
        assert edges == {*bucket_bounds_s(thresholds), float("inf")}
    assert b"CA1" not in request.body


def test_a_turn_goes_with_the_next_push(server: Server) -> None:
    """It causes none of its own; that of the same interval carries it."""
    reporter = PrometheusReporter(server.url)
    reporter.report_turns([measured.turn()])
    assert server.requests == []
    reporter.report([metric()])
    assert [total(request, f"{RESPONSE}_count") for request in server.requests] == [2]


def test_on_its_lane_a_turn_waits_for_the_interval_and_shares_its_push(server: Server) -> None:
    """Measurements and turns of one interval are one push; so are turns alone, which a flush pushes at once."""
    reporter = PrometheusReporter(server.url)
    lane = Lane("pushgateway", reporter, batch_size=3, interval_s=60)
    lane.start()
    lane.report([metric()])
    lane.report_turns([measured.turn(1)])
    assert lane.status().pending == 2
    assert server.requests == []
    lane.report([metric()])
    assert lane.flush(60)
    assert [total(request, f"{RESPONSE}_count") for request in server.requests] == [2]
    assert [total(request, f"{DURATION}_count") for request in server.requests] == [2]
    lane.report_turns([measured.turn(2)])
    assert lane.status().pending == 1
    assert len(server.requests) == 1
    assert lane.flush(60)
    assert [total(request, f"{RESPONSE}_count") for request in server.requests] == [2, 4]
    assert lane.flush(60)
    assert len(server.requests) == 2
    assert lane.close(60)
    assert lane.status().delivered == 4


@pytest.mark.real_time
def test_an_application_with_files_for_all_its_processes_is_left_alone(server: Server, tmp_path: Path) -> None:
    """PROMETHEUS_MULTIPROC_DIR is the application's: nothing of ours goes there, and our counts are this process's."""
    code = f"""
    from callbot_latency import LatencyMetric, PrometheusReporter
    for _ in range(2):
        PrometheusReporter({server.url!r}).report([LatencyMetric("rag_inference", "query", 1.0, "success")])
    """
    done = run_python(code, tmp_path, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.db"))
    assert [total(request, f"{DURATION}_count") for request in server.requests] == [1, 1]


def test_what_runs_and_what_was_dropped_is_told_as_it_is_now(server: Server, start: Start) -> None:
    """A type of which nothing runs is 0."""
    start()
    dropped.add("test_pushgateway", 3)
    reporter = PrometheusReporter(server.url)
    with measure_latency_context("rag_inference", "query"):
        reporter.report([metric()])
    reporter.report([])
    running, ended = map(values, server.requests)
    rag, stt = (frozenset({("operation_type", kind)}) for kind in ("rag_inference", "speech_to_text"))
    assert (running["callbot_operations_active", rag], running["callbot_operations_active", stt]) == (1, 0)
    assert ended["callbot_operations_active", rag] == 0
    assert ended["callbot_telemetry_dropped_total", frozenset({("reason", "test_pushgateway")})] >= 3


@pytest.mark.promise("cardinality")
@pytest.mark.real_time
def test_what_cannot_be_pushed_is_bounded(server: Server) -> None:
    """After 200 names, and after 1,000 pairs of name and provider, series are `other`; no count is lost."""
    reporter = PrometheusReporter(server.url)
    reporter.report([metric(operation_name=f"f{i}") for i in range(300)])
    reporter.report([metric(operation_name=f"f{i % 200}", provider=f"p{i % 199}") for i in range(5000)])
    found = values(server.requests[-1])
    counts = [dict(labels) for name, labels in found if name == f"{DURATION}_count"]
    assert len(counts) <= MAX_SERIES + 1
    assert sum(value for (name, _), value in found.items() if name == f"{DURATION}_count") == 5300
    assert any(labels["operation_name"] == labels["provider"] == "other" for labels in counts)


@given(st.lists(st.text(), max_size=20))
def test_any_name_of_a_part_can_be_read(parts: list[str]) -> None:
    """Whatever stands in it, its turn is counted."""
    from prometheus_client import generate_latest

    reporter = PrometheusReporter("http://unused")
    reporter.report_turns([measured.turn(parts_ms={part: 10.0}) for part in parts])
    text = generate_latest(reporter._registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    assert sum(s.value for s in samples if s.name == f"{CONTRIBUTION}_count") == len(parts)


@pytest.mark.promise("injection")
@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=20))
def test_any_text_makes_lines_that_can_be_read(names: list[tuple[str, str]]) -> None:
    """Newlines, quotes, halves of surrogates: the text format stays whole, and counts them all."""
    from prometheus_client import generate_latest

    reporter = PrometheusReporter("http://unused")
    for name, provider in names:
        reporter._counts.count(metric(operation_name=name, provider=provider))
    text = generate_latest(reporter._registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    assert sum(s.value for s in samples if s.name == f"{DURATION}_count") == len(names)


def test_a_push_that_fails_loses_nothing_and_counts_nothing_twice() -> None:
    """The lane hands nothing over again; the next push carries all."""
    with scripted(Answer(500), RESET, Answer()) as server:
        reporter = PrometheusReporter(server.url)
        for batch in ([metric(), metric()], [metric()]):
            with pytest.raises(TransientError) as told:
                reporter.report(batch)
            assert told.value.delivered == len(batch)
        reporter.report([metric()])
        assert total(server.requests[-1], f"{DURATION}_count") == 4


def test_nothing_is_pushed_before_the_server_allows_it() -> None:
    """429 with Retry-After: measurements are counted meanwhile, also at the end, where what is lost is said."""
    with scripted(Answer(429, headers={"Retry-After": "30"}), Answer()) as server:
        reporter = PrometheusReporter(server.url)
        with pytest.raises(TransientError) as told:
            reporter.report([metric()])
        assert told.value.retry_after_s == 30
        reporter.report([metric()])
        reporter.report_turns([measured.turn()])
        with pytest.raises(TransientError, match="the last push failed, 3 measurements and turns are lost") as lost:
            reporter.close()
        assert len(server.requests) == 1
        assert lost.value.unconfirmed == 3


@pytest.mark.parametrize(
    ("answers", "drops"),
    [
        ([Answer(503), Answer(503)], {"pushgateway_unconfirmed": 3}),
        ([Answer(503), Answer(404)], {"pushgateway_refused": 3}),
        ([Answer(404), Answer(404)], {"pushgateway_refused": 3}),
        ([Answer(404), Answer(503)], {"pushgateway_refused": 3}),
    ],
    ids=["away", "then refuses", "refuses", "then away"],
)
def test_the_status_tells_a_last_push_that_failed(answers: list[Answer], drops: dict[str, int]) -> None:
    """What counted as delivered is lost after all, each measurement once; and closing says that it did not go well."""
    with scripted(*answers) as server:
        lane = Lane("pushgateway", PrometheusReporter(server.url))
        lane.start()
        lane.report([metric(), metric(), metric()])
        assert lane.flush(60)
        assert not lane.close(60)
    status = lane.status()
    assert (status.accepted, status.delivered, status.pending) == (3, 0, 0)
    assert status.dropped == drops
    assert "3 measurements and turns are lost to Prometheus" in (status.last_error or "")


@pytest.mark.parametrize(
    ("answers", "drops"),
    [
        ([Answer(503), Answer(503)], {"pushgateway_unconfirmed": 3}),
        ([Answer(404), Answer(404)], {"pushgateway_refused": 3}),
        ([Answer(404), Answer(503)], {"pushgateway_refused": 1, "pushgateway_unconfirmed": 2}),
    ],
    ids=["away", "refuses", "then away"],
)
def test_turns_that_no_push_carried_are_told_too(answers: list[Answer], drops: dict[str, int]) -> None:
    """Two turns and a measurement, each counted as lost once, by what the push that failed for it said."""
    with scripted(*answers) as server:
        lane = Lane("pushgateway", PrometheusReporter(server.url))
        lane.report_turns([measured.turn(1), measured.turn(2)])
        lane.report([metric()])
        lane.start()
        assert not lane.close(60)
    status = lane.status()
    assert (status.accepted, status.delivered, status.pending) == (3, 0, 0)
    assert status.dropped == drops


def test_a_group_that_may_be_there_is_deleted_all_the_same() -> None:
    """The push arrived, its answer did not."""
    with scripted(HANG, Answer(202)) as server:
        reporter = PrometheusReporter(server.url, timeout_s=0.2, delete_at_close=True)
        with pytest.raises(TransientError):
            reporter.report([metric()])
        until_asked(server)
        reporter._http._timeout_s = 60  # the server answers from now on, but it may be slow to
        reporter.close()
        assert [request.method for request in server.requests] == ["PUT", "DELETE"]


def test_after_the_wait_the_next_push_carries_all() -> None:
    """Retry-After: 0 is over at once."""
    with scripted(Answer(503, headers={"Retry-After": "0"}), Answer()) as server:
        reporter = PrometheusReporter(server.url)
        with pytest.raises(TransientError):
            reporter.report([metric()])
        reporter.report([metric()])
        assert total(server.requests[-1], f"{DURATION}_count") == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "another program"), (401, "auth="), (403, "may not"), (404, "Pushgateway"), (413, "limits")],
)
def test_a_refusal_says_what_to_do(status: int, said: str) -> None:
    """4xx is final for the batch, with a text for whoever reads the log."""
    refused = pytest.raises(PermanentError, match=f"{status}.*inconsistent.*{said}")
    with scripted(Answer(status, body=b"pushed metrics are inconsistent\n")) as server, refused:
        PrometheusReporter(server.url).report([metric()])


@pytest.mark.promise("endless-answers")
def test_redirects_are_refused() -> None:
    """Nothing, and no password, is sent to where a server points."""
    with scripted(Answer()) as other, scripted(Answer(307, headers={"Location": other.url})) as server:
        with pytest.raises(PermanentError, match="redirects are not followed"):
            PrometheusReporter(server.url, auth=("user", "pa55word")).report([metric()])
        assert other.requests == []


@pytest.mark.parametrize("step", [HANG, DRIP])
def test_one_push_has_a_bounded_time(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs, and one that says a byte a moment."""
    with scripted(step) as server:
        began_s = time.monotonic()
        if step == HANG:
            with pytest.raises(TransientError, match="did not answer in time"):
                PrometheusReporter(server.url, timeout_s=0.2).report([metric()])
        else:
            # After the status, each look at the clock is 25 s later than the last.
            looks, now_s = count(), time.monotonic
            monkeypatch.setattr("callbot_latency.reporters.http_client.monotonic", lambda: now_s() + 25 * next(looks))
            # It said 200: what it goes on to say does not matter.
            PrometheusReporter(server.url, timeout_s=60).report([metric()])
        assert time.monotonic() - began_s < 20


def test_nobody_there_is_said() -> None:
    """A refused connection, by its reason."""
    with refusing() as url, pytest.raises(TransientError, match="refused"):
        PrometheusReporter(url).report([metric()])


def test_an_answer_of_any_length_is_read_to_64_kilobytes() -> None:
    """And said in one line."""
    with scripted(Answer(400, body=b"long " * 1_000_000)) as server:
        with pytest.raises(PermanentError) as told:
            PrometheusReporter(server.url).report([metric()])
        assert len(str(told.value)) < 600


@pytest.mark.promise("secrets")
@pytest.mark.parametrize(
    "step", [ECHO, HANG, RESET, Answer(500), Answer(302, headers={"Location": "http://x"})], ids=str
)
@pytest.mark.parametrize("way", ["basic", "bearer", "address"])
def test_no_secret_is_ever_shown(step: Any, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an error, a log line or a repr, even where the server repeats it."""
    caplog.set_level("DEBUG")
    with scripted(step) as server:
        url, auth = server.url, {"basic": ("user", "Pa55/word"), "bearer": "T0ken/word"}.get(way)
        if way == "address":
            url = f"http://user:Pa55%2Fword@{server.where}"
        timeout_s = 0.2 if step == HANG else 60
        reporter = PrometheusReporter(url, auth=auth, timeout_s=timeout_s)  # type: ignore[arg-type]
        with pytest.raises((TransientError, PermanentError)) as told:
            reporter.report([metric()])
        with pytest.raises((TransientError, PermanentError)) as last:
            reporter.close()
        until_asked(server)
        sent = server.requests[0].headers["authorization"]
        assert sent == ("Bearer T0ken/word" if way == "bearer" else "Basic dXNlcjpQYTU1L3dvcmQ=")
        shown = (
            f"{last.value!s}{last.value!r}{told.value!s}{told.value!r}{told.value.__cause__}{caplog.text}{reporter!r}"
        )
        for secret in ("Pa55/word", "Pa55%2Fword", "T0ken/word", "dXNlcjpQYTU1L3dvcmQ="):
            assert secret not in shown


def test_its_target_is_the_address_without_credentials() -> None:
    """So that the same Pushgateway from environment and by hand counts once."""
    assert PrometheusReporter("http://user:secret@push:9091/", job="bot").target == "http://push:9091"


def test_the_end_pushes_a_last_time(server: Server) -> None:
    """So that nothing waits, and what runs no longer is told."""
    reporter = PrometheusReporter(server.url)
    reporter.report([metric()])
    reporter.close()
    assert [request.method for request in server.requests] == ["PUT", "PUT"]


def test_the_end_deletes_the_group_if_asked(server: Server) -> None:
    """The same group that was pushed."""
    reporter = PrometheusReporter(server.url, delete_at_close=True)
    reporter.report([metric()])
    reporter.close()
    put, delete = server.requests
    assert (delete.method, delete.path) == ("DELETE", put.path)


def test_the_end_of_a_process_that_measured_nothing_leaves_no_group(server: Server) -> None:
    """An import that never answered a call does not litter the Pushgateway."""
    PrometheusReporter(server.url).close()
    PrometheusReporter(server.url, delete_at_close=True).close()
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"url": "localhost:9091"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "ftp://host"}, "url"),
        ({"url": "http://host:port"}, "url"),
        ({"url": "http://host/?a=b"}, "url"),
        ({"url": None}, "url"),
        ({"job": ""}, "job"),
        ({"job": "a\nb"}, "job"),
        ({"grouping_key": {"job": "x"}}, "grouping_key"),
        ({"grouping_key": {"status": "x"}}, "grouping_key"),
        ({"grouping_key": {"a-b": "x"}}, "grouping_key"),
        ({"grouping_key": {"site": 5}}, "grouping_key"),
        ({"auth": ""}, "auth"),
        ({"auth": "secret\nInjected: 1"}, "auth"),
        ({"auth": ("user",)}, "auth"),
        ({"auth": ("us:er", "secret")}, "auth"),
        ({"url": "http://user:secret@host", "auth": "secret"}, "auth"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"interval_s": float("inf")}, "interval_s"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments: Any, names: str) -> None:
    """It names the argument, and shows no secret."""
    with pytest.raises(ValueError, match=f"^{names}: ") as told:
        PrometheusReporter(**{"url": "http://host:9091", **arguments})
    assert "secret" not in str(told.value)


def test_a_forked_child_has_counts_and_a_group_of_its_own(server: Server) -> None:
    """What the parent counted is the parent's to push."""
    reporter = PrometheusReporter(server.url)
    reporter.report([metric()])
    child = os.fork()
    if child == 0:
        try:
            reporter.start()
            reporter.report([metric(), metric()])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    reporter.report([metric()])
    assert [total(request, f"{DURATION}_count") for request in server.requests] == [1, 2, 2]
    assert server.requests[1].path.endswith(f"%3A{child}")
