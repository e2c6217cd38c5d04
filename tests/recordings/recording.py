"""Records what a framework's tracing writes, and what callbot_latency makes of it. Needs nothing of the tests."""

import json
import os
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()


def begin() -> None:
    """Call it before the framework is imported."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if "--measure" in sys.argv:
        from callbot_latency import init

        os.environ |= {"LATENCY_FILE_LOGGING_ENABLED": "false", "LATENCY_LOGGING_ENABLED": "false"}
        init()


def end() -> None:
    """Writes the spans, or with ``--measure`` the measurements, as JSON on standard output."""
    if "--measure" in sys.argv:
        from callbot_latency import latency_tracker, shutdown

        shutdown()
        written = [metric.to_dict() for metric in latency_tracker.metrics]
    else:
        written = [
            _written(span) for span in sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        ]
    sys.stdout.write(json.dumps(written, indent=1) + "\n")


def _written(span: ReadableSpan) -> dict[str, Any]:
    return {
        "scope": span.instrumentation_scope.name if span.instrumentation_scope else None,
        "name": span.name,
        "span_id": span.context.span_id if span.context else None,
        "parent_id": span.parent.span_id if span.parent else None,
        "start": span.start_time,
        "end": span.end_time,
        "status": span.status.status_code.name,
        "attributes": {key: value for key, value in (span.attributes or {}).items() if not _is_long(value)},
        "exceptions": [
            (event.attributes or {}).get("exception.type") for event in span.events if event.name == "exception"
        ],
    }


def _is_long(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or len(str(value)) > 60
