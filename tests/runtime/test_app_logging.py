"""Log lines: ours, and the application's with the ids of its call."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from callbot_latency import (
    LatencyConfig,
    LatencyMetric,
    add_call_context,
    call,
    measure_latency_context,
    record,
    shutdown,
)
from tests.conftest import Start
from tests.support.subprocesses import facts_of, run_python

NEVER_SLOW = {"LATENCY_STT_WARNING_MS": "600000", "LATENCY_STT_CRITICAL_MS": "600000"}
"""Settings with which no machine is so busy that what is measured here becomes an alert, which is a line too."""


def metric(latency_ms: float = 1500, **more: Any) -> LatencyMetric:
    return LatencyMetric(
        **{
            "operation_type": "speech_to_text",
            "operation_name": "listen",
            "latency_ms": latency_ms,
            "status": "success",
            "provider": "google",
            "call_sid": "CA1",
            **more,
        }
    )


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    return [line for line in caplog.records if line.name == logger]


def test_each_measurement_is_a_line_at_debug(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Of one logger, with its ids as `extra`."""
    with caplog.at_level(logging.DEBUG, "callbot_latency.tracker"):
        start()
        record(metric(stream_sid="MZ1", trace_id="a" * 32, span_id="b" * 16))
        record(metric(2.4, status="error", call_sid=None, provider=None))
        assert shutdown(60)
    first, second = lines(caplog, "callbot_latency.tracker")
    assert first.getMessage() == "speech_to_text listen (google) took 1500 ms in call CA1 success"
    assert second.getMessage() == "speech_to_text listen took 2 ms error"
    assert first.levelno == logging.DEBUG
    ids = ("call_sid", "stream_sid", "trace_id", "span_id")
    assert [getattr(first, name) for name in ids] == ["CA1", "MZ1", "a" * 32, "b" * 16]
    assert not any(hasattr(second, name) for name in ids)


