"""An OpenTelemetry latency instrument for phone callbots: where the time went, in which call, with which provider."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .alerting import Alert, add_alert_callback
    from .calls.call import bind, call
    from .calls.propagation import bound_from_headers, inject_headers, propagate
    from .calls.turn import Turn, turn
    from .config import ConfigError, LatencyConfig
    from .delivery.manager import ReportManager, report_manager
    from .instrumentation import instrument, uninstrument
    from .interop.span_processor import LatencySpanProcessor
    from .measuring.attempts import attempt
    from .measuring.context_manager import measure_latency_context
    from .measuring.decorator import measure_latency
    from .measuring.session import record
    from .model.metric import LatencyMetric
    from .model.operation import OperationStatus, OperationType, Severity
    from .model.thresholds import Thresholds
    from .model.turn_metric import TurnMetric
    from .pipeline.tracker import LatencyTracker, latency_tracker
    from .reporters import LatencyReporter, PermanentError, ReporterStatus, TransientError
    from .reporters.apprise import AppriseReporter
    from .reporters.influxdb import InfluxDBReporter
    from .reporters.pushgateway import PrometheusReporter
    from .reporters.slack import SlackReporter
    from .runtime.app_logging import add_call_context, configure_logging
    from .runtime.lifecycle import init, latency_config, shutdown
    from .timeline import Anchor, BargeIn

__all__ = [
    "Alert",
    "Anchor",
    "AppriseReporter",
    "BargeIn",
    "ConfigError",
    "InfluxDBReporter",
    "LatencyConfig",
    "LatencyMetric",
    "LatencyReporter",
    "LatencySpanProcessor",
    "LatencyTracker",
    "OperationStatus",
    "OperationType",
    "PermanentError",
    "PrometheusReporter",
    "ReportManager",
    "ReporterStatus",
    "Severity",
    "SlackReporter",
    "Thresholds",
    "TransientError",
    "Turn",
    "TurnMetric",
    "add_alert_callback",
    "add_call_context",
    "attempt",
    "bind",
    "bound_from_headers",
    "call",
    "configure_logging",
    "init",
    "inject_headers",
    "instrument",
    "latency_config",
    "latency_tracker",
    "measure_latency",
    "measure_latency_context",
    "propagate",
    "record",
    "report_manager",
    "shutdown",
    "turn",
    "uninstrument",
]

# Loaded on first use (PEP 562): importing the package starts nothing and costs nothing.
_MODULES = {
    "alerting": ("Alert", "add_alert_callback"),
    "measuring.attempts": ("attempt",),
    "calls.call": ("bind", "call"),
    "config": ("ConfigError", "LatencyConfig"),
    "instrumentation": ("instrument", "uninstrument"),
    "runtime.app_logging": ("add_call_context", "configure_logging"),
    "measuring.context_manager": ("measure_latency_context",),
    "measuring.decorator": ("measure_latency",),
    "model.metric": ("LatencyMetric",),
    "model.operation": ("OperationStatus", "OperationType", "Severity"),
    "interop.span_processor": ("LatencySpanProcessor",),
    "calls.propagation": ("bound_from_headers", "inject_headers", "propagate"),
    "reporters": ("LatencyReporter", "PermanentError", "ReporterStatus", "TransientError"),
    "delivery.manager": ("ReportManager", "report_manager"),
    "reporters.apprise": ("AppriseReporter",),
    "reporters.slack": ("SlackReporter",),
    "reporters.influxdb": ("InfluxDBReporter",),
    "reporters.pushgateway": ("PrometheusReporter",),
    "runtime.lifecycle": ("init", "latency_config", "shutdown"),
    "measuring.session": ("record",),
    "model.thresholds": ("Thresholds",),
    "timeline": ("Anchor", "BargeIn"),
    "model.turn_metric": ("TurnMetric",),
    "calls.turn": ("Turn", "turn"),
    "pipeline.tracker": ("LatencyTracker", "latency_tracker"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
