"""The reporter for InfluxDB: its points, what it says of a bad day, and what it takes for lost."""

import json
import logging
import math
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import Anchor, ConfigError, InfluxDBReporter, LatencyConfig
from callbot_latency.config import load_config
from callbot_latency.reporters import PermanentError, TransientError
from callbot_latency.reporters.from_config import influxdb_reporter, pushgateway_reporter
from callbot_latency.reporters.influxdb_points import LineWriter
from callbot_latency.timeline import BargeIn
from tests.support import measured
from tests.support.collectors import refusing
from tests.support.scripted_http import DRIP, ECHO, HANG, RESET, Answer, Request, paths, scripted

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000
TOKEN = "S3cret-t0ken=="

metric = partial(measured.metric, timestamp=NOON, provider="google")
turn = partial(measured.turn, timestamp=NOON)


def reporter(url: str, **more: Any) -> InfluxDBReporter:
    usual = {"influxdb_url": url, "token": TOKEN, "org": "callbot", "bucket": "latency", "timeout_ms": 60_000}
    return InfluxDBReporter(**{**usual, **more})


def lines_of(request: Request) -> list[str]:
    return request.body.decode().split("\n")


def time_of(line: str) -> int:
    return int(line.rsplit(" ", 1)[1])


def test_a_batch_is_one_compressed_request_with_a_point_a_measurement() -> None:
    """To the 2.x API, in nanoseconds, with the token in its header."""
    with scripted(Answer(204)) as server:
        reporter(server.url).report([metric(), metric(2)])
        (request,) = server.requests
    assert paths([request]) == ["POST /api/v2/write?org=callbot&bucket=latency&precision=ns"]
    assert request.headers["authorization"] == f"Token {TOKEN}"
    assert request.headers["content-encoding"] == "gzip"
    assert len(lines_of(request)) == 2


def test_the_schema_of_a_point() -> None:
    """Tags are what is of bounded number; ids and durations are fields; what is unknown is absent."""
    full = metric(
        1500.0,
        severity="warning",
        time_to_first_output_ms=250,
        largest_gap_ms=12.5,
        items=3,
        turn=2,
        busy_ms=75,
        bytes=2400,
        audio_ms=300,
        real_time_factor=0.25,
        call_sid="CA1",
        stream_sid="MZ1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        error_message="what a caller said",
        metadata={"a": 1},
    )
    assert re.sub(rb"\d+$", b"", LineWriter().line(full)).decode() == (
        "callbot.operation,operation_name=f,operation_type=speech_to_text,provider=google,"
        "severity=warning,status=success "
        'audio_ms=300,busy_ms=75,bytes=2400i,call_sid="CA1",items=3i,largest_gap_ms=12.5,latency_ms=1500,'
        'real_time_factor=0.25,span_id="b7ad6b7169203331",stream_sid="MZ1",'
        'time_to_first_output_ms=250,trace_id="0af7651916cd43dd8448eb211c80319c",turn=2i '
    )
    bare = LineWriter().line(metric(provider=None)).decode()
    assert bare.startswith(
        "callbot.operation,operation_name=f,operation_type=speech_to_text,status=success latency_ms=1 "
    )


def test_the_schema_of_a_turns_point() -> None:
    """Tags are what is of bounded number; parts are fields; what is unknown is absent."""
    full = turn(
        7,
        outcome="interrupted",
        response_ms=1560,
        response_sent_ms=1460.5,
        answer_sent_ms=1470,
        anchor=Anchor.VAD_MINUS_HANGOVER,
        anchor_uncertainty_ms=20,
        playback_uncertainty_ms=10,
        parts_ms={"endpointing": 300, "rag_inference": 1260.0},
        overlapped_ms={"salesforce_api": 120},
        barge_in=BargeIn(5, reaction_ms=80, silenced_ms=200, heard_share=0.5, is_false=True),
        operations=4,
        stream_sid="MZ1",
        metadata={"intent": "balance"},
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
    )
    assert re.sub(rb"\d+$", b"", LineWriter().line(full)).decode() == (
        "callbot.turn,anchor=vad_minus_hangover,outcome=interrupted "
        "anchor_uncertainty_ms=20,answer_sent_ms=1470,barge_in.heard_share=0.5,barge_in.is_false=true,"
        'barge_in.reaction_ms=80,barge_in.silenced_ms=200,call_sid="CA1",operations=4i,overlapped.salesforce_api=120,'
        "part.endpointing=300,part.rag_inference=1260,playback_uncertainty_ms=10,response_ms=1560,"
        'response_sent_ms=1460.5,span_id="b7ad6b7169203331",stream_sid="MZ1",'
        'trace_id="0af7651916cd43dd8448eb211c80319c",turn=7i '
    )
    bare = turn(response_ms=None, response_sent_ms=None, anchor=None, parts_ms={}, unmeasured="no_anchor")
    assert (
        LineWriter()
        .line(bare)
        .decode()
        .startswith('callbot.turn,outcome=answered,unmeasured=no_anchor call_sid="CA1",operations=0i,turn=1i ')
    )


