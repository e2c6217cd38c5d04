"""A measurement, or a turn, for tests that need one and care about little of it."""

from datetime import UTC, datetime
from typing import Any

from callbot_latency import Anchor, LatencyMetric, TurnMetric


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


def turn(number: int = 1, **more: Any) -> TurnMetric:
    """Answered after 1,500 ms, of which 1,400 to the first audio that was sent."""
    return TurnMetric(
        **{
            "call_sid": "CA1",
            "turn": number,
            "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
            "response_ms": 1500.0,
            "response_sent_ms": 1400.0,
            "anchor": Anchor.STT_FINAL,
            "parts_ms": {"endpointing": 300.0, "speech_to_text": 1200.0},
            **more,
        }
    )
