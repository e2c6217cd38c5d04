"""What is made slow on purpose: ``--slow salesforce=4s``."""

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

_LONGEST_S: Final = 30.0
_TIME: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>ms|s)")


@dataclass(frozen=True, slots=True)
class Slow:
    """How many seconds longer each provider of the example takes, each time it is asked."""

    rag: float = 0.0
    salesforce: float = 0.0
    stt: float = 0.0
    tts: float = 0.0
    salesforce_orders: float = 0.0
    """Salesforce's orders alone, besides `salesforce`."""

    @property
    def longest_wait_s(self) -> float:
        """How much longer a caller may have to wait for an answer."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


def add_slow_option(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option ``--slow``; what was given, `slow_of` understands."""
    parser.add_argument(
        "--slow",
        type=_slow,
        action="append",
        metavar="PROVIDER=TIME",
        help=f"make a provider slow, such as salesforce=4s or rag=9s; one of {', '.join(PROVIDERS)}; in ms or s, "
        "may be given more than once",
    )


def slow_of(given: Iterable[tuple[str, float]]) -> Slow:
    """What the options ask for; of one provider, the last."""
    return Slow(**dict(given))


PROVIDERS: Final = tuple(field.name for field in fields(Slow) if field.name != "salesforce_orders")


def _slow(text: str) -> tuple[str, float]:
    name, _, time = text.partition("=")
    if name not in PROVIDERS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PROVIDERS)}, such as salesforce=4s; got {text!r}")
    found = _TIME.fullmatch(time)
    seconds = float(found["number"]) / (1_000 if found["unit"] == "ms" else 1) if found else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"expected a time from 1ms to {_LONGEST_S:g}s, such as {name}=4s or {name}=900ms; got {text!r}"
        )
    return name, seconds
