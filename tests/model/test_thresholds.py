"""Which latency is too long."""

import pytest

from callbot_latency import OperationType, Severity, Thresholds
from callbot_latency.model.operation import ThresholdsMs


@pytest.mark.parametrize(
    ("kind", "warning_ms", "critical_ms"),
    [
        (OperationType.STT, 2000, 5000),
        (OperationType.TTS, 1500, 3000),
        (OperationType.SALESFORCE, 1000, 3000),
        (OperationType.RAG, 3000, 8000),
    ],
)
def test_defaults(kind: OperationType, warning_ms: float, critical_ms: float) -> None:
    """The user's defaults, by type and by value."""
    thresholds = Thresholds()
    for asked in (kind, kind.value):
        assert thresholds.get_warning_threshold(asked) == warning_ms
        assert thresholds.get_critical_threshold(asked) == critical_ms


@pytest.mark.parametrize(
    ("latency_ms", "severity"),
    [
        (0, None),
        (1999.999999, None),
        (2000, Severity.WARNING),
        (4999.999999, Severity.WARNING),
        (5000, Severity.CRITICAL),
        (1e9, Severity.CRITICAL),
    ],
)
def test_a_value_equal_to_a_threshold_breaches_it(latency_ms: float, severity: Severity | None) -> None:
    """From the threshold on, not above it."""
    assert Thresholds().severity("speech_to_text", latency_ms) is severity


def test_equal_thresholds_leave_no_warning() -> None:
    """Where both are the same, a breach is critical."""
    thresholds = Thresholds({"speech_to_text": ThresholdsMs(100, 100)})
    assert thresholds.severity("speech_to_text", 99.9) is None
    assert thresholds.severity("speech_to_text", 100) is Severity.CRITICAL


def test_the_breached_threshold_is_the_one_of_the_severity() -> None:
    """What an alert says was passed."""
    assert Thresholds().breached_ms(OperationType.TTS, Severity.WARNING) == 1500
    assert Thresholds().breached_ms(OperationType.TTS, Severity.CRITICAL) == 3000


def test_what_is_not_given_keeps_its_default() -> None:
    """Configured ones replace, the others stay; all are edges."""
    thresholds = Thresholds({"speech_to_text": ThresholdsMs(700, 1700)})
    assert thresholds.of("speech_to_text") == (700, 1700)
    assert thresholds.of("text_to_speech") == (1500, 3000)
    assert {0.7, 1.7, 1.5, 3.0, 1.0, 8.0} <= thresholds.bucket_bounds_s()
    assert 5.0 not in thresholds.bucket_bounds_s()


def test_an_unknown_type_is_an_error() -> None:
    """By name, as everywhere."""
    with pytest.raises(ValueError, match="unknown 'stt'"):
        Thresholds().get_warning_threshold("stt")
    with pytest.raises(TypeError):
        Thresholds().get_critical_threshold(None)  # type: ignore[arg-type]
