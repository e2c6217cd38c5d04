"""The monotonic clock of operations and turns, moved by hand."""

MS = 1_000_000


class Clock:
    """What `time.perf_counter_ns` says to them."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def __call__(self) -> int:
        return self.now_ns

    def passes(self, ms: float) -> None:
        self.now_ns += int(ms * MS)
