"""All that a running bot records of metadata: spans, the file, the tracker, alerts and the texts of rules."""

import json
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callbot_latency import Alert, add_alert_callback, latency_tracker
from callbot_latency.runtime import lifecycle as runtime_module
from tests.conftest import Start

RULE = """
[[rule]]
name = "every"
channels = "callbacks"
text = "of {metadata.caller}, {metadata.intent}, {metadata.callers}"
condition = { kind = "latency", threshold_ms = 0.000001 }
cooldown_s = 0
"""


class Recorded:
    """A bot that runs, with a rule that is told of every operation and names its metadata."""

    def __init__(self, start: Start, folder: Path, **settings: Any) -> None:
        rules = folder / "rules.toml"
        rules.write_text(RULE)
        self._config = start(alert_rules_file=rules, rag_warning_ms=1e-6, rag_critical_ms=1e-6, **settings)
        self._exporter = InMemorySpanExporter()
        self._seen = 0
        self.alerts: list[Alert] = []
        add_alert_callback(self.alerts.append)
        TracerProvider.add_span_processor(self.runtime.providers.tracers, SimpleSpanProcessor(self._exporter))

    @property
    def runtime(self) -> Any:
        return runtime_module._runtime

    def forget(self) -> None:
        """What was recorded so far."""
        assert self.runtime.pipeline.flush(60)
        self._exporter.clear()
        self.alerts.clear()
        latency_tracker.reset_stats()
        self._seen = len(self._written())

    def _written(self) -> bytes:
        file = self._config.metrics_file_path
        return file.read_bytes() if file.exists() else b""

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Metadata of each span that has ended."""
        return [
            {key: value for key, value in (span.attributes or {}).items() if key.startswith("metadata.")}
            for span in self._exporter.get_finished_spans()
        ]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Metadata of each line of the file."""
        assert self.runtime.pipeline.flush(60)
        return [json.loads(line).get("metadata", {}) for line in self._written()[self._seen :].splitlines()]

    @property
    def texts(self) -> list[str]:
        """All of it, as text."""
        lines = self.lines
        told = [[alert.text, dict(alert.metric.metadata)] for alert in self.alerts]
        known = [dict(metric.metadata) for metric in latency_tracker.get_recent_metrics(limit=1_000)]
        turns = [dict(turn.metadata) for turn in latency_tracker.get_turns()]
        return [str(each) for part in (self.attributes, lines, told, known, turns) for each in part]