def test_an_alert_is_a_line_of_its_level(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Warning or error; what breached nothing is no line."""
    start()
    for latency_ms in (1999, 2000, 5000):
        record(metric(latency_ms))
    assert shutdown(60)
    assert [(line.levelname, line.getMessage()) for line in lines(caplog, "callbot_latency.alerting")] == [
        ("WARNING", "warning: speech_to_text listen (google) took 2000 ms in call CA1, warning from 2000 ms"),
        ("ERROR", "critical: speech_to_text listen (google) took 5000 ms in call CA1, critical from 5000 ms"),
    ]


def test_without_logging_neither_is_written(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """LATENCY_LOGGING_ENABLED=false."""
    with caplog.at_level(logging.DEBUG, "callbot_latency.tracker"):
        start(logging_enabled=False)
        record(metric(9000))
        assert shutdown(60)
    assert not caplog.records


# -- the processor --------------------------------------------------------------------------------------------------


def line(**event: Any) -> dict[str, Any]:
    return dict(add_call_context(None, "info", {"event": "x", **event}))


def test_a_line_within_a_call_has_its_ids(measuring: LatencyConfig) -> None:
    """Those that are known; span_id is that of the innermost operation."""
    assert line() == {"event": "x"}
    with call("CA1", stream_sid="MZ1") as opened:
        outer = line()
        with measure_latency_context("speech_to_text", "listen"):
            inner = line()
    assert outer["trace_id"] == inner["trace_id"] == opened.trace_id
    assert (inner["call_sid"], inner["stream_sid"]) == ("CA1", "MZ1")
    assert len(inner["span_id"]) == 16
    assert inner["span_id"] != outer["span_id"]
    with call("CA1"):
        assert "stream_sid" not in line()
    assert line() == {"event": "x"}


def test_what_the_application_says_itself_stays(measuring: LatencyConfig) -> None:
    """Its own call_sid is not replaced."""
    with call("CA1"):
        assert line(call_sid="mine")["call_sid"] == "mine"


def test_the_processor_in_structlog(measuring: LatencyConfig) -> None:
    """As an application uses it."""
    captured = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, processors=[add_call_context, captured])
    with call("CA1"):
        log.info("hello")
        span = trace.get_current_span().get_span_context()
    (entry,) = captured.entries
    assert entry["call_sid"] == "CA1"
    assert entry["span_id"] == trace.format_span_id(span.span_id)


# -- set-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.real_time
def test_configure_logging_writes_json_on_stderr(tmp_path: Path) -> None:
    """Lines of structlog, of logging and of ours, with ids, exceptions and UTC times; nothing on stdout."""
    code = """
    import logging, structlog
    cl.configure_logging("DEBUG")
    logging.getLogger("callbot_latency.tracker").setLevel(logging.DEBUG)
    init()
    with cl.call("CA1", stream_sid="MZ1"):
        structlog.get_logger("bot").info("hello", n=1)
        logging.getLogger("library").warning("plain %s", "text")
        try:
            raise KeyError("x")
        except KeyError:
            structlog.get_logger("bot").exception("failed")
        listen()
    assert shutdown(60)
    tell()
    """
    done = run_python(code, tmp_path, NEVER_SLOW, timeout_s=100)
    assert facts_of(done) == {}
    assert len(done.stdout.splitlines()) == 1
    rows = [json.loads(row) for row in done.stderr.splitlines()]
    rows, deliveries = ([row for row in rows if ("reporters" in row["logger"]) is told] for told in (False, True))
    assert {row["event"] for row in deliveries} == {"delivered 1"}
    bot, library, failed, ours = rows
    assert (bot["event"], bot["n"], bot["level"], bot["logger"]) == ("hello", 1, "info", "bot")
    assert (library["event"], library["level"]) == ("plain text", "warning")
    assert "KeyError" in failed["exception"]
    assert ours["logger"] == "callbot_latency.tracker"
    assert ours["event"].startswith("speech_to_text listen (google) took")
    assert bot["timestamp"].endswith("Z")
    assert {row["call_sid"] for row in rows} == {"CA1"}
    assert {row["trace_id"] for row in rows} == {bot["trace_id"]}


@pytest.mark.real_time
def test_configure_logging_for_a_terminal(tmp_path: Path) -> None:
    """Text instead of JSON; twice is once."""
    code = """
    import logging
    cl.configure_logging(json=False)
    cl.configure_logging(json=False)
    logging.getLogger("library").info("plain text")
    logging.getLogger("library").debug("not asked for")
    tell(handlers=len(logging.getLogger().handlers))
    """
    done = run_python(code, tmp_path, NEVER_SLOW, timeout_s=100)
    assert facts_of(done) == {"handlers": 1}
    assert done.stderr.count("plain text") == 1
    assert "not asked for" not in done.stderr


@pytest.mark.real_time
def test_import_and_init_configure_no_logging(tmp_path: Path) -> None:
    """The application's set-up is its own."""
    code = """
    import logging, structlog
    before = (logging.getLogger().level, list(logging.getLogger().handlers), structlog.is_configured())
    for name in cl.__all__:
        getattr(cl, name)
    init()
    listen()
    assert shutdown(60)
    after = (logging.getLogger().level, list(logging.getLogger().handlers), structlog.is_configured())
    tell(same=before == after, handlers=logging.getLogger("callbot_latency").handlers)
    """
    done = run_python(code, tmp_path, NEVER_SLOW, timeout_s=100)
    assert facts_of(done) == {"same": True, "handlers": []}
    assert done.stderr == ""


def test_alerts_are_logged_in_the_language_that_is_set(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """LATENCY_LANGUAGE=fr: the lines about alerts; those about measurements stay as they are."""
    caplog.set_level(logging.DEBUG, "callbot_latency")
    start(language="fr")
    record(LatencyMetric("rag_inference", "search", 3000, "success"))  # type: ignore[arg-type]
    assert shutdown(60)
    lines = [line.getMessage() for line in caplog.records]
    assert "avertissement : rag_inference search a pris 3000 ms, avertissement à partir de 3000 ms" in lines
    assert "rag_inference search took 3000 ms success" in lines
