"""One call's operations on the time line, in the terminal: what ran when, for how long, and how it ended."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from callbot_latency import LatencyMetric, OperationStatus, OperationType, Severity

_COLOURS: Final = {
    OperationType.STT: "cyan",
    OperationType.RAG: "magenta",
    OperationType.SALESFORCE: "blue",
    OperationType.TTS: "green",
}
_SEVERITIES: Final = {Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}
_COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("at", "right"),
    ("operation", "left"),
    ("by", "left"),
    ("", "left"),
    ("ms", "right"),
)
# What the other columns need.
_BESIDES: Final = 64
# The caller thinks and speaks for seconds, operations take milliseconds: each answer has a time line of its own.
_APART_MS: Final = 700.0


def start_ms(metric: LatencyMetric) -> float:
    """When the operation began, since the epoch: a metric's time stamp is its end."""
    return metric.timestamp.timestamp() * 1_000 - metric.latency_ms


def _end_ms(metric: LatencyMetric) -> float:
    return metric.timestamp.timestamp() * 1_000


def answers(metrics: Sequence[LatencyMetric]) -> list[list[LatencyMetric]]:
    """The operations in the order they began, parted wherever nothing ran for a while."""
    groups: list[list[LatencyMetric]] = []
    for metric in sorted((m for m in metrics if m.attempt is None), key=start_ms):
        if not groups or start_ms(metric) - max(map(_end_ms, groups[-1])) > _APART_MS:
            groups.append([])
        groups[-1].append(metric)
    return groups


class Waterfall:
    """The time line of one call, as wide as the terminal allows."""

    def __init__(self, metrics: Sequence[LatencyMetric]) -> None:
        self._answers = answers(metrics)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._answers:
            yield Text("nothing was measured")
            return
        track = max(16, min(60, options.max_width - _BESIDES))
        call_began_ms = start_ms(self._answers[0][0])
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for title, justify in _COLUMNS:
            table.add_column(title, justify=justify, no_wrap=True)
        for group in self._answers:
            _add_answer(table, group, call_began_ms, track)
        yield table
        yield _legend()


def _add_answer(table: Table, group: Sequence[LatencyMetric], call_began_ms: float, track: int) -> None:
    began_ms = start_ms(group[0])
    scale = track / max(max(map(_end_ms, group)) - began_ms, 1.0)
    for metric in group:
        at = f"{(start_ms(metric) - call_began_ms) / 1_000:.2f}s"
        name = Text(metric.operation_name, style=_colour(metric))
        table.add_row(at, name, metric.provider or "", _bar(metric, began_ms, scale, track), _latency(metric))
    table.add_row()


def _colour(metric: LatencyMetric) -> str:
    return _COLOURS.get(metric.operation_type, "white")


def _bar(metric: LatencyMetric, began_ms: float, scale: float, track: int) -> Text:
    before = min(track - 1, int((start_ms(metric) - began_ms) * scale))
    cells = ["█"] * max(1, min(track - before, round(metric.latency_ms * scale)))
    if metric.time_to_first_output_ms is not None:
        cells[min(len(cells) - 1, int(metric.time_to_first_output_ms * scale))] = "◆"
    return Text(" " * before) + Text("".join(cells), style=_colour(metric))


def _latency(metric: LatencyMetric) -> Text:
    text = Text(f"{metric.latency_ms:,.0f}")
    is_well = metric.status is OperationStatus.SUCCESS
    if metric.severity is not None:
        # One word: there is no room for both, and the colour says how bad it is.
        text.append(f" ▲ {metric.severity.value if is_well else metric.status.value}", _SEVERITIES[metric.severity])
    elif not is_well:
        text.append(f" {metric.status.value}", "yellow")
    return text


def _legend() -> Text:
    words = [Text(f"█ {kind.value}", style) for kind, style in _COLOURS.items()]
    return Text(" ").join([*words, Text("◆ first sound")])


def statistics(stats: dict[str, dict[str, Any]]) -> Table:
    """What ``latency_tracker.get_stats()`` knows, as a table; latencies are in milliseconds."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("operation")
    for title in ("count", "errors", "cancelled", "mean", "p50", "p95", "max"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, values in sorted(stats.items()):
        counts = [str(values[key]) for key in ("count", "errors", "cancelled")]
        table.add_row(name, *counts, *(_number(values[key]) for key in ("mean_ms", "p50_ms", "p95_ms", "max_ms")))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:,.1f}"
