"""Starts spans on the package's tracer, with a call's ids derived from its call_sid."""

import contextlib
import copy
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
)

from ..base.bounded import MAX_CALLS, BoundedMap
from ..semconv import CALL_PART_SPAN, CALL_SID, CALL_SPAN, SCOPE
from .sdk_internals import CHECKED, MAX_DIRECT_ATTRIBUTES, AttributeWriting

__all__ = ["CallIdGenerator", "SpanFactory"]


_ROOT: Final = b"callbot.root"
"""Tells the hash that gives a root's span id from the one that gives its trace id (BLAKE2's personalisation)."""


class CallIdGenerator:
    """Id generator of our tracer alone, whose ids are random, and what those of a call's root are.

    Satisfies opentelemetry.sdk.trace.id_generator.IdGenerator without importing the SDK.

    Args:
        key: of the hash, at most 64 bytes.

    """

    def __init__(self, key: bytes = b"") -> None:
        self._key = key

    def trace_id_of(self, call_sid: str) -> int:
        """128 bits of keyed BLAKE2b of the call_sid: the same in every process that has the same key."""
        digest = hashlib.blake2b(call_sid.encode("utf-8", "replace"), digest_size=16, key=self._key)
        return int.from_bytes(digest.digest(), "big") or 1

    def root_span_id_of(self, call_sid: str) -> int:
        """64 bits of another such hash: every process knows beneath what its part of the call hangs."""
        digest = hashlib.blake2b(call_sid.encode("utf-8", "replace"), digest_size=8, key=self._key, person=_ROOT)
        return int.from_bytes(digest.digest(), "big") or 1

    def generate_trace_id(self) -> int:
        """128 random bits."""
        return random.getrandbits(128) or 1  # nosec B311 # an id, no secret

    def generate_span_id(self) -> int:
        """64 random bits."""
        return random.getrandbits(64) or 1  # nosec B311 # an id, no secret

    def is_trace_id_random(self) -> bool:
        """True: these are; see `FixedIdGenerator` for those that are derived."""
        return True


