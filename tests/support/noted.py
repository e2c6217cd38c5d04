"""When a test asked for each item of a stream, and when it had it."""

from bisect import bisect_left
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Noted:
    """When the test asked for each item of a stream and when it had it: how late the machine was stands in both.

    Attributes:
        began_s: when this was made, on the clock of perf_counter.

    """

    def __init__(self) -> None:
        self.began_s = perf_counter()
        self._asked_s: list[float] = []
        self._had_s: list[float] = []

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of which is noted."""
        asking = iter(items)
        while True:
            self._asked_s.append(perf_counter())
            try:
                item = next(asking)
            except StopIteration:
                return
            finally:
                self._had_s.append(perf_counter())
            yield item

    async def each_later(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """The same of an async stream."""
        asking = aiter(items)
        while True:
            self._asked_s.append(perf_counter())
            try:
                item = await anext(asking)
            except StopAsyncIteration:
                return
            finally:
                self._had_s.append(perf_counter())
            yield item

    def until_ms(self, number: int, since_s: float | None = None) -> float:
        """How long it took until the test had this item; -1: until it knew that there is none left."""
        return (self._had_s[number] - (self.began_s if since_s is None else since_s)) * 1_000

    def largest_gap_ms(self, sent_s: Sequence[float], reads_s: Sequence[float]) -> tuple[float, float]:
        """The least and the most that the largest gap may be: the first item follows none.

        Args:
            sent_s: when each item was sent.
            reads_s: when the stream read the clock, as it does before it waits for an item.

        """
        waits_s = list(zip(self._asked_s[:-1], self._had_s[:-1], sent_s, strict=False))[1:]
        least_s = max(sent_s - reads_s[bisect_left(reads_s, asked_s)] for asked_s, _, sent_s in waits_s)
        return least_s * 1_000 - 0.001, max(had_s - asked_s for asked_s, had_s, _ in waits_s) * 1_000
