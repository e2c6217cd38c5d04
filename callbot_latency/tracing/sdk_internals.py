"""What we know of the private attributes of OpenTelemetry's SDK: a span's attributes, and locks after a fork."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ..semconv import SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanLimits

__all__ = [
    "CHECKED",
    "MAX_DIRECT_ATTRIBUTES",
    "AttributeWriting",
    "attributes_are_a_dict",
    "is_roomy",
    "reset_instruments_after_fork",
]

MAX_DIRECT_ATTRIBUTES: Final = 64
"""So many attributes are written past the SDK's checks at most: no limit that is at least as high is ever reached."""


class AttributeWriting:
    """Whether our spans' attributes may be written straight into the dict that the SDK keeps them in.

    The SDK copies and checks each attribute, which costs more than all else that we do on the caller's path; ours
    are plain and few. It is done on a provider of our own alone, where no sampler and no processor looks at a span of
    ours that starts (our own processor passes over it), for no more attributes than no limit forbids, and where the
    SDK keeps attributes as it did when this was written.
    """

    __slots__ = ("bypass_checks",)

    def __init__(self, *, bypass_checks: bool = False) -> None:
        self.bypass_checks: bool = bypass_checks


CHECKED: Final = AttributeWriting()


def is_roomy(limits: "SpanLimits") -> bool:
    """Whether no limit cuts or drops an attribute of an ordinary operation."""
    most = limits.max_span_attributes
    return limits.max_span_attribute_length is None and (most is None or most >= MAX_DIRECT_ATTRIBUTES)


def attributes_are_a_dict() -> bool:
    """Whether this version of the SDK keeps a span's attributes where `SpanFactory` would write them."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    probe = TracerProvider(sampler=ALWAYS_ON, resource=Resource.get_empty(), shutdown_on_exit=False)
    span = probe.get_tracer(SCOPE).start_span("probe", attributes={"a": 1})
    held = getattr(getattr(span, "_attributes", None), "_dict", None)
    return type(held) is dict and held == {"a": 1}


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
