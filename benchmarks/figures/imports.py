"""How long importing takes, in processes of its own that take turns."""

import subprocess
import sys
from collections.abc import Sequence

from ..tools.harness import ROUNDS, Figure, pin, ratio, run_alone

OURS = "callbot_latency"
WITH_DECORATOR = "callbot_latency; callbot_latency.measure_latency"
THEIRS = "opentelemetry.sdk.trace"


def milliseconds(imported: str) -> float:
    """One import in a new interpreter."""
    code = f"import time; t = time.perf_counter(); import {imported}; print((time.perf_counter() - t) * 1e3)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def figures() -> Sequence[Figure]:
    """The package, and the package with what a decorated function needs."""
    pin()
    modules = (OURS, WITH_DECORATOR, THEIRS)
    for module in modules:
        milliseconds(module)
    values: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(ROUNDS):
        for module in modules:
            # Of two, the one that was interrupted less.
            values[module].append(min(milliseconds(module), milliseconds(module)))
    rows = {"import callbot_latency": OURS, "import with the decorator": WITH_DECORATOR}
    return [
        ratio(f"{name} / import {THEIRS}", values[m], values[THEIRS], 1.3, base_unit="ms") for name, m in rows.items()
    ]


if __name__ == "__main__":
    run_alone(figures)
