"""The type of an operation, its status, its severity and its thresholds."""

import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

__all__ = ["CANCELLED", "OperationStatus", "OperationType", "Severity", "ThresholdsMs"]


class ThresholdsMs(NamedTuple):
    """From which latency on an operation is slow, in milliseconds; a value equal to a threshold breaches it."""

    warning_ms: float
    critical_ms: float


class Severity(Enum):
    """How bad a breach is."""

    if not TYPE_CHECKING:  # members are one of a kind; Enum would hash their names, in Python, at each look-up
        __hash__ = object.__hash__

    WARNING = "warning"
    CRITICAL = "critical"

    @classmethod
    def of(cls, value: "Severity | str") -> "Severity":
        """The severity itself, or the one with this value.

        Raises:
            ValueError: neither.

        """
        try:
            return cls(value)
        except ValueError:
            raise ValueError(f"severity: expected 'warning' or 'critical', got {value!r}") from None


class OperationStatus(Enum):
    """How an operation ended. Cancelled ones are counted, and kept out of percentiles and thresholds."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    RUNNING = "running"
    """It has not ended: on alerts of operations in flight alone, never in a file or a statistic."""


# A member of an Enum is slow to get at by its class, and this one is asked for at each measurement.
CANCELLED: Final = OperationStatus.CANCELLED

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class OperationType(Enum):
    """What kind of work was measured. The four of a phone callbot, and those added by `register`."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__

    STT = "speech_to_text"
    TTS = "text_to_speech"
    SALESFORCE = "salesforce_api"
    RAG = "rag_inference"

    @classmethod
    def register(cls, name: str, *, warning_ms: float, critical_ms: float) -> "OperationType":
        """Add a type with its thresholds in milliseconds; call it before `init()`, so that they become bucket edges.

        Registering the same name with the same thresholds again returns the same object.

        Raises:
            ValueError: the name is not lower-case snake case, is one of the four, is registered with other
                thresholds, or the thresholds are not 0 < warning_ms <= critical_ms.

        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"operation type {name!r}: expected lower-case snake case, such as 'crm_lookup'")
        if name in cls._value2member_map_:
            raise ValueError(f"operation type {name!r} is built in; its thresholds are set by LATENCY_*_MS")
        if not 0 < warning_ms <= critical_ms or math.isinf(critical_ms):
            raise ValueError(
                f"operation type {name!r}: expected 0 < warning_ms <= critical_ms, got {warning_ms} and {critical_ms}"
            )
        thresholds = ThresholdsMs(float(warning_ms), float(critical_ms))
        member, known = _registered.get(name, (None, thresholds))
        if known != thresholds:
            raise ValueError(f"operation type {name!r} is already registered with {known}, got {thresholds}")
        if member is None:
            member = object.__new__(cls)
            member._name_, member._value_ = name.upper(), name
            _registered[name] = member, thresholds
        return member

    @classmethod
    def registered(cls) -> Mapping[str, ThresholdsMs]:
        """Thresholds of the registered types by value."""
        return {name: thresholds for name, (_, thresholds) in _registered.items()}

    @classmethod
    def known(cls) -> list["OperationType"]:
        """The four and the registered ones."""
        return [*cls, *(member for member, _ in _registered.values())]

    @classmethod
    def _missing_(cls, value: object) -> "OperationType | None":
        found = _registered.get(value) if isinstance(value, str) else None
        return found[0] if found else None

    @classmethod
    def of(cls, value: "OperationType | str") -> "OperationType":
        """The type itself, or the one with this value.

        Raises:
            TypeError: neither an OperationType nor a string.
            ValueError: an unknown value; the message lists the known ones.

        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise TypeError(
                f"operation_type: expected an OperationType or its value, got {type(value).__name__}; "
                'write @measure_latency(OperationType.STT) or @measure_latency("speech_to_text")'
            )
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(t.value for t in cls.known())
            raise ValueError(
                f"operation_type: unknown {value!r}; expected one of {known}, "
                "or add it with OperationType.register(name, warning_ms=..., critical_ms=...)"
            ) from None


_registered: Final[dict[str, tuple[OperationType, ThresholdsMs]]] = {}
