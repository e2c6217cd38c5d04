"""Which foreign spans lie within which, so that one piece of work counts once.

A framework has spans within spans for the same work (`llm_node`, `llm_request`, `llm_request_run`, and the `chat` of
a client's own instrumentation within these). The outermost counts: it holds retries and fallbacks, as the caller
waits for them. None counts within an operation of ours of the same type, or around one: ours is the more exact.
"""

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from opentelemetry.context import Context, get_current

from ..measuring.measurement import Measurement
from ..model.operation import OperationType
from ..tracing.context import BINDING, OPERATION
from .framework_spans import ForeignSpan, call_sid_of, is_measured, match_span, turn_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Span

__all__ = ["mark_counted", "on_span_end", "on_span_start"]

_KEPT_AS: Final = "_callbot_latency_lineage"
_open: Final["WeakValueDictionary[int, Any]"] = WeakValueDictionary()
"""Foreign spans by their id, for as long as somebody holds them."""


class _Lineage:
    __slots__ = ("bound", "parent", "within", "work_of")

    def __init__(self, parent: Any, work_of: OperationType | None, bound: str | None) -> None:
        self.parent = parent
        self.work_of = work_of
        """The type of our operation that it is a part of."""
        self.bound = bound
        self.within: set[OperationType] = set()
        """The types of what was counted beneath it."""


def on_span_start(span: "Span", context: Context | None) -> None:
    """A foreign span begins."""
    context = get_current() if context is None else context
    around: Any = context.get(OPERATION)
    binding: Any = context.get(BINDING)
    lineage = _Lineage(
        None if span.parent is None else _open.get(span.parent.span_id),
        around.operation.type if around is not None and around.is_open else None,
        binding.call_sid if binding is not None else None,
    )
    # A provider may hold two of our processors.
    if vars(span).setdefault(_KEPT_AS, lineage) is lineage:
        _open[span.get_span_context().span_id] = span


def mark_counted(span: "ReadableSpan", measurement: Measurement) -> None:
    """An operation of ours ended: no foreign span around it counts the same work."""
    if _open and span.parent is not None:
        _mark(_open.get(span.parent.span_id), measurement.operation.type)


def _mark(parent: Any, *kinds: OperationType) -> None:
    lineage = _of(parent)
    if lineage is not None:
        lineage.within.update(kinds)


def _of(span: Any) -> _Lineage | None:
    return None if span is None else vars(span).get(_KEPT_AS)


def on_span_end(span: "ReadableSpan", explicit: OperationType | None = None) -> ForeignSpan | None:
    """A foreign span ended: what of it counts, None where nothing does.

    Args:
        span: the span.
        explicit: its type, where it carries our own attributes and counts by these.

    """
    # What ends is handed over as a copy: what began is found by its id.
    lineage = _of(_open.get(span.context.span_id))
    if lineage is None:
        return None  # it began before `init()`, or in the parent of this fork
    kinds = lineage.within if explicit is None else {*lineage.within, explicit}
    _mark(lineage.parent, *kinds)
    found = None if explicit is not None else match_span(span)
    if found is None:
        return None
    row, kind = found
    around = _around(lineage)
    if kind in lineage.within or kind is lineage.work_of or any(_counts_as(other, kind) for other in around):
        return None
    item = ForeignSpan(
        span,
        row,
        kind,
        next((sid for each in (span, *around) if (sid := call_sid_of(each)) is not None), lineage.bound),
        next((turn for each in (span, *around) if (turn := turn_of(each)) is not None), None),
    )
    return item if is_measured(item) else None


def _around(lineage: _Lineage) -> list[Any]:
    found: list[Any] = []
    while lineage.parent is not None:
        found.append(lineage.parent)
        above = _of(lineage.parent)
        if above is None:
            break
        lineage = above
    return found


def _counts_as(span: Any, kind: OperationType) -> bool:
    found = match_span(span)
    return found is not None and found[1] is kind
