"""What a forked child inherits from OpenTelemetry's SDK, and must not keep."""

import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["reset_instruments_after_fork"]


def reset_instruments_after_fork(instruments: Sequence[Any]) -> None:
    """In a forked child: let `instruments`, all of one meter, begin at nothing, with locks that nobody holds.

    The SDK goes on with the parent's sums, which the parent tells too, and with the parent's locks: one that another
    thread held at the fork, as the reader does while it collects or exports, would stay held here for ever. It keeps
    what it knows of an instrument in a table of each reader, and makes that anew when the next measurement comes; so
    to take it out of there is enough, and costs the same whatever was recorded. Instruments of the application keep
    theirs. Of anything but the SDK's own instruments nothing is known, and nothing done.
    """
    consumer = getattr(instruments[0], "_measurement_consumer", None)
    if consumer is None:
        return
    consumer._lock = threading.Lock()  # noqa: SLF001 - the SDK has no way to ask for it, and its own hook forgets these
    for reader, storage in consumer._reader_storages.items():  # noqa: SLF001
        if hasattr(reader, "_export_lock"):  # of the one that sends by itself, held for as long as a server takes
            reader._export_lock = threading.Lock()  # noqa: SLF001
        storage._lock = threading.RLock()  # noqa: SLF001
        for instrument in instruments:
            storage._instrument_view_instrument_matches.pop(instrument, None)  # noqa: SLF001
