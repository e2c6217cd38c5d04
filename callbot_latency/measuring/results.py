"""A call that returns all of its audio at once: how much that is."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from opentelemetry.context import get_current

from ..base.internal_errors import call_safely
from ..model.audio import size_of
from ..tracing.context import OPERATION
from .measurement import Operation

__all__ = ["record_awaited_result_size", "record_result_size"]

P = ParamSpec("P")
R = TypeVar("R")


def record_result_size(function: Callable[P, R], operation: Operation) -> Callable[P, R]:
    """The function, which tells the operation how large its result is."""

    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        call_safely(_record_size, operation, result)
        return result

    return wrapper


def record_awaited_result_size(
    function: Callable[P, Coroutine[Any, Any, R]], operation: Operation
) -> Callable[P, Coroutine[Any, Any, R]]:
    """The same of a coroutine function."""

    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        result = await function(*args, **kwargs)
        call_safely(_record_size, operation, result)
        return result

    return wrapper


def _record_size(operation: Operation, result: Any) -> None:
    measurement: Any = get_current().get(OPERATION)
    if measurement is not None and measurement.operation is operation:
        measurement.set_audio(size_bytes=size_of(result))
