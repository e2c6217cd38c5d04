"""Counting what was dropped."""

import sys
import threading

from callbot_latency.base.drop_counters import Drops


def test_counts_by_reason() -> None:
    """Each reason has its own exact count; one that never occurred is absent."""
    drops = Drops()
    drops.add("queue_full")
    drops.add("invalid", 3)
    assert drops.by_reason() == {"queue_full": 1, "invalid": 3}
    assert drops.by_reason() == {"queue_full": 1, "invalid": 3}, "reading changes nothing"


def test_exact_under_threads_while_read() -> None:
    """Threads that add while another reads lose no count."""
    drops = Drops()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        adding = [threading.Thread(target=lambda: [drops.add("x") for _ in range(2000)]) for _ in range(8)]
        for thread in adding:
            thread.start()
        while any(thread.is_alive() for thread in adding):
            drops.by_reason()
        for thread in adding:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert drops.by_reason() == {"x": 16_000}


def test_forked_child_starts_from_nothing() -> None:
    """After a fork the child's counts are empty: the parent's are the parent's to tell."""
    drops = Drops()
    drops.add("x")
    drops.reset_after_fork()
    assert drops.by_reason() == {}
