"""Wrapping methods of a class so that it can be undone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import wrapt

__all__ = ["Patches", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One method: the class that it is looked up on, its name, and the wrapper."""

    owner: type
    name: str
    wrapper: Callable[..., Any]


class Patches:
    """Methods that are wrapped, and can be put back exactly as they were."""

    def __init__(self) -> None:
        self._patched: list[tuple[type, str, Any, Any]] = []

    def apply(self, targets: Iterable[Target]) -> None:
        """Wrap each method, on the very class that has it; all are found before the first is wrapped."""
        for target in list(targets):
            original = vars(target.owner)[target.name]
            patch = wrapt.FunctionWrapper(original, _while_on_top(self, target.wrapper))
            setattr(target.owner, target.name, patch)
            self._patched.append((target.owner, target.name, original, patch))

    @property
    def is_applied(self) -> bool:
        """Whether the methods are wrapped."""
        return bool(self._patched)

    def undo(self) -> None:
        """Put every method back; where somebody wrapped it again meanwhile, ours only stops measuring."""
        patched, self._patched = self._patched, []
        for owner, name, original, patch in patched:
            if vars(owner).get(name) is patch:
                setattr(owner, name, original)


def _while_on_top(patches: Patches, wrapper: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not patches.is_applied:
            return wrapped(*args, **kwargs)
        return wrapper(wrapped, instance, args, kwargs)

    return guarded
