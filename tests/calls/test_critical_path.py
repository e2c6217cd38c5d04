"""Where the time of a response went."""

import pytest

from callbot_latency.calls.critical_path import Interval, Parts, parts_of


@pytest.mark.parametrize(
    ("intervals", "on_path", "overlapped"),
    [
        ([], {"unattributed": 10}, {}),
        ([("stt", 0, 4), ("rag", 4, 10)], {"stt": 4, "rag": 6}, {}),
        ([("stt", 1, 4), ("rag", 6, 9)], {"stt": 3, "rag": 3, "unattributed": 4}, {}),
        # Looked up at the same time: the slower one is what was waited for.
        ([("salesforce", 0, 4), ("rag", 0, 8), ("tts", 8, 10)], {"rag": 8, "tts": 2}, {"salesforce": 4}),
        # A pipeline: each until the next one began.
        ([("stt", 0, 6), ("rag", 2, 10)], {"stt": 2, "rag": 8}, {"stt": 4}),
        # What runs on afterwards, and what began before.
        ([("stt", -5, 3), ("tts", 3, 99)], {"stt": 3, "tts": 7}, {}),
        # Of no length, or the wrong way round: nothing.
        ([("stt", 3, 3), ("rag", 8, 2)], {"unattributed": 10}, {}),
    ],
)
def test_the_critical_path_gets_the_time(
    intervals: list[tuple[str, int, int]], on_path: dict[str, int], overlapped: dict[str, int]
) -> None:
    """The rest is shown as overlapped."""
    assert parts_of(0, 10, [Interval(*interval) for interval in intervals]) == Parts(on_path, overlapped)


def test_a_parent_keeps_what_its_children_do_not_cover() -> None:
    """The answer as a whole is measured too: it does not swallow what it waited for."""
    answer = Interval("answer", 0, 10)
    rag, crm = Interval("rag", 2, 5, answer), Interval("crm", 5, 9, answer)
    http = Interval("http", 3, 4, rag)
    told = parts_of(0, 10, [answer, rag, crm, http])
    assert told == Parts({"answer": 3, "rag": 2, "http": 1, "crm": 4})


def test_who_waits_for_its_own_child_overlaps_with_nothing() -> None:
    """Beside the path is only what worked there."""
    slow = Interval("rag", 0, 10)
    looked_up = Interval("answer", 0, 6)
    asked = Interval("crm", 1, 5, looked_up)
    assert parts_of(0, 10, [slow, looked_up, asked]) == Parts({"rag": 10}, {"answer": 2, "crm": 4})


def test_where_the_loop_was_held_up_is_lag_of_who_waited_for_it_and_of_nobody_else() -> None:
    """The event loop was held up also while the recogniser worked, which waited for it only at its end."""
    worked = [Interval("stt", 2, 6, held_up=[(5, 6)])]
    assert parts_of(0, 10, worked, [(0, 3), (5, 6), (7, 8)]) == Parts({"unattributed": 3, "loop_lag": 4, "stt": 3})


def test_no_response_has_no_parts() -> None:
    """Of no length."""
    assert parts_of(5, 5, [Interval("stt", 0, 10)]) == Parts()
