"""How an exception is judged and told."""

import asyncio
import concurrent.futures
import subprocess
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from callbot_latency import OperationStatus
from callbot_latency.tracing.span_status import error_message, mark_failed, metadata_attributes, status_of, type_name


class DerivedTimeout(httpx.ReadTimeout):
    """An application's own, built on a library's."""


@pytest.mark.parametrize(
    "exc",
    [
        TimeoutError(),
        httpx.ReadTimeout("x"),
        httpx.ConnectTimeout("x"),
        httpx.PoolTimeout("x"),
        DerivedTimeout("x"),
        requests.Timeout(),
        requests.ReadTimeout(),
        requests.ConnectTimeout(),
        aiohttp.ServerTimeoutError(),
        aiohttp.SocketTimeoutError(),
        aiohttp.ConnectionTimeoutError(),
    ],
    ids=lambda exc: f"{type(exc).__module__}.{type(exc).__name__}",
)
def test_timeouts(exc: BaseException) -> None:
    """Python's own and those of the usual libraries."""
    assert status_of(exc) is OperationStatus.TIMEOUT


def test_the_other_names_of_a_timeout_are_the_same() -> None:
    """Those of asyncio and concurrent.futures."""
    for module in (asyncio, concurrent.futures):
        assert status_of(vars(module)["TimeoutError"]()) is OperationStatus.TIMEOUT


@pytest.mark.parametrize("module", ["google.api_core.exceptions", "google.cloud.exceptions"])
def test_a_timeout_of_a_library_is_known_by_its_name(module: str) -> None:
    """No library is imported for it: top package and class are enough, also for a subclass."""
    deadline = type("DeadlineExceeded", (Exception,), {"__module__": module})
    assert status_of(deadline()) is OperationStatus.TIMEOUT
    assert status_of(type("Ours", (deadline,), {})()) is OperationStatus.TIMEOUT
    assert status_of(type("DeadlineExceeded", (Exception,), {"__module__": "other"})()) is OperationStatus.ERROR


@pytest.mark.parametrize("exc", [asyncio.CancelledError(), concurrent.futures.CancelledError(), GeneratorExit()])
def test_cancellations(exc: BaseException) -> None:
    """Work that was broken off did not fail."""
    assert status_of(exc) is OperationStatus.CANCELLED


@pytest.mark.parametrize(
    "exc",
    [ValueError(), KeyboardInterrupt(), SystemExit(), ConnectionError(), httpx.ConnectError("x"), StopIteration()],
)
def test_everything_else_is_an_error(exc: BaseException) -> None:
    """Also what is not an Exception."""
    assert status_of(exc) is OperationStatus.ERROR


class Silent(Exception):
    def __str__(self) -> str:
        return ""


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the point


@pytest.mark.promise("hostile-values")
@pytest.mark.parametrize("kind", [Silent, Hostile, NoText])
def test_an_exception_without_text_is_told_by_its_type(kind: type[Exception]) -> None:
    """Whatever its `__str__` does."""
    assert error_message(kind()) == kind.__name__


def test_an_exceptions_text_is_scrubbed() -> None:
    """And else told as it is."""
    assert error_message(ValueError("no answer from +33612345678")) == "no answer from [phone]"
    assert error_message(KeyError("x")) == "'x'"


def test_error_type_is_the_qualified_name() -> None:
    """As OpenTelemetry has it: the module, except for builtins."""
    assert type_name(ValueError()) == "ValueError"
    assert type_name(httpx.ReadTimeout("x")) == "httpx.ReadTimeout"
    assert type_name(subprocess.TimeoutExpired("x", 1)) == "subprocess.TimeoutExpired"


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def span_of(exc: BaseException) -> Any:
    span: Any = TracerProvider().get_tracer("t").start_span("s")
    mark_failed(span, exc)
    span.end()
    return span


def test_a_failed_span_has_status_type_and_one_event() -> None:
    """The event's stack trace has places, and neither source lines nor the text unscrubbed."""
    span = span_of(raised(ValueError("call +33612345678")))
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "call [phone]"
    assert span.attributes["error.type"] == "ValueError"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "call [phone]"
    trace = event.attributes["exception.stacktrace"]
    assert __file__ in trace
    assert "in raised" in trace
    assert trace.endswith("\nValueError: call [phone]")
    assert "raise exc" not in trace


def test_a_cancelled_span_is_no_failure() -> None:
    """It says by what, and keeps its status unset."""
    span = span_of(asyncio.CancelledError())
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


def test_a_deep_stack_is_told_by_its_innermost_frames() -> None:
    """Thirty of them: what failed stands at the end."""

    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("bottom")
        deep(n - 1)

    try:
        deep(200)
    except ValueError as exc:
        (event,) = span_of(exc).events
    lines = event.attributes["exception.stacktrace"].splitlines()
    assert len(lines) == 31
    assert all("in deep" in line for line in lines[:-1])


def test_metadata_as_attributes() -> None:
    """What a span has no type for becomes its text; None is absent."""
    assert metadata_attributes({"a": 1, "b": None, "c": [1], 4: True, "d": Hostile()}) == {
        "metadata.a": 1,
        "metadata.c": "[1]",
        "metadata.4": True,
        "metadata.d": "",
    }
