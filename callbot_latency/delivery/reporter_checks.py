"""What a reporter must be, and what it is called."""

import inspect
import math
import re
from collections.abc import Collection, Sequence
from itertools import chain, count
from typing import Any, Final

__all__ = ["check_methods", "check_numbers", "is_same", "name_of", "snake_case"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_ARGUMENTS: Final = {"report": "batch", "report_turns": "turns", "notify": "alert", "start": "", "close": ""}
"""The argument of each method."""


def name_of(reporter: Any, given: str | None, taken: Collection[str]) -> str:
    """The given name, else the reporter's own or that of its class, with a number where that is taken.

    Raises:
        ValueError: the given name is malformed or taken.

    """
    if given is not None:
        if not _NAME.fullmatch(given) or given in taken:
            raise ValueError(f"name: expected lower-case letters, digits and _, not yet taken, got {given!r}")
        return given
    own = getattr(reporter, "name", None)
    base = own if isinstance(own, str) and _NAME.fullmatch(own) else snake_case(type(reporter).__name__)
    numbered = (f"{base}_{number}" for number in count(2))
    return next(name for name in chain([base], numbered) if name not in taken)


def check_methods(reporter: Any) -> None:
    """Find at once what would otherwise fail for every batch.

    Raises:
        TypeError: it lacks the methods, or they cannot be called as they should.

    """
    said = reporter.__name__ if isinstance(reporter, type) else type(reporter).__name__
    if isinstance(reporter, type):
        raise TypeError(f"reporter: expected an object with report(batch), got the class {said} itself")
    if not any(hasattr(reporter, method) for method in ("report", "notify")):
        raise TypeError(f"reporter: expected an object with report(batch) or notify(alert), {said} has neither")
    for method, argument in _ARGUMENTS.items():
        if hasattr(reporter, method) and not _takes(getattr(reporter, method), [argument] if argument else []):
            raise TypeError(f"reporter: expected a plain method {method}({argument}), {said}.{method} is not one")


def _takes(function: object, arguments: Sequence[Any]) -> bool:
    """Whether it is a plain function of these arguments."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        return False
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # built in, without a signature
        return True
    return True


def check_numbers(capacity: Any, batch_size: Any, interval_s: Any) -> None:
    """Check the numbers of a lane.

    Raises:
        ValueError: one is out of range; the message names it.

    """
    for name, number in (("capacity", capacity), ("batch_size", 1 if batch_size is None else batch_size)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}: expected a whole number from 1, got {number!r}")
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float) or not 0 <= interval_s < math.inf:
        raise ValueError(f"interval_s: expected seconds from 0, got {interval_s!r}")


def is_same(one: Any, other: Any) -> bool:
    """Whether two reporters are one: the same object, or of one class with the same target."""
    if one is other:
        return True
    target = getattr(one, "target", None)
    return target is not None and type(one) is type(other) and bool(target == getattr(other, "target", None))


def snake_case(name: str) -> str:
    """The name of a class as the name of a lane."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    cleaned = re.sub(r"[^a-z0-9_]", "", words).strip("_")
    return cleaned if _NAME.fullmatch(cleaned) else "reporter"
