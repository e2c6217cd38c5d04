"""From a reporter's arguments to the settings they came from."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..model.alert import Alert
from ..model.metric import Severity

__all__ = ["checked_severity", "explained", "is_wanted"]


def checked_severity(severity: Severity | str) -> Severity:
    """`severity` itself, or the one with this value.

    Raises:
        ValueError: neither.

    """
    try:
        return Severity(severity)
    except ValueError:
        raise ValueError(f"severity: expected 'warning' or 'critical', got {severity!r}") from None


def is_wanted(alert: Alert, severity: Severity) -> bool:
    """Whether a channel that asks for `severity` takes `alert`; one that names its channels passes at any severity."""
    return alert.channels is not None or severity is not Severity.CRITICAL or alert.severity is Severity.CRITICAL


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
