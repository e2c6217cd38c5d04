"""The one event: its types, its checks, its JSON."""

import copy
import json
import math
import pickle
import uuid
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import LatencyMetric, OperationStatus, OperationType, Severity
from callbot_latency.model.thresholds import Thresholds

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)

EXAMPLE = """{"operation_type": "speech_to_text", "operation_name": "transcribe_audio_async", "latency_ms": 1500.0,
 "status": "success", "timestamp": "2025-01-01T12:00:00Z", "call_sid": "CA123456789", "stream_sid": "ST987654321",
 "provider": "google", "error_message": null, "metadata": {}}"""


def metric(**changed: Any) -> LatencyMetric:
    return LatencyMetric(
        **{"operation_type": "speech_to_text", "operation_name": "f", "latency_ms": 1.0, "status": "success", **changed}
    )


# -- types ----------------------------------------------------------------------------------------------------------


def test_the_four_types_and_their_words() -> None:
    """The values are the words of the JSON format."""
    assert {kind.name: kind.value for kind in OperationType} == {
        "STT": "speech_to_text",
        "TTS": "text_to_speech",
        "SALESFORCE": "salesforce_api",
        "RAG": "rag_inference",
    }
    assert [status.value for status in OperationStatus] == ["success", "error", "timeout", "cancelled", "running"]
    assert [severity.value for severity in Severity] == ["warning", "critical"]


def test_a_type_is_found_by_itself_and_by_its_value() -> None:
    """Enum and value are the same object."""
    assert OperationType.of("rag_inference") is OperationType.of(OperationType.RAG) is OperationType.RAG


def test_unknown_type_lists_the_known_ones_and_how_to_add_one() -> None:
    """The message is enough to mend it."""
    with pytest.raises(ValueError, match=r"unknown 'stt'; expected one of speech_to_text, .*OperationType\.register"):
        OperationType.of("stt")


@pytest.mark.parametrize("wrong", [None, 1, b"speech_to_text", object, OperationStatus.SUCCESS])
def test_a_type_of_the_wrong_kind_is_a_type_error(wrong: Any) -> None:
    """Only an OperationType or a string will do."""
    with pytest.raises(TypeError, match="operation_type: expected an OperationType or its value"):
        OperationType.of(wrong)


@pytest.mark.usefixtures("fresh_types")
def test_a_registered_type_is_one_object_everywhere() -> None:
    """Looked up, read back, pickled, copied: the very object that `register` gave."""
    crm = OperationType.register("crm_lookup", warning_ms=500, critical_ms=900)
    assert OperationType.register("crm_lookup", warning_ms=500, critical_ms=900) is crm
    assert OperationType.of("crm_lookup") is crm
    assert OperationType("crm_lookup") is crm
    read = LatencyMetric.from_dict(json.loads(json.dumps(metric(operation_type=crm).to_dict())))
    assert read.operation_type is crm
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(crm, protocol)) is crm
    assert copy.copy(crm) is crm
    assert copy.deepcopy({"kind": crm})["kind"] is crm
    assert isinstance(crm, OperationType)
    assert (crm.name, crm.value) == ("CRM_LOOKUP", "crm_lookup")
    assert crm in OperationType.known()
    assert "crm_lookup" in repr(crm)
    assert {crm: 1}[OperationType.of("crm_lookup")] == 1


@pytest.mark.usefixtures("fresh_types")
def test_a_metric_of_a_registered_type_survives_pickle_and_copy() -> None:
    """So does the event that carries it."""
    crm = OperationType.register("crm_lookup", warning_ms=500, critical_ms=900)
    told = metric(operation_type=crm, metadata={"a": [1]})
    for again in (pickle.loads(pickle.dumps(told)), copy.copy(told), copy.deepcopy(told)):
        assert again == told
        assert again.operation_type is crm


@pytest.mark.usefixtures("fresh_types")
def test_a_registered_type_brings_its_thresholds() -> None:
    """Also to thresholds that were made before it."""
    thresholds = Thresholds()
    crm = OperationType.register("crm_lookup", warning_ms=500, critical_ms=900)
    assert thresholds.get_warning_threshold(crm) == 500
    assert thresholds.get_critical_threshold("crm_lookup") == 900
    assert OperationType.registered()["crm_lookup"] == (500, 900)


@pytest.mark.usefixtures("fresh_types")
@pytest.mark.parametrize("name", ["", "CRM", "crm lookup", "1crm", "crm-lookup", "é", "a" * 65, "crm\n", None, 5])
def test_a_type_name_is_snake_case(name: Any) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ValueError, match="expected lower-case snake case, such as 'crm_lookup'"):
        OperationType.register(name, warning_ms=1, critical_ms=2)


