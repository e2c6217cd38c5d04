"""How a reporter fares: the numbers of its lane."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

__all__ = ["ReporterStatus"]


@dataclass(frozen=True, slots=True)
class ReporterStatus:
    """The numbers of one reporter since `init()`, measurements, turns and alerts together, all read at one moment.

    At every moment ``accepted == delivered + sum(dropped.values()) + pending``.

    Attributes:
        name: of the reporter's lane: the beginning of its reasons in ``callbot.telemetry.dropped``.
        accepted: all that was handed over for this reporter, what found no room included.
        delivered: what the reporter took without complaint.
        pending: what waits, and what the reporter has in hand.
        retried: how many times something was handed over again.
        dropped: counts by reason; a reason that never occurred is absent.
        last_error: text of the last TransientError or PermanentError, scrubbed; of any other exception its type's name.
        last_error_at: when that was, UTC.

    """

    name: str
    accepted: int = 0
    delivered: int = 0
    pending: int = 0
    retried: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    last_error: str | None = None
    last_error_at: datetime | None = None
