"""The command ``python -m callbot_latency.deploy``."""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from ..config import ConfigError, load_config
from .rule_file import Options, rule_file, yaml_text

__all__ = ["main"]

OUT_OF_STEP: Final = 1
UNUSABLE: Final = 2
LEAST_PERCENT: Final = 0.0001
MOST_PERCENT: Final = 99.9999
_URL: Final = re.compile(r"https?://[^\s/{}\"'`<>\\]+[^\s{}\"'`<>\\]*")


def _objective(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    # Nearer to 100 there is no budget left that a rule could write down.
    if not LEAST_PERCENT <= percent <= MOST_PERCENT:
        raise argparse.ArgumentTypeError(
            f"expected a percentage from {LEAST_PERCENT:.4f} to {MOST_PERCENT}, such as 95, got {text!r}"
        )
    return round(percent / 100, 8)


def _url(text: str) -> str:
    # It stands in the alerts' annotations, which are templates: Prometheus would refuse the file.
    if not _URL.fullmatch(text) or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"expected a URL that starts with https:// or http://, without braces, quotes and blanks, got {text!r}"
        )
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m callbot_latency.deploy",
        description="Files for the servers around a bot, generated from the bot's own settings.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    rules = commands.add_parser(
        "prometheus-rules",
        help="recording and alert rules for Prometheus",
        description="Recording and alert rules for Prometheus, from the thresholds in force: LATENCY_*_MS in the "
        "environment or in .env, the defaults, and registered operation types.",
        epilog="Exit codes: 0 done, or in step; 1 the file of --check is not what would be written; 2 wrong use, a bad "
        "setting, or a file that cannot be read or written.",
    )
    where = rules.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE", help="write there; to standard output unless given")
    where.add_argument("--check", type=Path, metavar="FILE", help="write nothing; say whether FILE is in step")
    rules.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers operation types; may be given more than once",
    )
    rules.add_argument(
        "--objective",
        type=_objective,
        default=Options.objective,
        metavar="PERCENT",
        help="how many operations are to be good over 30 days: no failure, within the warning threshold (default: 95)",
    )
    rules.add_argument(
        "--grafana-url",
        type=_url,
        default=Options.grafana_url,
        metavar="URL",
        help="where Grafana is, for the links in alerts (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _rules(options)
    except ConfigError as error:
        return _unusable(str(error))
    except ModuleNotFoundError as error:
        return _unusable(f"{error}: pip install 'callbot-latency[deploy]'")
    except OSError as error:
        return _unusable(f"{error.filename}: {error.strerror}")


def _rules(options: argparse.Namespace) -> int:
    for module in options.modules:
        _import(module)
    rules = rule_file(load_config().thresholds, Options(options.objective, options.grafana_url))
    text = yaml_text(rules)
    if options.check:
        return _check(options.check, text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(text.encode())
    else:
        sys.stdout.write(text)
    return 0


def _import(module: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        raise ConfigError(f"--import {module}: {type(error).__name__}: {error}") from error


def _check(file: Path, text: str) -> int:
    if file.read_bytes() == text.encode():
        return 0
    sys.stderr.write(f"{file} is out of step with the settings; write it anew with --output {file}\n")
    return OUT_OF_STEP


def _unusable(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
