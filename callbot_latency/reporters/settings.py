"""From a reporter's arguments to the settings they came from."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..metric import Severity

__all__ = ["checked_severity", "explained"]


def checked_severity(severity: Severity | str) -> Severity:
    """`severity` itself, or the one with this value.

    Raises:
        ValueError: neither.

    """
    try:
        return Severity(severity)
    except ValueError:
        raise ValueError(f"severity: expected 'warning' or 'critical', got {severity!r}") from None


@contextmanager
def explained(*, needs: str, **variables: str) -> Iterator[None]:
    """What a reporter says of an argument becomes a `ConfigError` that names its environment variable.

    Args:
        needs: the variable that asks for the reporter, named where its extra is not installed.
        variables: the variable of each argument.

    """
    from ..config import ConfigError

    try:
        yield
    except ImportError as missing:
        raise ConfigError(f"{needs}: {missing}") from missing
    except ValueError as wrong:
        argument, _, what = str(wrong).partition(":")
        raise ConfigError(f"{variables.get(argument, argument)}:{what}") from None
