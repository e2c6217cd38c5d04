"""What goes wrong when: from a seed, the same for every run, whatever the machine does meanwhile."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

SERVERS = ("collector", "jaeger", "influxdb", "pushgateway")
"""Real processes: killed, stopped and restarted; those in `PROXIED` are made slow and cut off besides."""
PROXIED = ("collector", "influxdb", "pushgateway")
TARGETS = (*SERVERS, "slack", "disk", "clock", "fork", "burst")

_PROCESS = ("kill", "stop", "restart")
_ROAD = ("slow", "hung", "cut")
_KINDS: dict[str, tuple[str, ...]] = {
    **{name: _PROCESS + (2 * _ROAD if name in PROXIED else ()) for name in SERVERS},
    "slack": ("busy", "ails", "hung", "reset", "refuses"),
    "disk": ("fill",),
    "clock": ("step",),
    "fork": ("ends", "killed"),
    "burst": ("burst",),
}
_PAUSES_S: dict[str, tuple[float, float]] = {"clock": (2, 8), "fork": (1, 4), "burst": (8, 20), "disk": (3, 10)}
_OUTAGES_S: dict[str, tuple[float, float]] = {"fork": (0.5, 4), "disk": (1, 12), "clock": (0, 0), "burst": (0, 0)}
_LONG = 0.15
"""So often an outage is long enough that a buffer runs over or a lane gives up."""
_STEPS_S = (0.001, 0.5, 30, 3_600, 86_400)
_BURST = (2_000, 12_000)


@dataclass(frozen=True)
class Event:
    """Something that goes wrong.

    Attributes:
        at_s: seconds from the beginning, at the earliest: a server that takes long to come back delays its next event.
        target: who it befalls.
        kind: what.
        for_s: how long, in seconds.
        amount: by how many seconds a clock is stepped, how many measurements a burst has.

    """

    at_s: float
    target: str
    kind: str
    for_s: float
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" {self.amount:+g}" if self.amount else ""
        for_s = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.target}: {self.kind}{amount}{for_s}"


def plan(seed: int, seconds: float) -> dict[str, list[Event]]:
    """The events of each target in so many seconds, in their order, one after the other."""
    return {target: list(_events(random.Random(f"{seed}/{target}"), target, seconds)) for target in TARGETS}


def _events(chance: random.Random, target: str, seconds: float) -> Iterator[Event]:
    at_s = chance.uniform(0, 3)
    while at_s < seconds:
        kind = chance.choice(_KINDS[target])
        least_s, most_s = _OUTAGES_S.get(target, (0.2, 8))
        for_s = chance.uniform(least_s, most_s)
        if chance.random() < _LONG and most_s:
            for_s = chance.uniform(15, 30)
        for_s = 0.0 if kind == "restart" else min(for_s, seconds - at_s)
        yield Event(round(at_s, 2), target, kind, round(for_s, 2), _amount(chance, target))
        at_s += for_s + chance.uniform(*_PAUSES_S.get(target, (3, 12)))


def _amount(chance: random.Random, target: str) -> float:
    if target == "clock":
        return chance.choice((-1, 1)) * chance.choice(_STEPS_S) * round(chance.uniform(0.5, 1), 3)
    return chance.randint(*_BURST) if target == "burst" else 0
