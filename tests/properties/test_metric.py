"""What holds for every metric."""

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbot_latency import LatencyMetric, OperationStatus, OperationType, Severity

texts = st.none() | st.text(max_size=20)
durations = st.floats(0, allow_nan=False, allow_infinity=False) | st.integers(0, 10**9)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC) | zones)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
anything = st.recursive(
    json_values | st.binary(max_size=5) | st.floats() | st.complex_numbers() | st.datetimes() | st.uuids(),
    lambda inner: st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
optional_words = {
    "call_sid": texts,
    "stream_sid": texts,
    "provider": texts,
    "error_message": texts,
    "severity": st.none() | st.sampled_from(Severity),
    "time_to_first_output_ms": st.none() | durations,
    "largest_gap_ms": st.none() | durations,
    "items": st.none() | st.integers(0, 10**6),
    "trace_id": st.none() | st.just("a" * 32),
    "span_id": st.none() | st.just("b" * 16),
    "turn": st.none() | st.integers(0, 1000),
    "busy_ms": st.none() | durations,
    "bytes": st.none() | st.integers(0, 2**63 - 1),
    "audio_ms": st.none() | durations,
    "real_time_factor": st.none() | durations,
}


def metrics(metadata: st.SearchStrategy[Any]) -> st.SearchStrategy[LatencyMetric]:
    return st.builds(
        LatencyMetric,
        operation_type=st.sampled_from(OperationType) | st.sampled_from([kind.value for kind in OperationType]),
        operation_name=st.text(min_size=1, max_size=20),
        latency_ms=durations,
        status=st.sampled_from(OperationStatus),
        timestamp=times,
        metadata=st.dictionaries(st.text(max_size=5), metadata, max_size=3),
        **optional_words,
    )


@given(metrics(json_values))
def test_json_and_back_is_equal(metric: LatencyMetric) -> None:
    """Nothing is lost on the way through a file."""
    read = LatencyMetric.from_dict(json.loads(json.dumps(metric.to_dict(), allow_nan=False)))
    assert read == metric
    assert read.to_dict() == metric.to_dict()


@pytest.mark.promise("injection")
@given(metrics(anything))
def test_whatever_the_metadata_it_is_written_once_and_for_all(metric: LatencyMetric) -> None:
    """Always JSON; and what was read back is written the same."""
    text = json.dumps(metric.to_dict(), allow_nan=False)
    assert "\n" not in text
    assert json.dumps(LatencyMetric.from_dict(json.loads(text)).to_dict()) == text


@given(metrics(json_values))
def test_pickle_and_copy_are_equal(metric: LatencyMetric) -> None:
    """It may cross to another process."""
    assert pickle.loads(pickle.dumps(metric)) == metric
    assert copy.deepcopy(metric) == metric


@given(times)
def test_z_and_offsets_are_the_same_instant(time: datetime) -> None:
    """However a writer says it."""
    base = {"operation_type": "speech_to_text", "operation_name": "f", "latency_ms": 1, "status": "success"}
    utc = time.astimezone(UTC).isoformat()
    for text in (utc, utc.replace("+00:00", "Z"), time.isoformat()):
        assert LatencyMetric.from_dict({**base, "timestamp": text}).timestamp == time


@given(st.dictionaries(st.sampled_from([*LatencyMetric.__dataclass_fields__, "other"]), json_values, max_size=8))
def test_any_json_object_is_read_or_refused(written: dict[str, Any]) -> None:
    """Never another error than the three that are documented."""
    base = {"operation_type": "speech_to_text", "operation_name": "f", "latency_ms": 1, "status": "success"}
    for given_object in (written, {**base, **written}):
        try:
            LatencyMetric.from_dict(given_object)
        except (KeyError, TypeError, ValueError):
            continue
