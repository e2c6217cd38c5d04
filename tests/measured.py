"""A measurement, for tests that need one and care about little of it."""

from typing import Any

from callbot_latency import LatencyMetric


def metric(latency_ms: float = 1.0, **more: Any) -> LatencyMetric:
    return LatencyMetric(
        **{
            "operation_type": "speech_to_text",
            "operation_name": "f",
            "latency_ms": latency_ms,
            "status": "success",
            **more,
        }
    )