def test_turns_are_points_of_a_request_of_their_own() -> None:
    """With the same addresses, and the same texts where one is no point."""
    with scripted(Answer(204)) as server:
        influx = reporter(server.url)
        with pytest.raises(PermanentError, match="1 of 3 points: .*1677 to 2262") as told:
            influx.report_turns([turn(1), turn(2, timestamp=datetime(2500, 1, 1, tzinfo=UTC)), turn(3)])
        assert told.value.refused == 1
        (request,) = server.requests
    assert paths([request]) == ["POST /api/v2/write?org=callbot&bucket=latency&precision=ns"]
    assert [line.split(",")[0] for line in lines_of(request)] == ["callbot.turn", "callbot.turn"]


def test_equal_instants_are_distinct_points() -> None:
    """999 measurements or turns of one microsecond have 999 times within it, also after the clock was set back."""
    points = LineWriter()
    for make in (metric, turn):
        times = {time_of(points.line(make(i)).decode()) for i in range(500)}
        assert time_of(points.line(make(timestamp=NOON + timedelta(seconds=1))).decode()) not in times
        times |= {time_of(points.line(make(i)).decode()) for i in range(499)}
        assert len(times) == 999
        assert {time_ns // 1000 - NOON_US for time_ns in times} == {0}


def test_an_earlier_measurement_keeps_its_time() -> None:
    """What is handed in late is not moved to now."""
    points = LineWriter()
    points.line(metric())
    late = time_of(points.line(metric(timestamp=NOON - timedelta(days=1))).decode())
    assert late // 1000 == NOON_US - 86_400_000_000


@pytest.mark.promise("cardinality")
def test_names_and_providers_are_bounded() -> None:
    """Tags never grow without end, nor does memory."""
    points = LineWriter()
    tags = set()
    for i in range(1_500):
        line = points.line(metric(operation_name=f"f{i}", provider=f"p{i}", call_sid=f"CA{i}"))
        tags.add(line.split(b" ")[0])
    assert len(tags) == 201


@pytest.mark.promise("injection")
@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.text()), min_size=1, max_size=20))
def test_lines_are_points_whatever_the_text(texts: list[tuple[str, str, str]]) -> None:
    """Newlines, commas, equals signs, quotes, control characters, halves of surrogates: one line each, in UTF-8."""
    points = LineWriter()
    lines = [points.line(metric(operation_name=a, provider=b, call_sid=c)).decode() for a, b, c in texts]
    for line in lines:
        assert line.splitlines() == [line]
        assert not re.search(r"\\[, ]?$", re.split(r"(?<!\\) ", line)[0])


@pytest.mark.promise("injection")
@given(st.lists(st.tuples(*[st.text(max_size=40)] * 4), min_size=1, max_size=20))
def test_lines_of_turns_are_points_whatever_the_text(texts: list[tuple[str, str, str, str]]) -> None:
    """Also what the bot names as its parts."""
    points = LineWriter()
    for call_sid, outcome, why, part in texts:
        made = turn(call_sid=call_sid, outcome=outcome, unmeasured=why, parts_ms={part: 1.0}, overlapped_ms={part: 1})
        line = points.line(made).decode()
        assert line.splitlines() == [line]
        series = re.split(r"(?<!\\) ", line)[0]
        tags = [tag.split("=")[0] for tag in re.split(r"(?<!\\),", series)[1:]]
        told = {"anchor": "stt_final", "outcome": outcome, "unmeasured": why}
        assert tags == [name for name, text in told.items() if text.strip("\\")]


