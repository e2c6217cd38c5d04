"""What the sampler of our tracer answers for a span beneath a sampled one, said without asking it."""

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .context import SPAN

__all__ = ["fast_parent_based"]

_SAMPLED: Final = SamplingResult(Decision.RECORD_AND_SAMPLE)


def fast_parent_based(sampler: Sampler) -> Sampler:
    """The same sampler, and faster where it always samples what is beneath a sampled span of this process.

    Nearly every operation is; the SDK's own answer to that is a tenth of what a span costs its caller.
    """
    # By identity: a subclass may decide otherwise, and a description may say anything, or raise.
    if sampler is ALWAYS_ON or (
        type(sampler) is ParentBased and getattr(sampler, "_local_parent_sampled", None) is ALWAYS_ON
    ):
        return _WithParent(sampler)
    return sampler


class _WithParent(Sampler):
    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._known: SpanContext | None = None
        """The last that was found to be sampled, of this process and without a trace state: most have siblings."""

    def should_sample(  # noqa: PLR0917 - as the SDK has it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        span: Any = (get_current() if parent_context is None else parent_context).get(SPAN)
        try:
            parent = None if span is None else span.get_span_context()
        except Exception:  # noqa: BLE001 - no span at all, or a broken one: the sampler says what it makes of that
            parent = None
        if parent is not None and (parent is self._known or self._is_sampled_here(span, parent)):
            if not attributes and parent is self._known:
                return _SAMPLED
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, parent.trace_state)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def _is_sampled_here(self, span: Any, parent: SpanContext) -> bool:
        # To the SDK, what is no Span is no parent.
        if not (isinstance(span, Span) and parent.is_valid and not parent.is_remote and parent.trace_flags.sampled):
            return False
        if not parent.trace_state:
            self._known = parent
        return True

    def get_description(self) -> str:
        return self._sampler.get_description()
