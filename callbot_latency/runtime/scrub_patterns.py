"""Reads the file of LATENCY_SCRUB_PATTERNS_FILE: what else is taken out of texts, one regular expression a line."""

import re
from pathlib import Path
from typing import Final

from ..config import ConfigError
from ..semconv import ENV_SCRUB_PATTERNS_FILE

__all__ = ["load_patterns"]

MAX_PATTERNS: Final = 100


def load_patterns(path: Path) -> tuple[re.Pattern[str], ...]:
    """The patterns of the file, in its order; empty lines and those that begin with ``#`` are none.

    Raises:
        ConfigError: the file cannot be read, or a line is no regular expression, or one that finds the empty text; the
            message names the file and the line.

    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{ENV_SCRUB_PATTERNS_FILE}: cannot read {str(path)!r}: {why}") from None
    written = [(number, text) for number, line in enumerate(lines, 1) if (text := line.strip()) and text[0] != "#"]
    if len(written) > MAX_PATTERNS:
        raise ConfigError(f"{ENV_SCRUB_PATTERNS_FILE}: {str(path)!r}: expected at most {MAX_PATTERNS} patterns")
    return tuple(_compiled(path, number, text) for number, text in written)


def _compiled(path: Path, number: int, text: str) -> re.Pattern[str]:
    where = f"{ENV_SCRUB_PATTERNS_FILE}: {str(path)!r}, line {number}"
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{where}: expected a regular expression, got {text!r}: {error}") from None
    if pattern.search(""):
        raise ConfigError(f"{where}: expected a pattern that does not find the empty text, got {text!r}")
    return pattern
