"""What stands in a metrics file and in all that was moved aside of it."""

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from callbot_latency.reporters.rotation import backups_of


def rows_of(path: Path) -> list[Any]:
    """Every line, the oldest first, each of which must be whole."""
    lines = lines_of(path)
    assert all(line.endswith("\n") for line in lines)
    return [json.loads(line) for line in lines]


def whole_rows_of(path: Path) -> list[Any]:
    """Every line but those of which a killed process wrote the half."""
    rows = []
    for line in lines_of(path):
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def lines_of(path: Path) -> list[str]:
    """Every line as it stands there, the oldest first. An archive goes before what it was made of."""
    texts = []
    for backup, forms in sorted(backups_of(path).items()):
        if ".gz" in forms:
            texts.append(gzip.decompress(backup.beside(path, ".gz").read_bytes()).decode())
        elif "" in forms:
            texts.append(backup.beside(path).read_text())
    texts.append(path.read_text() if path.exists() else "")
    return [line for text in texts for line in text.splitlines(keepends=True)]