@given(st.floats(allow_nan=True), st.integers())
def test_fields_of_turns_keep_their_type(ms: float, number: int) -> None:
    """Durations are floats, and none where they are no number; counts are integers of 64 bits or absent."""
    made = turn(number, response_ms=ms, parts_ms={"endpointing": ms}, operations=number, barge_in=BargeIn(1))
    line = LineWriter().line(made).decode()
    for name in ("response_ms", "part.endpointing"):
        assert (f"{name}=" in line) == math.isfinite(ms)
        assert not math.isfinite(ms) or re.search(rf"[ ,]{re.escape(name)}=-?[0-9.e+-]+[ ,]", line)
    for name in ("turn", "operations"):
        assert f",{name}=" not in line or re.search(rf",{name}=-?\d{{1,19}}i[ ,]", line)
    assert "barge_in.is_false=false," in line


@given(st.floats(0, 1e308), st.integers(0, 2**63 - 1) | st.none())
def test_fields_keep_their_type(latency_ms: float, items: int | None) -> None:
    """A duration is a float, a count an integer of 64 bits or absent."""
    line = LineWriter().line(metric(latency_ms, items=items)).decode()
    assert re.search(r"[ ,]latency_ms=[0-9.e+-]+[ ,]", line)
    assert "items=" not in line or re.search(r"[ ,]items=\d{1,19}i[ ,]", line)


@pytest.mark.parametrize("kind", ["measurements", "turns"])
def test_handed_over_again_it_is_the_same_points(kind: str) -> None:
    """A write that timed out may have arrived: again, it overwrites and adds nothing."""
    with scripted(Answer(503), RESET, Answer(204)) as server:
        influx = reporter(server.url)
        report: Any = influx.report if kind == "measurements" else influx.report_turns
        batch = [(metric if kind == "measurements" else turn)() for _ in range(3)]
        for _ in range(2):
            with pytest.raises(TransientError):
                report(batch)
        report(batch)
        first, again, at_last = map(lines_of, server.requests)
        assert first == again == at_last
        report(batch)
        assert not set(lines_of(server.requests[-1])) & set(first)


@pytest.mark.parametrize(("status", "headers", "wait_s"), [(429, {"Retry-After": "7"}, 7), (503, {}, None)])
def test_a_busy_server_is_tried_again(status: int, headers: dict[str, str], wait_s: float | None) -> None:
    """429 and 5xx, with the wait that it asks for; one attempt each."""
    with scripted(Answer(status, headers=headers)) as server:
        with pytest.raises(TransientError) as told:
            reporter(server.url).report([metric()])
        assert (told.value.retry_after_s, told.value.delivered, len(server.requests)) == (wait_s, 0, 1)


@pytest.mark.parametrize(
    ("step", "said", "timeout_ms"), [(HANG, "in time", 200), (RESET, "broke the connection off", 60_000)]
)
def test_a_broken_line_is_tried_again(step: str, said: str, timeout_ms: float) -> None:
    """Within its time-out; a server that hangs does so until the test ends."""
    with scripted(step) as server, pytest.raises(TransientError, match=said):
        reporter(server.url, timeout_ms=timeout_ms).report([metric()])


def test_nobody_there_is_tried_again() -> None:
    """With the reason."""
    with refusing() as url, pytest.raises(TransientError, match="refused"):
        reporter(url).report([metric()])


@pytest.mark.promise("endless-answers")
@pytest.mark.parametrize(
    ("status", "said"), [(401, "INFLUXDB_TOKEN"), (403, "'latency'"), (404, "'latency'.*'callbot'"), (308, "redirects")]
)
def test_a_final_refusal_says_what_to_do(status: int, said: str) -> None:
    """All of the batch, with one request."""
    with scripted(Answer(status, headers={"Location": "http://elsewhere/"})) as server:
        with pytest.raises(PermanentError, match=said) as told:
            reporter(server.url).report([metric(), metric()])
        assert (told.value.refused, len(server.requests)) == (2, 1)


def refuses(bad: str) -> Any:
    """As InfluxDB 2 does: one bad line, and nothing of the request is written."""

    def answer(request: Request) -> Answer:
        if bad in request.body.decode():
            return Answer(400, body=json.dumps({"code": "invalid", "message": "unable to parse"}).encode())
        return Answer(204)

    return answer


def test_of_a_refused_batch_only_the_bad_points_are_lost() -> None:
    """The batch is divided until they are found."""
    with scripted(refuses("bad")) as server:
        batch = [metric(i, operation_name="bad" if i in (3, 77) else "f") for i in range(100)]
        with pytest.raises(PermanentError, match=r"2 of 100 points.*unable to parse") as told:
            reporter(server.url).report(batch)
        assert told.value.refused == 2
        arrived = {line for r in server.requests if b"bad" not in r.body for line in lines_of(r)}
        assert len(arrived) == 98
        assert len(server.requests) < 40


