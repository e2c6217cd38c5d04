"""The wall clock of one process, which may be stepped: `time.time` and `time.time_ns`, by which everything is dated.

Monotonic clocks stay as they are, as with a real step. The file system goes on by the machine's clock, so the rotation
of the file, which compares the two, does too.
"""

import time


class WallClock:
    """Seconds by which the process' clock is off; `inject` before anything else is imported."""

    def __init__(self) -> None:
        self._off_ns = 0
        self._most_ns = 0
        self._time_ns = time.time_ns
        self.machines = time.time

    def inject(self) -> None:
        """From now on the process is told this time."""
        time.time = lambda: self.now_ns() / 1e9
        time.time_ns = self.now_ns

    def now_ns(self) -> int:
        return self._time_ns() + self._off_ns

    def step(self, by_s: float) -> None:
        """Set it back or ahead."""
        self._off_ns += int(by_s * 1e9)
        self._most_ns = max(self._most_ns, self._off_ns)

    def settle(self) -> None:
        """Ahead of all it ever said: the Collector takes no count that is older than one it has."""
        self._off_ns = self._most_ns


wall = WallClock()
