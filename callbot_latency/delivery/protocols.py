"""What reporters, notifiers and channels are; and what the pipeline expects of its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..model.metric import LatencyMetric

if TYPE_CHECKING:
    from ..model.alert import Alert
    from ..model.turn_metric import TurnMetric
    from .probe import Probe

__all__ = ["Buffered", "Channel", "Consumer", "LatencyReporter", "Notifier", "Ticking", "TurnReporter"]


class LatencyReporter(Protocol):
    """Consumes batches of finished measurements, in order. Called on one thread of ours, never on the call's.

    It may also have ``start()``, called once before the first batch, and ``close()``, called once after the last
    one; ``report_turns(turns)``, which makes it a `TurnReporter` too, and ``notify(alert)``, a `Notifier`; and, as
    its defaults on `report_manager`, the attributes ``name``, ``batch_size``, ``interval_s`` in seconds, and
    ``target``, by which two of one class are known as one. With ``reports_when_idle = True`` and an ``interval_s``
    above 0, ``report`` is called at least every ``interval_s`` and right after each batch of turns, with an empty
    batch if no measurement is queued. Other reporters never get an empty batch.
    """

    def report(self, batch: Sequence[LatencyMetric], /) -> None:
        """Take in a batch, in one attempt with a time-out of its own.

        Raises:
            TransientError: the rest is to be tried again, later.
            PermanentError: it will never be taken.
            Exception: any other is a fault, which loses the batch; all are counted, and keep no other reporter from it.

        """


class Notifier(Protocol):
    """Wants alerts."""

    def notify(self, alert: "Alert", /) -> None:
        """Take in one alert; raises as `LatencyReporter.report` does."""


class Channel(Notifier, Protocol):
    """A way by which alerts reach people, or several ways."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names by which alerts may ask for it."""

    def probe(self, alert: "Alert", /) -> "Mapping[str, Probe]":
        """Hand over a test alert, by name."""


class Consumer(LatencyReporter, Protocol):
    """A reporter that runs on the worker itself, with what belongs to `init()` and `shutdown()`."""

    def start(self) -> None:
        """Called once before the first batch."""

    def close(self) -> object:
        """Called once after the last batch."""


@runtime_checkable
class TurnReporter(Protocol):
    """A reporter that also wants finished turns, in order; they are batched as measurements are.

    Turns and measurements that are due at the same moment are two batches, the turns first.
    """

    def report_turns(self, turns: "Sequence[TurnMetric]", /) -> None:
        """Take in finished turns, in one attempt; raises as `LatencyReporter.report` does."""


@runtime_checkable
class Ticking(Protocol):
    """A reporter of the worker that has something to do when time passes."""

    def tick(self) -> None:
        """Called about ten times a second, on the worker."""


@runtime_checkable
class Buffered(Protocol):
    """A reporter of the worker that hands on to threads of its own: one lane, or several."""

    def flush(self, timeout_s: float) -> bool:
        """Hand on what waits; False when the time was too short."""

    def begin_close(self, timeout_s: float) -> None:
        """Begin to end, without waiting."""

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for the end; False when the time was too short."""
