"""How often, and after how long, a lane hands over again what did not arrive."""

import random
from dataclasses import dataclass

from .errors import TransientError, seconds_in

__all__ = ["Retry"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after how long, the same work is handed over again.

    Args:
        attempts: so many in a row that bring nothing forward, the first included; then the work is given up.
        base_s: the first wait is a random part of this, in seconds; each further one of twice as much (full jitter).
        cap_s: and never of more than this.
        asked_cap_s: the longest wait that a server may ask for (``retry_after_s``).

    """

    attempts: int = 16
    base_s: float = 0.5
    cap_s: float = 30.0
    asked_cap_s: float = 600.0

    def wait_s(self, failed: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2 ** min(failed - 1, 32)))  # noqa: S311 # nosec B311 # no secret

    def asked_s(self, error: TransientError) -> float | None:
        """Seconds that the server asked for; None where it asked for nothing that makes sense."""
        asked_s = seconds_in(error.retry_after_s)
        return None if asked_s is None else min(max(0.0, asked_s), self.asked_cap_s)
