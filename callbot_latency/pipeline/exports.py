"""What `export_metrics` writes: an array of JSON, a line each, or CSV."""

import csv
import json
from pathlib import Path
from typing import Any, Final

from .. import semconv
from ..model.metric import LatencyMetric

__all__ = ["EXPORTS"]

_CSV_COLUMNS: Final = tuple(LatencyMetric.__dataclass_fields__)


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, semconv.METADATA: json.dumps(row[semconv.METADATA])})


EXPORTS: Final = {"json": _write_json, "jsonl": _write_jsonl, "csv": _write_csv}
