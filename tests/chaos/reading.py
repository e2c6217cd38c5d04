"""What each server and the file really have, by the process that measured it."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from callbot_latency.reporters.rotation import backups_of
from devservers.stack import Stack

BOT = "bot"
_CHILD = re.compile(r"load_(c\d+)$")


def tag_of(operation_name: str) -> str:
    """Who measured it: children have names of their own."""
    found = _CHILD.match(operation_name)
    return found[1] if found else BOT


@dataclass
class Lines:
    """What stands in the metrics file and in all that was moved aside of it."""

    written: Counter[str] = field(default_factory=Counter)
    """By process."""
    torn: list[str] = field(default_factory=list)
    """What is no JSON."""
    twice: int = 0
    """Lines that stand there again."""
    files: int = 0


def lines_of(path: Path) -> Lines:
    """Read every one."""
    read, seen = Lines(), set()
    for text in _texts_of(path):
        read.files += 1
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                read.torn.append(line[:200])
                continue
            read.written[tag_of(row.get("operation_name", ""))] += 1
            key = (row.get("span_id"), row.get("kind"), row.get("turn") if "kind" in row else None, row.get("attempt"))
            read.twice += key in seen
            seen.add(key)
    return read


def _texts_of(path: Path) -> Iterable[str]:
    """An archive goes before what it was made of."""
    for backup, forms in sorted(backups_of(path).items()):
        if ".gz" in forms:
            yield gzip.decompress(backup.beside(path, ".gz").read_bytes()).decode()
        elif "" in forms:
            yield backup.beside(path).read_text()
    if path.exists():
        yield path.read_text()


def points(stack: Stack) -> Counter[str]:
    """InfluxDB's points by process: operations, attempts, turns."""
    counts: Counter[str] = Counter()
    for measurement, what in (("operation", "latency_ms"), ("attempt", "latency_ms"), ("turn", "turn")):
        answer = stack.influxdb_query(f'SELECT count("{what}") FROM "callbot.{measurement}" GROUP BY "operation_name"')
        for series in answer["results"][0].get("series", []):
            counts[tag_of(series.get("tags", {}).get("operation_name", ""))] += int(series["values"][0][1])
    return counts


@dataclass
class Exposed:
    """What a page of Prometheus' text says."""

    counts: Counter[str] = field(default_factory=Counter)
    """Operations and attempts by name, over every instance: what two of them tell of is there twice."""
    drops: dict[str, int] = field(default_factory=dict)
    """By reason, of the instance that was asked for."""


def exposed(url: str, instance: str) -> Exposed:
    """Read it."""
    read = Exposed()
    for family in text_string_to_metric_families(httpx.get(url, timeout=60).raise_for_status().text):
        for sample in family.samples:
            if re.fullmatch(r"callbot_(operation|attempt)_duration_seconds_count", sample.name):
                read.counts[sample.labels["operation_name"]] += int(sample.value)
            elif sample.name == "callbot_telemetry_dropped_total" and sample.labels["instance"] == instance:
                read.drops[sample.labels["reason"]] = int(sample.value)
    return read


def by_name(tracker: dict[str, int]) -> Counter[str]:
    """The tracker's counts, which stand beneath ``<type>/<name>``, by name alone."""
    counts: Counter[str] = Counter()
    for key, count in tracker.items():
        counts[key.partition("/")[2]] += count
    return counts


def logged(account: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What the log's lines say was dropped, added up: by logger, then by reason."""
    sums: dict[str, Counter[str]] = {}
    for _, logger, said in account["drop_lines"]:
        _, _, told = said.partition("since the last such line: ")
        for reason, amount in re.findall(r"([a-z][a-z0-9_]*): (\d+)", told.partition(" (")[0]):
            sums.setdefault(logger, Counter())[reason] += int(amount)
    return {logger: dict(counts) for logger, counts in sums.items()}
