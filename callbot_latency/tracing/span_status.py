"""How an operation ended: status, scrubbed message, and what its span says of an exception."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Any, Final

from opentelemetry.trace import Span, Status, StatusCode

from .. import semconv
from ..base.scrubbing import scrub
from ..base.text import plain, text_of_any
from ..model.operation import OperationStatus

__all__ = ["error_message", "mark_failed", "metadata_attributes", "snapshot_metadata", "status_of", "type_name"]

_TIMEOUTS: Final = frozenset(
    [
        "httpx.TimeoutException",
        "httpx2.TimeoutException",
        "httpcore.TimeoutException",
        "requests.Timeout",
        "urllib3.TimeoutError",
        "aiohttp.ServerTimeoutError",
        "openai.APITimeoutError",
        "google.DeadlineExceeded",
        "google.RetryError",
        "botocore.ReadTimeoutError",
        "botocore.ConnectTimeoutError",
    ]
)
"""Timeouts of libraries that do not derive from TimeoutError, as top package and class, so that none is imported."""

_CANCELLED: Final = frozenset({"asyncio.CancelledError", "concurrent.CancelledError"})
"""By name too: importing asyncio would double what importing us costs."""
_MAX_FRAMES: Final = 30
_UNCHANGING: Final = frozenset({str, int, float, bool, type(None)})
MAX_FACTS: Final = 64
"""So many facts of the metadata stand on a span; the file has all of them."""
MAX_FACT_CHARS: Final = 1_000
"""How long a fact on a span may be: one that is too long would cost the whole batch that it is sent in."""


@lru_cache(maxsize=256)
def _status_of_type(kind: type[BaseException]) -> OperationStatus:
    names = {f"{str(base.__module__).partition('.')[0]}.{base.__name__}" for base in kind.__mro__}
    if issubclass(kind, GeneratorExit) or names & _CANCELLED:
        return OperationStatus.CANCELLED
    if issubclass(kind, TimeoutError) or names & _TIMEOUTS:
        return OperationStatus.TIMEOUT
    return OperationStatus.ERROR


def status_of(exc: BaseException) -> OperationStatus:
    """Cancelled, timeout or error, by the exception's type."""
    # mypy takes the __hash__ of the instances for that of their class.
    return _status_of_type(type(exc))  # type: ignore[arg-type]


def type_name(exc: BaseException) -> str:
    """``module.QualName``, without ``builtins.``: what OpenTelemetry calls error.type."""
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_message(exc: BaseException) -> str:
    """The scrubbed ``str(exc)``, or the type's name where that is empty or cannot be had."""
    return scrub(text_of_any(exc)) or type(exc).__name__


def _frames(traceback: TracebackType | None) -> str:
    """The places alone, innermost last: source lines would mean file reads on the caller's thread."""
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}')
        traceback = traceback.tb_next
    return "\n".join(frames[-_MAX_FRAMES:])


def mark_failed(span: Span, exc: BaseException, message: str | None = None) -> None:
    """Set the span's status and its one exception event; a cancelled one keeps its status unset."""
    if not span.is_recording():
        return
    kind, message = type_name(exc), message or error_message(exc)
    span.set_attribute(semconv.ERROR_TYPE, kind)
    if status_of(exc) is OperationStatus.CANCELLED:
        return
    span.add_event(
        semconv.EXCEPTION_EVENT,
        {
            semconv.EXCEPTION_TYPE: kind,
            semconv.EXCEPTION_MESSAGE: message,
            semconv.EXCEPTION_STACKTRACE: f"{_frames(exc.__traceback__)}\n{kind}: {message}",
        },
    )
    span.set_status(Status(StatusCode.ERROR, message))


def metadata_attributes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as span attributes beneath their prefix; what a span has no type for becomes its text."""
    return {
        semconv.METADATA_PREFIX + text_of_any(key): _attribute(value)
        for key, value in islice(metadata.items(), MAX_FACTS)
        if value is not None
    }


def snapshot_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as it is now: what may change after this moment is copied, in JSON's own types."""
    return {key: value if type(value) in _UNCHANGING else plain(value) for key, value in metadata.items()}


def _attribute(value: Any) -> str | bool | int | float:
    # OTLP's integers have 64 bits; a longer one would cost its whole batch.
    if isinstance(value, (bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    text = text_of_any(value)
    return text if len(text) <= MAX_FACT_CHARS else text[:MAX_FACT_CHARS] + "…"
