"""Which latency is too long."""

from collections.abc import Mapping
from typing import Final

from .operation import OperationType, Severity, ThresholdsMs

__all__ = ["DEFAULT_THRESHOLDS", "Thresholds"]

DEFAULT_THRESHOLDS: Final[Mapping[str, ThresholdsMs]] = {
    OperationType.STT.value: ThresholdsMs(2000, 5000),
    OperationType.TTS.value: ThresholdsMs(1500, 3000),
    OperationType.SALESFORCE.value: ThresholdsMs(1000, 3000),
    OperationType.RAG.value: ThresholdsMs(3000, 8000),
}


class Thresholds:
    """Warning and critical thresholds in milliseconds, by operation type (or its value)."""

    def __init__(self, by_type: Mapping[str, ThresholdsMs] = DEFAULT_THRESHOLDS) -> None:
        self._by_type = {**DEFAULT_THRESHOLDS, **by_type}

    def of(self, operation_type: OperationType | str) -> ThresholdsMs:
        """Both thresholds of a type.

        Raises:
            TypeError, ValueError: not an operation type.

        """
        value = OperationType.of(operation_type).value
        return self._by_type.get(value) or OperationType.registered()[value]

    def items(self) -> list[tuple[str, ThresholdsMs]]:
        """Every type's value with its thresholds, registered ones included."""
        return list({**self._by_type, **OperationType.registered()}.items())

    def get_warning_threshold(self, operation_type: OperationType | str) -> float:
        """From how many milliseconds on an operation of this type is slow."""
        return self.of(operation_type).warning_ms

    def get_critical_threshold(self, operation_type: OperationType | str) -> float:
        """From how many milliseconds on an operation of this type is critical."""
        return self.of(operation_type).critical_ms

    def smallest_critical_ms(self) -> float:
        """The smallest critical threshold of any type, in milliseconds."""
        return min(t.critical_ms for t in (*self._by_type.values(), *OperationType.registered().values()))

    def severity(self, operation_type: str, latency_ms: float) -> Severity | None:
        """What a latency breaches; equal to a threshold breaches it. `operation_type` is the type's value."""
        warning_ms, critical_ms = self._by_type.get(operation_type) or self.of(operation_type)
        if latency_ms < warning_ms:
            return None
        return Severity.WARNING if latency_ms < critical_ms else Severity.CRITICAL

    def breached_ms(self, operation_type: OperationType, severity: Severity) -> float:
        """The threshold that a breach of this severity passed, in milliseconds."""
        warning_ms, critical_ms = self.of(operation_type)
        return critical_ms if severity is Severity.CRITICAL else warning_ms

    def bucket_bounds_s(self) -> set[float]:
        """Every threshold in seconds: a histogram with these edges counts breaches exactly."""
        return {ms / 1000.0 for thresholds in self._by_type.values() for ms in thresholds}
