"""A process that looks whether the machine lets it run: what holds it up, or slows it down, does so to everybody."""

import subprocess
import sys

GAP_S = 0.1
_CODE = f"""
import sys, time, threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
passes = 0
while True:
    before = time.monotonic()
    if over.wait(0.005):
        break
    if (gap := time.monotonic() - before) > {GAP_S}:
        print("stop", gap, flush=True)
    passes += 1
    if passes % 50 == 0:
        began, cpu = time.monotonic(), time.process_time()
        sum(range(1_500_000))
        print("slowdown", (time.monotonic() - began) / (time.process_time() - cpu), flush=True)
"""


class Control:
    """Knows at the end what the machine did to a process that has next to nothing to do.

    Attributes:
        longest_s: for how long it was held up at the longest, in seconds, where that was over 0.1 s.
        slowdown: how many times as long as its own CPU time a piece of work took, at the worst.

    """

    longest_s = 0.0
    slowdown = 1.0

    def __enter__(self) -> "Control":
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        output, _ = self._process.communicate("")
        seen = [line.split() for line in output.splitlines()]
        self.longest_s = max((float(value) for kind, value in seen if kind == "stop"), default=0.0)
        self.slowdown = max((float(value) for kind, value in seen if kind == "slowdown"), default=1.0)