def test_a_server_that_refuses_every_point_is_not_asked_without_end() -> None:
    """1,000 bad points are refused in little more than 100 requests."""
    with scripted(refuses("f")) as server:
        with pytest.raises(PermanentError) as told:
            reporter(server.url).report([metric() for _ in range(1000)])
        assert told.value.refused == 1000
        assert len(server.requests) < 120


def test_a_server_that_says_how_many_it_dropped_is_believed() -> None:
    """A partial write: the others are there, and nothing is sent again."""
    message = "partial write: field type conflict: input field is type float, already exists as type integer dropped=3"
    with scripted(Answer(422, body=json.dumps({"message": message}).encode())) as server:
        with pytest.raises(PermanentError, match=r"3 of 10 points.*field type conflict") as told:
            reporter(server.url).report([metric() for _ in range(10)])
        assert (told.value.refused, len(server.requests)) == (3, 1)


def test_a_number_of_thousands_of_digits_is_none() -> None:
    """The batch is divided, as where the server says no number."""
    with scripted(Answer(400, body=b"partial write: x dropped=" + b"9" * 5000), Answer(204)) as server:
        reporter(server.url).report([metric(), metric()])
        assert len(server.requests) == 3


def test_a_fault_while_the_batch_is_divided_hands_it_all_over_again() -> None:
    """The points that arrived are overwritten by themselves."""
    with scripted(Answer(400), Answer(204), Answer(503), Answer(204)) as server:
        influx, batch = reporter(server.url), [metric() for _ in range(4)]
        with pytest.raises(TransientError):
            influx.report(batch)
        influx.report(batch)
        assert lines_of(server.requests[0]) == lines_of(server.requests[-1])


def test_a_time_that_influxdb_cannot_hold_is_refused_here() -> None:
    """It takes no other point along, and costs no request."""
    with scripted(Answer(204)) as server:
        with pytest.raises(PermanentError, match="1677 to 2262") as told:
            reporter(server.url).report([metric(timestamp=datetime(2500, 1, 1, tzinfo=UTC)), metric()])
        assert told.value.refused == 1
        assert len(lines_of(server.requests[0])) == 1


def test_an_answer_of_any_length_is_read_to_64_kilobytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One megabyte of text, and one that never ends."""
    with scripted(Answer(401, body=b"long " * 1_000_000), DRIP) as server:
        influx = reporter(server.url)
        with pytest.raises(PermanentError) as told:
            influx.report([metric()])
        assert len(str(told.value)) < 600
        # The time is over once it has been looked at ten times, which is while the answer drips.
        looks = count()
        monkeypatch.setattr("callbot_latency.reporters.http_client.monotonic", lambda: 0.0 if next(looks) < 10 else 1e6)
        influx.report([metric()])
        assert next(looks) > 10


@pytest.mark.promise("secrets")
@pytest.mark.parametrize(
    "step", [ECHO, HANG, RESET, Answer(500), Answer(302, headers={"Location": "http://x"})], ids=str
)
def test_the_token_is_never_shown(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an error, a log line or a repr, even where the server repeats it."""
    caplog.set_level("DEBUG")
    with scripted(step) as server:
        influx = reporter(server.url, timeout_ms=200 if step == HANG else 60_000)
        with pytest.raises((TransientError, PermanentError)) as told:
            influx.report([metric()])
        influx.close()
        shown = f"{told.value!s}{told.value!r}{told.value.__cause__}{caplog.text}{influx!r}"
        assert TOKEN not in shown


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"influxdb_url": "influx:8086"}, "influxdb_url"),
        ({"influxdb_url": "http://user:secret@influx:8086"}, "influxdb_url"),
        ({"token": ""}, "token"),
        ({"token": "secret\r\nInjected: 1"}, "token"),
        ({"token": None}, "token"),
        ({"org": ""}, "org"),
        ({"bucket": 5}, "bucket"),
        ({"timeout_ms": 0}, "timeout_ms"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments: Any, names: str) -> None:
    """It names the argument, and shows no secret."""
    with pytest.raises(ValueError, match=f"^{names}: ") as told:
        reporter(**{"url": "http://influx", **arguments})
    assert "secret" not in str(told.value)


def test_its_target_is_where_it_writes() -> None:
    """So that the same bucket from environment and by hand counts once; the token is no part of it."""
    assert reporter("http://influx:8086/").target == ("http://influx:8086", "callbot", "latency")


