"""The log lines that say how much telemetry was dropped."""

import logging
import threading
from typing import Final

from .. import semconv
from ..base.drop_counters import dropped
from ..base.internal_errors import RateLimiter, call_safely

__all__ = ["DropLog"]

_log: Final = logging.getLogger(semconv.LOGGER_PIPELINE)


class DropLog:
    """Logs what was dropped, at most once a minute and at the end: together the lines say all of it."""

    def __init__(self) -> None:
        self._is_due = RateLimiter()
        self._logged = dropped.by_reason()
        self._lock = threading.Lock()

    def write(self, *, last: bool = False) -> None:
        """Log what was dropped since the last line, if a line is due; the `last` one always is."""
        with self._lock:
            now, before = dropped.by_reason(), self._logged
            if now == before or not (self._is_due() or last):
                return
            self._logged = now
        new = {reason: n - before.get(reason, 0) for reason, n in now.items()}
        counts = ", ".join(f"{reason}: {n}" for reason, n in sorted(new.items()) if n)
        _log.warning("telemetry dropped since the last such line: %s", counts)

    def write_last(self, timeout_s: float) -> None:
        """Write the last line on a thread of its own, since a handler of the log may hang; wait at most `timeout_s`."""
        if dropped.by_reason() == self._logged:
            return
        writer = threading.Thread(target=call_safely, args=(self.write,), kwargs={"last": True}, daemon=True)
        try:
            writer.start()
        except RuntimeError:  # from Python 3.12 on no thread starts once the interpreter ends: then here
            self.write(last=True)
        else:
            writer.join(timeout_s)
