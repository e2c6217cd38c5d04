"""A local Slack: an incoming webhook that ails, is busy, hangs and breaks off, and counts what it took."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.scripted_http import HANG, OK, RESET, Answer, Request, Server, webhook

_TAG = re.compile(r"load_(c\d+)")
_ANSWERS: dict[str, Answer | str] = {
    "well": OK,
    "busy": Answer(429, b"rate_limited", {"Retry-After": "1"}),
    "ails": Answer(500, b"server_error"),
    "refuses": Answer(403, b"action_prohibited"),
    "hung": HANG,
    "reset": RESET,
}


class Slack:
    """`taken` counts the messages that it answered with 200, by the process that they tell of."""

    def __init__(self) -> None:
        self.mood = "well"
        self.taken: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.server: Server

    def turn(self, mood: str) -> None:
        self.mood = mood

    def answer(self, request: Request) -> Answer | str:
        answer = _ANSWERS[self.mood]
        if answer is OK:
            tag = _TAG.search(json.dumps(request.json))
            with self._lock:
                self.taken[tag[1] if tag else "bot"] += 1
        return answer


@contextmanager
def running() -> Iterator[Slack]:
    slack = Slack()
    with webhook() as slack.server:
        slack.server._rest = slack.answer  # type: ignore[assignment]
        yield slack