def test_without_influxdb_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, isolated: object) -> None:
    """At once, by hand and by setting."""
    monkeypatch.setitem(sys.modules, "influxdb_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"callbot-latency\[influxdb\]"):
        reporter("http://influx")
    config = LatencyConfig(influxdb_url="http://influx", influxdb_token=TOKEN, influxdb_org="o", influxdb_bucket="b")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"INFLUXDB_URL.*callbot-latency\[influxdb\]"):
        influxdb_reporter(config)


def test_the_applications_lines_of_urllib3_are_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    """The client would set the level of their logger; of our own posts, no line is logged."""
    caplog.set_level("DEBUG")
    logger = logging.getLogger("urllib3")
    with scripted(Answer(204)) as server:
        before = logger.level
        reporter(server.url).report([metric()])
        assert logger.level == before
        assert not [record for record in caplog.records if record.name.startswith("urllib3")]


def test_a_forked_child_has_a_connection_of_its_own() -> None:
    """And nothing of what the parent could not write."""
    with scripted(Answer(204)) as server:
        influx, batch = reporter(server.url), [metric()]
        influx.report(batch)
        child = os.fork()
        if child == 0:
            try:
                parents = influx._http
                influx.start()
                assert influx._http is not parents
                influx.report(batch)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        influx.report(batch)
        assert len({line for request in server.requests for line in lines_of(request)}) == 3


@pytest.mark.usefixtures("isolated")
def test_an_incomplete_setting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without what belongs to it; the rest without an address is the Collector's affair."""
    monkeypatch.setenv("INFLUXDB_TOKEN", TOKEN)
    monkeypatch.setenv("INFLUXDB_ORG", "callbot")
    assert influxdb_reporter(load_config()) is None
    monkeypatch.setenv("INFLUXDB_URL", "http://influx:8086")
    with pytest.raises(ConfigError, match="^INFLUXDB_URL: expected INFLUXDB_BUCKET beside it$"):
        load_config()
    monkeypatch.delenv("INFLUXDB_TOKEN")
    with pytest.raises(ConfigError, match="^INFLUXDB_URL: expected INFLUXDB_TOKEN, INFLUXDB_BUCKET beside it$"):
        load_config()


@pytest.mark.usefixtures("isolated")
def test_the_settings_make_the_reporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, credentials, time-out, interval; the job is the service's name unless it is set."""
    assert pushgateway_reporter(load_config()) is None
    with scripted(Answer()) as server:
        for name, value in {
            "PROMETHEUS_PUSHGATEWAY_URL": f"http://user:pa%20ss@{server.where}/prefix/",
            "LATENCY_PUSHGATEWAY_INTERVAL_S": "5",
            "INFLUXDB_URL": server.url,
            "INFLUXDB_TOKEN": TOKEN,
            "INFLUXDB_ORG": "o",
            "INFLUXDB_BUCKET": "b",
            "LATENCY_INFLUXDB_TIMEOUT_MS": "61000",
        }.items():
            monkeypatch.setenv(name, value)
        influx = influxdb_reporter(load_config())
        assert influx is not None
        influx.report([metric()])
        assert influx._timeout_ms == 61_000
        for settings in ({}, {"OTEL_SERVICE_NAME": "bot"}, {"LATENCY_PUSHGATEWAY_JOB": "job"}):
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            push = pushgateway_reporter(load_config())
            assert push is not None
            push._http._timeout_s = 60  # a busy machine may take its time
            push.report([])
            assert push.interval_s == 5
        written, *pushes = server.requests
        assert written.path == "/api/v2/write?org=o&bucket=b&precision=ns"
        assert [request.path.split("/")[4] for request in pushes] == ["callbot", "bot", "job"]
        assert {request.headers["authorization"] for request in pushes} == {"Basic dXNlcjpwYSBzcw=="}


@pytest.mark.usefixtures("isolated")
def test_a_wrong_setting_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable, and shows no secret."""
    monkeypatch.setenv("PROMETHEUS_PUSHGATEWAY_URL", "http://user:pa55word@push/?query=1")
    with pytest.raises(ConfigError, match="^PROMETHEUS_PUSHGATEWAY_URL: ") as told:
        pushgateway_reporter(load_config())
    assert "pa55word" not in str(told.value)
    monkeypatch.setenv("LATENCY_PUSHGATEWAY_INTERVAL_S", "0")
    with pytest.raises(ConfigError, match="^LATENCY_PUSHGATEWAY_INTERVAL_S: expected a number of seconds above 0"):
        load_config()
