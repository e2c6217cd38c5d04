"""Imports of the first version go on working through the modules of docs/coming-from-the-first-version.md."""

import re
from pathlib import Path

import pytest

from tests.support.subprocesses import ROOT, facts_of, run_python

pytestmark = pytest.mark.real_time

PAGE = ROOT / "docs" / "coming-from-the-first-version.md"
_MODULE = re.compile(r"^`(utils/\w+\.py)`\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

USE = """
from utils.latency_alerts import add_alert_callback
from utils.latency_config import latency_config
from utils.latency_decorator import measure_latency as measured, measure_latency_context as measured_context
from utils.latency_reporters import InfluxDBReporter, PrometheusReporter, SlackReporter, report_manager
from utils.latency_tracker import OperationStatus, OperationType, latency_tracker as tracker

slack = SlackReporter(webhook_url=HOOK, channel="#alerts")
gateway = PrometheusReporter("http://127.0.0.1:9")
points = InfluxDBReporter(influxdb_url="http://127.0.0.1:9", token="t", org="o", bucket="b")
report_manager.add_reporter(slack)
init()
breaches = []
add_alert_callback(breaches.append)

class Service:
    call_sid = "CA1"

    @measured(OperationType.STT, "transcribe", provider="google", call_sid_attr="call_sid")
    def transcribe(self):
        with measured_context(OperationType.RAG, "search"):
            pass

Service().transcribe()
metrics = tracker.get_recent_metrics()
tell(
    measured=[m.operation_name for m in metrics],
    succeeded=all(m.status is OperationStatus.SUCCESS for m in metrics),
    call_sid=metrics[-1].call_sid,
    reporters=sorted(report_manager.status()),
    warning_ms=latency_config.thresholds.get_warning_threshold(OperationType.STT),
)
"""


def test_old_imports_measure(tmp_path: Path) -> None:
    """The re-export modules of the page, put where the old ones were, serve old code."""
    modules = _MODULE.findall(PAGE.read_text())
    assert len(modules) == 5
    for name, code in modules:
        assert len(code.splitlines()) == 3
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    # The same webhook by hand and from the environment counts once.
    hook = "https://hooks.slack.com/services/T0/B0/x"
    told = facts_of(
        run_python(
            f"sys.path.insert(0, '')\nHOOK = {hook!r}\n" + USE, tmp_path, {"SLACK_WEBHOOK_URL": hook}, timeout_s=100
        )
    )
    assert told == {
        "measured": ["search", "transcribe"],
        "succeeded": True,
        "call_sid": "CA1",
        "reporters": ["jsonl", "slack"],
        "warning_ms": 2000.0,
    }
