"""What the caller waited in each turn, in the terminal: a bar of parts that sum to it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from callbot_latency import TurnMetric
from callbot_latency.semconv import PARTS

_COLOURS: Final = {
    "endpointing": "grey58",
    "queueing": "grey42",
    "speech_to_text": "cyan",
    "rag_inference": "magenta",
    "salesforce_api": "blue",
    "other": "white",
    "first_sentence": "dark_magenta",
    "text_to_speech": "green",
    "sending": "dark_green",
    "twilio_buffer": "yellow",
    "leading_silence": "dark_goldenrod",
    "loop_lag": "red",
    "unattributed": "bright_black",
}
_WITHOUT_COLOUR: Final = "█▓▒░"
_INDENT: Final = 6


class TurnTable:
    """The turns of one call: each with its bar, all bars in one scale, and its parts in milliseconds that sum."""

    def __init__(self, turns: Sequence[TurnMetric]) -> None:
        self._turns = turns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._turns:
            yield Text("no turn was measured")
            return
        width = min(options.max_width - _INDENT, 100)
        longest_ms = max(_waited_ms(turn) or 0.0 for turn in self._turns)
        for turn in self._turns:
            yield _headline(turn)
            if longest_ms and turn.parts_ms:
                parts = dict(zip(turn.parts_ms, shares(list(turn.parts_ms.values())), strict=True))
                cells = round(width * sum(parts.values()) / longest_ms)
                glyphs = _WITHOUT_COLOUR if console.color_system is None else "█"
                yield _indented(_bar(parts, max(cells, len(parts)), glyphs))
                yield from map(_indented, _sum(parts, width))
            yield Text()


def _waited_ms(turn: TurnMetric) -> float | None:
    return turn.response_sent_ms if turn.response_ms is None else turn.response_ms


def _headline(turn: TurnMetric) -> Text:
    waited_ms = _waited_ms(turn)
    line = Text(f"{turn.turn:>4}  ")
    if waited_ms is None:
        return line + Text(f"{turn.outcome}; not measured: {turn.unmeasured}", style="dim")
    line.append(f"waited {waited_ms / 1_000:.2f} s", style="bold")
    line.append(" until the first sound" if turn.response_ms is not None else " until the first sound was sent")
    if turn.answer_sent_ms is not None and turn.answer_sent_ms != turn.response_sent_ms:
        line.append(f", {turn.answer_sent_ms / 1_000:.2f} s until the answer")
    if turn.barge_in is not None and not turn.barge_in.is_false:
        line.append(f"; {_interruption(turn)}")
    return line


def _interruption(turn: TurnMetric) -> str:
    told = turn.barge_in
    words = "interrupted"
    if told is not None and told.heard_share is not None:
        words += f" with {told.heard_share:.0%} heard"
    if told is not None and told.reaction_ms is not None:
        words += f", silent after {told.reaction_ms:.0f} ms"
    return words


def shares(values: Sequence[float], total: int | None = None) -> list[int]:
    """Whole numbers in proportion to `values` that sum to `total`, or to their own rounded sum (largest remainders)."""
    whole = sum(values)
    total = round(whole) if total is None else total
    exact = [value * total / whole for value in values] if whole else [0.0] * len(values)
    numbers = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: numbers[place] - exact[place])
    for place in by_remainder[: total - sum(numbers)]:
        numbers[place] += 1
    return numbers


def _bar(parts: Mapping[str, int], cells: int, glyphs: str) -> Text:
    bar = Text()
    lengths = shares(list(parts.values()), cells)
    for glyph, (part, length) in zip(cycle(glyphs), zip(parts, lengths, strict=True), strict=False):
        bar.append(glyph * length, style=_COLOURS.get(part, "white"))
    return bar


def _sum(parts: Mapping[str, int], width: int) -> Iterator[Text]:
    """``endpointing 500 + speech_to_text 40 = 540 ms``, in as many lines as it needs; what rounds to 0 is left out."""
    shown = {part: ms for part, ms in parts.items() if ms}
    pieces: list[Text] = []
    for part, ms in sorted(shown.items(), key=lambda item: PARTS.index(item[0])):
        piece = Text(part, style=_COLOURS.get(part, "white")) + Text(f" {ms:,}")
        pieces.append(Text("+ " if pieces else "") + piece)
    pieces.append(Text(f"= {sum(shown.values()):,} ms", style="bold"))
    line = Text()
    for piece in pieces:
        if line and len(line) + 1 + len(piece) > width:
            yield line
            line = Text()
        line = line + Text(" ") + piece if line else piece
    yield line


def _indented(line: Text) -> Text:
    return Text(" " * _INDENT) + line