@pytest.mark.usefixtures("fresh_types")
@pytest.mark.parametrize(
    ("warning_ms", "critical_ms"), [(0, 1), (-1, 1), (2, 1), (math.nan, 1), (1, math.nan), (1, math.inf)]
)
def test_thresholds_of_a_type_are_in_order(warning_ms: float, critical_ms: float) -> None:
    """0 < warning <= critical, both finite; what is refused is not kept."""
    with pytest.raises(ValueError, match="expected 0 < warning_ms <= critical_ms"):
        OperationType.register("crm_lookup", warning_ms=warning_ms, critical_ms=critical_ms)
    assert "crm_lookup" not in OperationType.registered()


@pytest.mark.usefixtures("fresh_types")
def test_a_type_is_not_registered_twice_with_other_thresholds() -> None:
    """Nor is one of the four registered at all."""
    OperationType.register("crm_lookup", warning_ms=500, critical_ms=900)
    with pytest.raises(ValueError, match="already registered"):
        OperationType.register("crm_lookup", warning_ms=500, critical_ms=901)
    with pytest.raises(ValueError, match="built in"):
        OperationType.register("speech_to_text", warning_ms=500, critical_ms=900)


# -- JSON -----------------------------------------------------------------------------------------------------------


def test_the_users_example_is_written_exactly() -> None:
    """Ten keys, their order, their spelling."""
    told = LatencyMetric(
        operation_type=OperationType.STT,
        operation_name="transcribe_audio_async",
        latency_ms=1500,
        status=OperationStatus.SUCCESS,
        timestamp=NOON,
        call_sid="CA123456789",
        stream_sid="ST987654321",
        provider="google",
    )
    assert json.dumps(told.to_dict()) == json.dumps(json.loads(EXAMPLE))
    assert LatencyMetric.from_dict(json.loads(EXAMPLE)) == told


def test_added_keys_come_after_and_only_when_known() -> None:
    """Optional for a reader: severity, first output, gap, items, ids, turn, a stream's own time, its audio."""
    full = metric(
        severity="warning",
        time_to_first_output_ms=1,
        largest_gap_ms=2,
        items=3,
        trace_id="a" * 32,
        span_id="b" * 16,
        turn=4,
        busy_ms=5,
        bytes=6,
        audio_ms=7,
        real_time_factor=0.5,
    )
    written = list(full.to_dict())
    assert written[:10] == list(json.loads(EXAMPLE))
    assert written[10:] == [
        "severity",
        "time_to_first_output_ms",
        "largest_gap_ms",
        "items",
        "trace_id",
        "span_id",
        "turn",
        "busy_ms",
        "bytes",
        "audio_ms",
        "real_time_factor",
    ]
    assert len(metric().to_dict()) == 10
    assert LatencyMetric.from_dict(full.to_dict()) == full


@pytest.mark.parametrize(
    "text",
    ["2025-01-01T12:00:00Z", "2025-01-01T12:00:00+00:00", "2025-01-01T13:00:00+01:00", "2025-01-01T12:00:00.000Z"],
)
def test_timestamps_are_read_however_their_zone_is_written(text: str) -> None:
    """`Z`, `+00:00` and other offsets mean the same instant, written back as `Z`."""
    read = LatencyMetric.from_dict({**json.loads(EXAMPLE), "timestamp": text})
    assert read.timestamp == NOON
    assert read.timestamp.tzinfo is UTC
    assert read.to_dict()["timestamp"] == "2025-01-01T12:00:00Z"


