"""Patterns of the operator's own: what they find is in nothing that leaves the process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from callbot_latency import ConfigError, call, init, latency_tracker, measure_latency_context, shutdown
from callbot_latency.base.scrubbing import custom_patterns, scrub
from callbot_latency.config import LatencyConfig
from tests.conftest import Start


@pytest.fixture(autouse=True)
def _no_patterns_after() -> Iterator[None]:
    yield
    custom_patterns.patterns = ()


def test_what_a_pattern_finds_is_not_told(start: Start, tmp_path: Path) -> None:
    """In the text of an exception and in metadata, in words that the built-in patterns leave alone."""
    file = tmp_path / "patterns.txt"
    file.write_text("# file numbers of ours\n\n  DOS-\\d{4}  \n(?i)martin\n")
    config = start(scrub_patterns_file=file)
    with (
        pytest.raises(RuntimeError),
        call("CA1", metadata={"file": "DOS-1234"}),
        measure_latency_context("rag_inference", "ask", metadata={"who": "Martin", "n": 1}),
    ):
        raise RuntimeError("no file DOS-1234 of Mr MARTIN")
    shutdown(60)
    (metric,) = latency_tracker.metrics
    assert metric.error_message == "no file [scrubbed] of Mr [scrubbed]"
    assert metric.metadata == {"who": "[scrubbed]", "n": 1}
    (line,) = map(json.loads, config.metrics_file_path.read_text().splitlines())
    assert "martin" not in str(line).lower()
    assert "DOS-1" not in str(line)


def test_the_patterns_are_those_of_the_session(start: Start, tmp_path: Path) -> None:
    """An `init()` without a file forgets those of the one before."""
    file = tmp_path / "patterns.txt"
    file.write_text("DOS-[0-9]+")
    start(scrub_patterns_file=file)
    assert scrub("no file DOS-1234, 06 12 34 56 78") == "no file [scrubbed], [phone]"
    shutdown(60)
    start()
    assert scrub("no file DOS-1234, 06 12 34 56 78") == "no file DOS-1234, [phone]"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("ok\n(", r"line 2: expected a regular expression, got '\(': missing \), unterminated subpattern"),
        ("# one\n\nx*", r"line 3: expected a pattern that does not find the empty text, got 'x\*'"),
        ("x\n" * 101, "expected at most 100 patterns"),
    ],
)
def test_a_bad_pattern_stops_init(isolated: Path, written: str, said: str) -> None:
    """The message names the setting, the file and the line."""
    Path("patterns.txt").write_text(written)
    with pytest.raises(ConfigError, match=f"^LATENCY_SCRUB_PATTERNS_FILE: 'patterns.txt'[:,] {said}"):
        init(LatencyConfig(scrub_patterns_file=Path("patterns.txt")))


def test_a_file_that_cannot_be_read_stops_init(isolated: Path) -> None:
    """Without its patterns something would be told that must not be."""
    with pytest.raises(ConfigError, match="^LATENCY_SCRUB_PATTERNS_FILE: cannot read 'nowhere.txt': No such file"):
        init(LatencyConfig(scrub_patterns_file=Path("nowhere.txt")))
    Path("latin.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(ConfigError, match="^LATENCY_SCRUB_PATTERNS_FILE: cannot read 'latin.txt': 'utf-8' codec"):
        init(LatencyConfig(scrub_patterns_file=Path("latin.txt")))
