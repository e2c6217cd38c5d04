"""The base of the context managers that one object may enter again before it is left."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from opentelemetry.context import Context, get_current

from ..base.internal_errors import call_safely
from .active_session import ActiveSession, active

__all__ = ["ReentrantContext"]

Y = TypeVar("Y")
S = TypeVar("S")


@dataclass(slots=True, eq=False)
class _Entry(Generic[S]):
    """One entry that is not left yet; without a state where nothing is measured."""

    context: Context
    state: S | None


class ReentrantContext(ABC, Generic[Y, S]):
    """Opens a state with ``with`` or ``async with``, and closes it at the end of the block.

    One object may be entered several times at once, also by other tasks: a block that ends closes the state that it
    opened itself.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[_Entry[S]] = []

    @abstractmethod
    def _open(self, session: ActiveSession) -> S | None:
        """Open a state and attach its context; None where nothing is measured."""

    @abstractmethod
    def _yielded(self, state: S | None) -> Y:
        """Return what the block is given."""

    @abstractmethod
    def _close(self, state: S, exc: BaseException | None) -> None:
        """Detach the context of `state` and end it."""

    def __enter__(self) -> Y:
        session = active.session
        state: S | None = None if session is None else call_safely(self._open, session)
        self._entries.append(_Entry(get_current(), state))
        return self._yielded(state)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entries:
            here = get_current()
            entry = next((each for each in reversed(self._entries) if each.context is here), self._entries[-1])
            self._entries.remove(entry)
            if entry.state is not None:
                call_safely(self._close, entry.state, exc)

    async def __aenter__(self) -> Y:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
