"""Imports of the first version go on working through the modules of docs/coming-from-the-first-version.md."""

import re
from pathlib import Path

from tests.subprocesses import ROOT, facts_of, run_python

PAGE = ROOT / "docs" / "coming-from-the-first-version.md"
_MODULE = re.compile(r"^`(utils/\w+\.py)`\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

USE = """
from utils.latency_alerts import add_alert_callback
from utils.latency_config import latency_config
from utils.latency_decorator import measure_latency as measured, measure_latency_context as measured_context
from utils.latency_tracker import OperationStatus, OperationType, latency_tracker as tracker

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
    warning_ms=latency_config.thresholds.get_warning_threshold(OperationType.STT),
)
"""


def test_old_imports_measure(tmp_path: Path) -> None:
    """The re-export modules of the page, put where the old ones were, serve old code."""
    modules = _MODULE.findall(PAGE.read_text())
    assert len(modules) == 4
    for name, code in modules:
        assert len(code.splitlines()) == 3
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    told = facts_of(run_python("sys.path.insert(0, '')\n" + USE, tmp_path))
    assert told == {"measured": ["search", "transcribe"], "succeeded": True, "call_sid": "CA1", "warning_ms": 2000.0}