def test_a_naive_timestamp_is_utc_and_another_zone_is_converted() -> None:
    """A metric's timestamp is aware, in UTC."""
    assert metric(timestamp=datetime(2025, 1, 1, 12)).timestamp == NOON
    paris = datetime(2025, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    assert metric(timestamp=paris).to_dict()["timestamp"] == "2025-01-01T12:00:00Z"


def test_a_metric_without_timestamp_ended_now() -> None:
    """The default is aware."""
    assert abs(datetime.now(UTC) - metric().timestamp) < timedelta(minutes=1)


def test_a_reader_passes_over_what_it_does_not_know() -> None:
    """Keys of a later version are no error, and null is absent."""
    read = LatencyMetric.from_dict({**json.loads(EXAMPLE), "later": 1, "severity": None, "metadata": None})
    assert read == LatencyMetric.from_dict(json.loads(EXAMPLE))


@pytest.mark.parametrize("missing", ["operation_type", "operation_name", "latency_ms", "status"])
def test_a_required_key_that_is_missing_is_named(missing: str) -> None:
    """The first four are required."""
    written = json.loads(EXAMPLE)
    del written[missing]
    with pytest.raises(KeyError, match=f"{missing}: missing"):
        LatencyMetric.from_dict(written)


class Colour(Enum):
    RED = "red"


class Odd:
    def __str__(self) -> str:
        return "odd"


def test_metadata_becomes_plain_json() -> None:
    """Whatever it holds, it can be written; what JSON has no word for becomes its text."""
    written = metric(
        metadata={
            1: Path("a"),
            "nan": math.nan,
            "inf": -math.inf,
            "enum": Colour.RED,
            "tuple": (1, 2.5, True, None),
            "nested": {"odd": Odd()},
            "bytes": b"x",
        }
    ).to_dict()["metadata"]
    assert written == {
        "1": "a",
        "nan": "nan",
        "inf": "-inf",
        "enum": "red",
        "tuple": [1, 2.5, True, None],
        "nested": {"odd": "odd"},
        "bytes": "b'x'",
    }
    assert json.loads(json.dumps(written, allow_nan=False)) == written


def test_metadata_that_holds_itself_is_written_all_the_same() -> None:
    """Nesting is followed eight levels, not for ever."""
    loop: dict[str, Any] = {}
    loop["self"] = loop
    assert json.dumps(metric(metadata=loop).to_dict())


# -- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("impossible-durations")
@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("operation_type", "stt", ValueError),
        ("operation_type", None, TypeError),
        ("operation_name", "", ValueError),
        ("operation_name", None, ValueError),
        ("latency_ms", -0.001, ValueError),
        ("latency_ms", math.nan, ValueError),
        ("latency_ms", math.inf, ValueError),
        ("latency_ms", 10**400, ValueError),
        ("latency_ms", "1", TypeError),
        ("latency_ms", True, TypeError),
        ("latency_ms", None, TypeError),
        ("status", "ok", ValueError),
        ("status", None, ValueError),
        ("status", [], ValueError),
        ("timestamp", "yesterday", ValueError),
        ("timestamp", "", ValueError),
        ("timestamp", 1735732800, TypeError),
        ("timestamp", datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), ValueError),
        ("metadata", [1], TypeError),
        ("severity", "fatal", ValueError),
        ("time_to_first_output_ms", -1, ValueError),
        ("largest_gap_ms", "1", TypeError),
        ("call_sid", uuid.UUID(int=1), TypeError),
        ("stream_sid", b"MZ1", TypeError),
        ("provider", 5, TypeError),
        ("error_message", ValueError("x"), TypeError),
        ("trace_id", "zz", ValueError),
        ("trace_id", 5, ValueError),
        ("span_id", "a" * 32, ValueError),
        ("items", -1, ValueError),
        ("items", 1.5, ValueError),
        ("turn", True, ValueError),
        ("busy_ms", -1, ValueError),
        ("bytes", 1.5, ValueError),
        ("bytes", 2**63, ValueError),
        ("audio_ms", math.nan, ValueError),
        ("real_time_factor", math.inf, ValueError),
        ("real_time_factor", "0.5", TypeError),
        ("real_time_factor", True, TypeError),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field: str, value: Any, error: type[Exception]) -> None:
    """Each message begins with the field."""
    with pytest.raises(error, match=f"^{field}: "):
        metric(**{field: value})


def test_metadata_is_written_however_large_it_is() -> None:
    """A number with no end of digits, a list that holds itself many times over: bounded, and quickly."""
    endless: list[Any] = []
    endless.extend([endless] * 20)
    written = metric(metadata={"digits": 10**400, "more": 10**9999, "endless": endless, "half": chr(0xD800)}).to_dict()
    assert written["metadata"]["digits"] == 10**400
    assert written["metadata"]["more"] == hex(10**9999)
    assert written["metadata"]["half"] == "\ufffd"
    assert len(json.dumps(written)) < 50_000


def test_a_metric_does_not_change() -> None:
    """It is frozen, and has nothing but its fields."""
    told = metric(latency_ms=1500)
    with pytest.raises(AttributeError):
        told.latency_ms = 1  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        told.duration_s = 1  # type: ignore[misc]
    assert not hasattr(told, "__dict__")
    assert told.duration_s == 1.5


def test_what_is_no_json_object_is_said_so() -> None:
    """A line of a file that holds something else."""
    with pytest.raises(TypeError, match="^metric: expected a JSON object, got str"):
        LatencyMetric.from_dict("x")  # type: ignore[arg-type]
