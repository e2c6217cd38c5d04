"""A map of the newest entries."""

from concurrent.futures import ThreadPoolExecutor

from callbot_latency.base.bounded import BoundedMap


def test_the_entries_that_were_put_last_are_kept() -> None:
    """A key that is put again is the newest; one that is only found keeps its place."""
    newest: BoundedMap[str, int] = BoundedMap(3)
    for value, key in enumerate("abca"):
        newest.put(key, value)
    assert newest.get_or_put("b", 9) == 1
    assert newest.get_or_put("d", 4) == 4
    assert list(newest.items()) == [("c", 2), ("a", 3), ("d", 4)]


def test_threads_agree_on_one_value_and_keep_the_bound() -> None:
    """Without a lock: each key gets the value of one thread, and there are never more entries than fit."""
    newest: BoundedMap[int, object] = BoundedMap(100)

    def put_all(_: int) -> list[object]:
        return [newest.get_or_put(key, object()) for key in range(90)]

    def overfill(offset: int) -> None:
        for key in range(10_000):
            newest.get_or_put(100 + 10_000 * offset + key, object())
            newest.put(key, object())

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(put_all, range(8))
        assert all(other == first for other in others)
        list(pool.map(overfill, range(8)))
    assert 90 < len(newest) <= 100
