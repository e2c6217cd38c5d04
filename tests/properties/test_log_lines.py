"""Whatever stands in a name or in the text of an exception, one thing is one line: in the log and in the file."""

import io
import json
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import structlog
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import Alert, LatencyMetric, PermanentError, TransientError, configure_logging
from callbot_latency.alerting.callback_runner import run_callback
from callbot_latency.delivery.errors import error_text
from callbot_latency.reporters.jsonl import JsonlReporter
from callbot_latency.reporters.log import LogReporter
from tests.properties.test_messages import alerts, metrics, texts

LIVE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_one_inert_line(text: str) -> bool:
    """Neither a second line, nor colours of a terminal, nor another direction of writing, nor half a character."""
    return len(text.splitlines()) <= 1 and not any(unicodedata.category(char) in LIVE for char in text)


@contextmanager
def told(level: int = logging.DEBUG) -> Iterator[list[logging.LogRecord]]:
    """Records of all of our loggers."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("callbot_latency")
    handler.emit = records.append  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield records
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


@contextmanager
def stderr() -> Iterator[Callable[[], str]]:
    """What `configure_logging` has written."""
    root, out = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    with patch.object(sys, "stderr", out):
        configure_logging(logging.DEBUG)
    try:
        yield out.getvalue
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


@given(metrics, alerts)
def test_a_measurement_and_an_alert_are_a_line_each(metric: LatencyMetric, alert: Alert) -> None:
    """At every level."""
    with told() as records:
        LogReporter().report([metric])
        LogReporter("fr").notify(alert)
    assert len(records) == 2
    for record in records:
        assert is_one_inert_line(record.getMessage())


@given(metrics)
def test_a_line_stays_one_where_we_set_up_the_log(metric: LatencyMetric) -> None:
    """With the ids that it carries, which are as they were given: JSON escapes them."""
    with stderr() as written:
        LogReporter().report([metric])
    (line,) = written().splitlines()
    assert is_one_inert_line(line)
    assert json.loads(line)["level"] == "debug"


@given(texts, st.sampled_from([TransientError, PermanentError]))
def test_what_a_reporter_says_of_a_failure_is_one_line(text: str, kind: type[Exception]) -> None:
    """It stands in the log and in `status()`."""
    assert is_one_inert_line(error_text(kind(text)))


@given(texts)
def test_what_a_callback_raised_is_one_line_of_its_traceback(text: str) -> None:
    """The places stand on lines of their own."""

    def fails(_: Alert) -> None:
        raise ValueError(text)

    with told() as records:
        run_callback(fails, None)  # type: ignore[arg-type]
    (record,) = records
    assert is_one_inert_line(record.getMessage())
    assert record.exc_info is not None
    assert str(record.exc_info[1]).startswith("ValueError: ")
    assert is_one_inert_line(str(record.exc_info[1]))


@given(st.lists(metrics, min_size=1, max_size=5))
def test_the_file_has_one_line_a_measurement(batch: list[LatencyMetric]) -> None:
    """Also for a reader that takes more than a newline for the end of a line."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "metrics.jsonl"
        reporter = JsonlReporter(file)
        reporter.start()
        reporter.report(batch)
        reporter.close()
        lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["operation_name"] for line in lines] == [each.operation_name for each in batch]
