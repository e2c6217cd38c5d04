"""The base of our instrumentors: OpenTelemetry's conventions, and one clear error."""

from abc import abstractmethod
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from opentelemetry.instrumentation.dependencies import DependencyConflictError, get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined] # mypy: ignored there

from .patching import Patches, Target

__all__ = ["ClientInstrumentor"]


class ClientInstrumentor(BaseInstrumentor):  # type: ignore[misc, unused-ignore]
    """Wraps the methods of one client library.

    `instrument()` raises DependencyConflictError, which `opentelemetry-instrument` takes as "not here", where the
    library is missing or too old.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """The library, with the versions that are known to work."""
    any_of: ClassVar[bool] = False
    """Whether one of them is enough."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(self, "_patches"):
            self._patches = Patches()

    def instrumentation_dependencies(self) -> Collection[str]:
        return () if self.any_of else self.requires

    @abstractmethod
    def targets(self) -> Iterable[Target]:
        """The methods to wrap; imports the library."""

    def present(self) -> Collection[str]:
        """Those of `requires` that are installed, in a version that works.

        Raises:
            DependencyConflictError: one is missing or too old; where one is enough, all are.

        """
        conflicts = {need: get_dependency_conflicts([need]) for need in self.requires}
        wrong = [conflict for conflict in conflicts.values() if conflict is not None]
        if wrong and not (self.any_of and len(wrong) < len(conflicts)):
            raise DependencyConflictError(wrong[0])
        return [need for need, conflict in conflicts.items() if conflict is None]

    def check(self) -> None:
        """Say what is wrong with the installed library, if anything is.

        Raises:
            ImportError: names the package, the version that is needed and the one that is there.

        """
        try:
            self.present()
        except DependencyConflictError as exc:
            found = exc.conflict.found
            needed = " or ".join(self.requires) if self.any_of else exc.conflict.required or self.requires[0]
            raise ImportError(
                f"instrument: {needed} is needed, {'found ' + str(found) if found else 'and is not installed'}; "
                f"install it with: pip install '{needed.partition(' or ')[0].replace(' ', '')}'"
            ) from None

    def _instrument(self, **kwargs: Any) -> None:
        del kwargs
        # opentelemetry-instrument asks for no check of ours: it looks at the package's metadata alone.
        self.present()
        self._patches.apply(self.targets())

    def _uninstrument(self, **kwargs: Any) -> None:
        del kwargs
        self._patches.undo()