class FixedIdGenerator:
    """Id generator of the tracer that starts one root, and nothing else."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self.generate_trace_id: Callable[[], int] = lambda: trace_id
        self.generate_span_id: Callable[[], int] = lambda: span_id

    def is_trace_id_random(self) -> bool:
        """False, so that the W3C random flag stays honest."""
        return False


class SpanFactory:
    """Opens spans on our tracer.

    Args:
        tracer: one that nobody else uses; where it is the SDK's, its id generator becomes `ids`, and its sampler a
            faster one that decides the same.
        ids: derives the ids of a call's root.
        writing: whether attributes may be written past the SDK's checks.

    """

    def __init__(self, tracer: Tracer, ids: CallIdGenerator, writing: AttributeWriting) -> None:
        self._sampler: Any = None
        if hasattr(tracer, "id_generator") and hasattr(tracer, "sampler"):
            from .sampler import fast_parent_based

            tracer.id_generator = ids
            tracer.sampler = self._sampler = fast_parent_based(tracer.sampler)
        self._tracer = tracer
        self._start_span = tracer.start_span
        self._writing = writing
        self._roots: BoundedMap[int, object] = BoundedMap(MAX_CALLS)
        self.ids = ids

    @classmethod
    def on(cls, provider: trace.TracerProvider, key: bytes = b"") -> "SpanFactory":
        """A factory on this provider's tracer of the package's scope."""
        ids = CallIdGenerator(key)
        return cls(provider.get_tracer(SCOPE), ids, getattr(provider, "writing", CHECKED))

    def start(
        self, name: str, context: Context, attributes: Mapping[str, Any], start_ns: int, links: Sequence[Link] = ()
    ) -> Span:
        """Start a span beneath the one in `context`; `start_ns` is in nanoseconds since the epoch.

        `attributes` are of plain types, and their keys no empty strings.
        """
        if not self._writing.bypass_checks or len(attributes) > MAX_DIRECT_ATTRIBUTES:
            return self._start_span(name, context, SpanKind.INTERNAL, attributes, links, start_ns, False, False)
        span = self._start_span(name, context, SpanKind.INTERNAL, None, links, start_ns, False, False)
        held = getattr(span, "_attributes", None)
        if held is not None:
            held._dict.update(attributes)  # noqa: SLF001 - see AttributeWriting
        return span

    def set_attribute(self, span: Span, key: str, value: str) -> None:
        """Set one attribute of a span that this factory started."""
        held = getattr(span, "_attributes", None) if self._writing.bypass_checks else None
        if held is None or len(held._dict) >= MAX_DIRECT_ATTRIBUTES:  # noqa: SLF001 - see AttributeWriting
            span.set_attribute(key, value)
        else:
            held._dict[key] = value  # noqa: SLF001 - see AttributeWriting

    def start_call(
        self, context: Context, attributes: Mapping[str, Any], start_ns: int, call_sid: str, *, joins: bool = False
    ) -> Span:
        """Start the call's root, or a part of the call beneath it.

        It is a part where the caller `joins`, where a span of the call is current, and where this process has opened
        the root before: no two spans may have the root's id.
        """
        current = trace.get_current_span(context).get_span_context()
        trace_id = self.ids.trace_id_of(call_sid)
        if joins or current.trace_id == trace_id or not self._is_first(trace_id):
            return self.start_in_call(CALL_PART_SPAN, context, attributes, start_ns, call_sid)
        rootless = trace.set_span_in_context(INVALID_SPAN, context)
        start_span = self._tracer_of_root(trace_id, self.ids.root_span_id_of(call_sid)).start_span
        return start_span(CALL_SPAN, rootless, SpanKind.INTERNAL, attributes, _links(current), start_ns, False, False)

    def start_in_call(
        self, name: str, context: Context, attributes: Mapping[str, Any], start_ns: int, call_sid: str
    ) -> Span:
        """Start a span in the call's own trace: beneath the current span if that is of the call, else beneath its root.

        The root may be open in another process, and its id is derived. A current span of another trace, such as the
        web server's, is linked.
        """
        current = trace.get_current_span(context).get_span_context()
        if current.is_valid and current.trace_id == self.ids.trace_id_of(call_sid):
            return self.start(name, context, attributes, start_ns)
        beneath_root = trace.set_span_in_context(NonRecordingSpan(self._root_of(call_sid)), context)
        return self.start(name, beneath_root, attributes, start_ns, _links(current))

    def _tracer_of_root(self, trace_id: int, span_id: int) -> Tracer:
        """A copy of our tracer that gives these ids: what a signal handler opens meanwhile has others."""
        if not hasattr(self._tracer, "id_generator"):
            return self._tracer
        for own in (self._tracer, getattr(self._tracer, "__wrapped__", None)):
            # wrapt's proxies have no copy. What one adds when a span starts is missing from the root alone then.
            with contextlib.suppress(Exception):
                copied: Any = copy.copy(own)
                copied.id_generator = FixedIdGenerator(trace_id, span_id)
                tracer: Tracer = copied
                return tracer
        # Nothing could be copied: this root has random ids, so that parts in other processes do not hang beneath it.
        return self._tracer

    def _is_first(self, trace_id: int) -> bool:
        """Whether the root of this call was not opened here before; without a lock, true for one thread alone."""
        mark = object()
        return self._roots.get_or_put(trace_id, mark) is mark

    def _root_of(self, call_sid: str) -> SpanContext:
        """The root as a remote parent, sampled or not as our sampler would have decided on the root itself.

        A sampler by ratio decides by the trace id, so that all processes of a call agree without a word.
        """
        if self._sampler is None:
            return INVALID_SPAN_CONTEXT
        trace_id = self.ids.trace_id_of(call_sid)
        result = self._sampler.should_sample(Context(), trace_id, CALL_SPAN, SpanKind.INTERNAL, {CALL_SID: call_sid})
        return SpanContext(
            trace_id,
            self.ids.root_span_id_of(call_sid),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if result.decision.is_sampled() else TraceFlags.DEFAULT),
            trace_state=result.trace_state,
        )


def _links(current: SpanContext) -> Sequence[Link]:
    return (Link(current),) if current.is_valid else ()
