"""What stands in a metrics file and in all that was moved aside of it."""

import gzip
import json
from pathlib import Path
from typing import Any

from callbot_latency.reporters.rotation import backups_of


def rows_of(path: Path) -> list[Any]:
    """Every line, the oldest first, each of which must be whole. An archive goes before what it was made of."""
    texts = []
    for backup, forms in sorted(backups_of(path).items()):
        if ".gz" in forms:
            texts.append(gzip.decompress(backup.beside(path, ".gz").read_bytes()).decode())
        elif "" in forms:
            texts.append(backup.beside(path).read_text())
    texts.append(path.read_text() if path.exists() else "")
    assert all(not text or text.endswith("\n") for text in texts)
    return [json.loads(line) for text in texts for line in text.splitlines()]
