"""Logs: our own lines, and the ids of the running call on every line of an application that uses structlog."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from opentelemetry import trace

from .. import semconv
from ..tracing.context import bound

__all__ = ["add_call_context", "configure_logging"]


def add_call_context(_: Any, __: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: puts trace_id, span_id, call_sid and stream_sid on the line, those that are known."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event_dict.setdefault(semconv.TRACE_ID, trace.format_trace_id(span.trace_id))
        event_dict.setdefault(semconv.SPAN_ID, trace.format_span_id(span.span_id))
    binding = bound()
    if binding is not None:
        event_dict.setdefault(semconv.CALL_SID, binding.call_sid)
        if binding.stream_sid:
            event_dict.setdefault(semconv.STREAM_SID, binding.stream_sid)
    return event_dict


def configure_logging(level: int | str = logging.INFO, *, json: bool = True) -> None:
    """Set up structlog and the root logger to write one line an event on stderr, for an application that has no set-up.

    Args:
        level: the root logger's level.
        json: JSON lines; else coloured text for a terminal.

    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        add_call_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
