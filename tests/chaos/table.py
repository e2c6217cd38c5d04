"""What became of everything, by way out, for people."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.chaos.judge import Evidence
from tests.chaos.reading import BOT, Exposed, tag_of

MOST_SAID = 5
Row = tuple[str, ...]


def table(seen: Evidence, events: Counter[str]) -> str:
    """Accepted, delivered, dropped by reason and pending of each way out, then what else was seen."""
    ended = Counter(seen.bot["children"].values())
    rows = [("way out", "accepted", "delivered", "pending", "dropped", "there"), *_rows(seen)]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    shown = [
        "  ".join(
            cell.rjust(w) if 0 < i < 4 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines, harmed = seen.lines, sum(call.is_harmed for call in seen.calls)
    slowest_ms, stop_ms = 1000 * seen.bot["slowest_s"], 1000 * seen.control.longest_s
    fork_ms, garbage_ms = _longest_ms(seen.bot["forks"]), _longest_ms(seen.bot["collections"])
    return "\n".join(
        [
            "",
            *(line.rstrip() for line in shown),
            "",
            f"{events.total()} events: " + ", ".join(f"{name} {n}" for name, n in sorted(events.items())),
            f"{len(seen.calls)} calls, {harmed} harmed; {len(seen.bot['exceptions'])} exceptions; "
            f"slowest measurement {slowest_ms:.0f} ms, longest fork {fork_ms:.0f} ms, "
            f"longest full collection of garbage {garbage_ms:.0f} ms, "
            f"longest stop of an idle process {stop_ms:.0f} ms, "
            f"a piece of work took up to {seen.control.slowdown:.1f} times its CPU time",
            *(f"{n:,} x in the log: {said}" for said, n in list(seen.bot["others"].items())[:MOST_SAID]),
            f"children: {dict(ended)}; file: {lines.written.total():,} lines in {lines.files} files, "
            f"{len(lines.torn)} torn, {lines.twice} twice; {len(seen.bot['drop_lines'])} lines of the log on drops",
        ]
    )


def _longest_ms(spans: list[tuple[float, ...]]) -> float:
    return 1000 * max((ended - began for began, ended, *_ in spans), default=0.0)


def _rows(seen: Evidence) -> Iterator[Row]:
    there = {
        "jsonl": seen.lines.written[BOT],
        "influxdb": seen.servers.points[BOT],
        "slack": seen.servers.slack[BOT],
        "pushgateway": _own(seen.servers.pushgateway),
    }
    measured = sum(seen.bot["told"]["measurements"].values())
    yield "tracker", f"{measured:,}", f"{sum(seen.bot['tracker'].values()):,}", "0", "", ""
    for name, status in seen.bot["status"].items():
        yield _row(name, status, f"{there[name]:,}" if name in there else "")
    spans = seen.bot["spans"]
    lost = {"failed": spans["failed"], "queue_full": spans["queue_full"]}
    yield _row("otlp spans", {**spans, "dropped": lost}, "")
    yield _row(
        "otlp metrics",
        {"accepted": measured, "delivered": _own(seen.servers.collector), "pending": 0, "dropped": {}},
        "",
    )
    for name in ("jsonl", "influxdb", "pushgateway", "slack"):
        yield _row(f"children's {name}", _sum(seen, name), "")


def _own(page: Exposed) -> int:
    return sum(n for name, n in page.counts.items() if tag_of(name) == BOT)


def _row(name: str, status: dict[str, Any], there: str) -> Row:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in status["dropped"].items() if n)
    return (name, *(f"{status[key]:,}" for key in ("accepted", "delivered", "pending")), dropped, there)


def _sum(seen: Evidence, name: str) -> dict[str, Any]:
    """Of the children that ended as they should."""
    total: dict[str, Any] = {"accepted": 0, "delivered": 0, "pending": 0, "dropped": Counter()}
    for child in seen.children.values():
        if "status" in child:
            for key, value in total.items():
                if key != "dropped":
                    total[key] = value + child["status"][name][key]
            total["dropped"].update(child["status"][name]["dropped"])
    return total
