"""What the sampler of our tracer answers for a span beneath a sampled one, said without asking it."""

from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, StaticSampler
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

__all__ = ["with_parent_at_once"]

_SAMPLED: Final = SamplingResult(Decision.RECORD_AND_SAMPLE)


def with_parent_at_once(sampler: Sampler) -> Sampler:
    """The same sampler, and faster where it always samples what is beneath a sampled span of this process.

    Nearly every operation is; the SDK's own answer to that is a tenth of what a span costs its caller.
    """
    described = sampler.get_description()
    is_known = isinstance(sampler, StaticSampler) and described == "AlwaysOnSampler"
    if type(sampler) is ParentBased and ",localParentSampled:AlwaysOnSampler," in described:
        is_known = True
    return _WithParent(sampler) if is_known else sampler


class _WithParent(Sampler):
    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

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
        parent = get_current_span(parent_context).get_span_context()
        if parent.is_valid and not parent.is_remote and parent.trace_flags.sampled:
            if not (attributes or parent.trace_state):
                return _SAMPLED
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, parent.trace_state)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return self._sampler.get_description()
