"""One phone call, answered and measured on this machine: ``python -m examples.callbot.demo``."""

import argparse
import asyncio
import io
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from callbot_latency import ConfigError, init, latency_config, latency_tracker, shutdown

from .alerts import AlertsOnScreen
from .bot import Line
from .run import CallResult, run_calls
from .slow import PROVIDERS, Slow, add_slow_option, slow_of
from .turn_table import TurnTable
from .waterfall import Waterfall, statistics

_SVG_COLUMNS = 100
# Unless --slow says otherwise: long enough for an alert, and short enough to be watched.
_SLOW_ORDERS = Slow(salesforce_orders=2.5)
_LOWERED_MS = {"LATENCY_SALESFORCE_WARNING_MS": "1000", "LATENCY_SALESFORCE_CRITICAL_MS": "1500"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _options(arguments)
    console = Console(highlight=False)
    try:
        slow = prepare_alerts(options)
        init()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return _demo(console, options, slow)
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    finally:
        shutdown()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.callbot.demo", description=__doc__)
    parser.add_argument("--calls", type=_calls, default=1, metavar="N", help="so many calls at once (1 to 20)")
    parser.add_argument("--interrupt", action="store_true", help="the caller breaks into a long answer")
    parser.add_argument("--hang-up", action="store_true", help="the caller hangs up in the middle of an answer")
    parser.add_argument("--svg", type=_svg, metavar="PATH", help="save the call's time line as a picture")
    add_slow_option(parser)
    return parser.parse_args(arguments)


def _calls(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 20:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 20, got {text!r}")
    return int(text)


def _svg(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".svg" or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected the path of a file that ends in .svg, got {text!r}")
    return path


def prepare_alerts(options: argparse.Namespace) -> Slow:
    """What is slow in this run; to be called before `init()`, because it may lower thresholds."""
    # The screen shows them, so that what nobody configured does not go to stderr besides.
    logging.getLogger("callbot_latency.alerting").addHandler(logging.NullHandler())
    if options.slow:
        return slow_of(options.slow)
    if not any(os.environ.get(name) for name in _LOWERED_MS):
        os.environ.update(_LOWERED_MS)
    return _SLOW_ORDERS


def _demo(console: Console, options: argparse.Namespace, slow: Slow) -> int:
    results = make_calls(console, slow, options.calls, interrupt=options.interrupt, hang_up=options.hang_up)
    if options.svg is not None:
        _save(options.svg, results[0])
        console.print(Text(f"\nThe time line as a picture: {options.svg}"))
    _where_next(console)
    return 0


def make_calls(
    console: Console, slow: Slow, calls: int = 1, *, interrupt: bool = False, hang_up: bool = False
) -> Sequence[CallResult]:
    """Make the calls and show them: the conversation and its alerts as they come, then time line and statistics."""
    callers = "A caller rings" if calls == 1 else f"{calls} callers ring"
    console.print(f"{callers} the bot, in real time: this takes {_about_s(slow)} seconds.")
    _say_what_is_slow(console, slow)
    began = time.time()
    alerts = AlertsOnScreen(console, began)

    def show(line: Line) -> None:
        _show(console, line, began, several=calls > 1)

    results = asyncio.run(run_calls(calls, interrupt=interrupt, hang_up=hang_up, slow=slow, on_line=show))
    alerts.wait_until_ended()
    _report(console, results)
    return results


def _about_s(slow: Slow) -> str:
    return "about 25" if slow == _SLOW_ORDERS else "20 and more"


def _say_what_is_slow(console: Console, slow: Slow) -> None:
    parts = {name: getattr(slow, name) for name in PROVIDERS if getattr(slow, name)}
    if slow.salesforce_orders:
        parts["salesforce"] = slow.salesforce_orders
    for name, seconds in parts.items():
        warning_ms, critical_ms = (getattr(latency_config, f"{name}_{kind}_ms") for kind in ("warning", "critical"))
        setting = f"LATENCY_{name.upper()}_"
        what = "Salesforce's orders" if slow.salesforce_orders else name
        is_lowered = slow == _SLOW_ORDERS and all(os.environ.get(key) == ms for key, ms in _LOWERED_MS.items())
        thresholds = "Thresholds, lowered for this" if is_lowered else "Thresholds"
        console.print(f"Slow on purpose: {what}, by {seconds:g} s. {thresholds}:", style="dim")
        console.print(f"{setting}WARNING_MS={warning_ms:g} {setting}CRITICAL_MS={critical_ms:g}", style="dim")
    if latency_config.slack_webhook_url:
        console.print("Critical alerts go to Slack too, since SLACK_WEBHOOK_URL is set.", style="dim")
    console.print()


def _show(console: Console, line: Line, began: float, *, several: bool) -> None:
    who = f"{line.call_sid[:8]} " if several else ""
    style = "bold" if line.speaker == "caller" else "green"
    said = line.text or "(not understood)"
    console.print(Text(f"{line.at - began:6.1f}s  {who}{line.speaker:>6}: ") + Text(said, style=style))


def _report(console: Console, results: Sequence[CallResult]) -> None:
    first = results[0]
    console.print(f"\nTime line of call {first.call_sid}", style="bold")
    console.print(f"trace {first.trace_id}, {first.seconds:.1f} s\n", style="dim")
    console.print(Waterfall([metric for metric in latency_tracker.metrics if metric.call_sid == first.call_sid]))
    console.print("\nWhat the caller waited, turn by turn\n", style="bold")
    console.print(TurnTable(latency_tracker.get_turns(first.call_sid)))
    console.print("Statistics, in milliseconds\n", style="bold")
    console.print(statistics(latency_tracker.get_stats()))


def _save(path: Path, result: CallResult) -> None:
    recorded = Console(
        record=True, file=io.StringIO(), width=_SVG_COLUMNS, color_system="truecolor", force_terminal=True
    )
    recorded.print(Waterfall([metric for metric in latency_tracker.metrics if metric.call_sid == result.call_sid]))
    recorded.print("\nWhat the caller waited, turn by turn\n", style="bold")
    recorded.print(TurnTable(latency_tracker.get_turns(result.call_sid)))
    path.parent.mkdir(parents=True, exist_ok=True)
    recorded.save_svg(str(path), title="callbot_latency")


def _where_next(console: Console) -> None:
    if latency_config.file_logging_enabled:
        console.print("\nEvery measurement, one a line:", style="bold")
        console.print(Text(str(latency_config.metrics_file_path)), soft_wrap=True)
    console.print("\nNext: [bold]make demo-stack[/] shows such a call in Jaeger, Prometheus and InfluxDB.")


if __name__ == "__main__":
    sys.exit(main())
