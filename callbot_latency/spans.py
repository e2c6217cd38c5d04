"""The one opener of spans: our tracer, trace ids derived from a call_sid, and the current context."""

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Token
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Tracer

from .semconv import SCOPE

__all__ = ["FEW", "DerivedIds", "SpanOpener", "Writing", "attach", "detach", "detach_abandoned"]

attach = otel_context.attach


def detach(token: "Token[Context]", attached: Context | None = None) -> None:
    """Detach; work that moved on to another task meanwhile leaves `attached` there, and nothing else."""
    try:
        token.var.reset(token)
    except ValueError:
        if attached is not None and otel_context.get_current() is attached:
            attach(Context() if token.old_value is Token.MISSING else token.old_value)


def detach_abandoned(token: "Token[Context]", attached: Context) -> None:
    """Detach, unless this is another context than the one attached to.

    A coroutine or stream that was broken off may be finalised in any task or thread; there the token is of no use,
    and the context that it belonged to is gone with its task.
    """
    if otel_context.get_current() is attached:
        with contextlib.suppress(ValueError):
            token.var.reset(token)


FEW: Final = 64
"""So many attributes are written past the SDK's checks at most: no limit that is at least as high is ever reached."""


class DerivedIds:
    """Id generator of our tracer alone: the trace id announced by `next_trace_id`, else a random one.

    Satisfies opentelemetry.sdk.trace.id_generator.IdGenerator without importing the SDK.
    """

    def __init__(self, key: bytes = b"") -> None:
        # BLAKE2 takes keys of up to 64 bytes (RFC 7693); a longer one is hashed, as HMAC does.
        self._key = key if len(key) <= 64 else hashlib.blake2b(key).digest()
        self._next = threading.local()

    def trace_id_of(self, call_sid: str) -> int:
        """128 bits of keyed BLAKE2b of the call_sid: the same in every process that has the same key."""
        digest = hashlib.blake2b(call_sid.encode("utf-8", "replace"), digest_size=16, key=self._key)
        return int.from_bytes(digest.digest(), "big") or 1

    @contextlib.contextmanager
    def next_trace_id(self, trace_id: int) -> Iterator[None]:
        """Root spans that this thread starts meanwhile carry `trace_id`."""
        self._next.trace_id = trace_id
        try:
            yield
        finally:
            self._next.trace_id = None

    def generate_trace_id(self) -> int:
        """The announced trace id, else 128 random bits."""
        return getattr(self._next, "trace_id", None) or random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        """64 random bits."""
        return random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """False for a derived id, so that the W3C random flag stays honest."""
        return getattr(self._next, "trace_id", None) is None


class Writing:
    """Whether our spans' attributes may be written straight into the dict that the SDK keeps them in.

    The SDK copies and checks each attribute, which costs more than all else that we do on the caller's path; ours
    are plain and few. It is done on a provider of our own alone, where no sampler and no processor but ours looks at
    a span that starts, for no more attributes than no limit forbids, and where the SDK keeps attributes as it did
    when this was written.
    """

    __slots__ = ("direct",)

    def __init__(self, *, direct: bool = False) -> None:
        self.direct = direct


_CHECKED: Final = Writing()


class SpanOpener:
    """Opens spans on our tracer.

    Args:
        tracer: one that nobody else uses; where it is the SDK's, its id generator becomes `ids`.
        ids: derives the trace id of a call.
        writing: whether attributes may be written past the SDK's checks.

    """

    def __init__(self, tracer: Tracer, ids: DerivedIds, writing: "Writing") -> None:
        if hasattr(tracer, "id_generator"):
            tracer.id_generator = ids
        self._start_span = tracer.start_span
        self._writing = writing
        self.ids = ids

    @classmethod
    def on(cls, provider: trace.TracerProvider, trace_key: str = "") -> "SpanOpener":
        """An opener on this provider's tracer of our scope."""
        ids = DerivedIds(trace_key.encode())
        return cls(provider.get_tracer(SCOPE), ids, getattr(provider, "writing", _CHECKED))

    def open(
        self,
        name: str,
        context: Context,
        attributes: Mapping[str, Any],
        start_ns: int,
        links: Sequence[Link] = (),
    ) -> Span:
        """Start a span beneath the one in `context`; `start_ns` is in nanoseconds since the epoch.

        `attributes` are of plain types, and their keys no empty strings.
        """
        if not self._writing.direct or len(attributes) > FEW:
            return self._start_span(name, context, SpanKind.INTERNAL, attributes, links, start_ns, False, False)
        span = self._start_span(name, context, SpanKind.INTERNAL, None, links, start_ns, False, False)
        held = getattr(span, "_attributes", None)
        if held is not None:
            held._dict.update(attributes)  # noqa: SLF001 - see Writing
        return span

    def write(self, span: Span, key: str, value: str) -> None:
        """Set one attribute of a span that this opener opened."""
        held = getattr(span, "_attributes", None) if self._writing.direct else None
        if held is None or len(held._dict) >= FEW:  # noqa: SLF001 - see Writing
            span.set_attribute(key, value)
        else:
            held._dict[key] = value  # noqa: SLF001 - see Writing

    def open_in_call(
        self, name: str, context: Context, attributes: Mapping[str, Any], start_ns: int, call_sid: str
    ) -> Span:
        """Start a span in the call's own trace: beneath the current span if that is of the call, else as its root.

        A current span of another trace, such as the web server's, is linked.
        """
        current = trace.get_current_span(context).get_span_context()
        trace_id = self.ids.trace_id_of(call_sid)
        if current.is_valid and current.trace_id == trace_id:
            return self.open(name, context, attributes, start_ns)
        links = (Link(current),) if current.is_valid else ()
        with self.ids.next_trace_id(trace_id):
            return self.open(name, trace.set_span_in_context(INVALID_SPAN, context), attributes, start_ns, links)
