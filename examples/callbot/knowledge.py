"""The RAG API: a knowledge base in SQLite's full-text search, its HTTP server, and the bot's measured client."""

import asyncio
import json
import re
import sqlite3
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from callbot_latency import OperationType, measure_latency

_ARTICLES: Final = Path(__file__).with_name("articles.json")
# Words that say nothing of what a question is about.
_STOP_WORDS: Final = frozenset(
    re.findall(
        "[a-z]+",
        """a am an and are as at be but by can could did do does for from get had has have he how i if in is it just
        like me much my no not of on or our please really she so that the their then there they this to up us very
        want was we were what when where which will with would you your""",
    )
)


@dataclass(frozen=True, slots=True)
class Inference:
    """What the knowledge base answers; `action` names what the bot must do besides speaking."""

    title: str
    answer: str
    action: str | None = None


class KnowledgeBase:
    """Articles, found by the words of a question. It may be asked from any thread."""

    def __init__(self, articles: Path = _ARTICLES) -> None:
        self._lock = threading.Lock()
        self._articles = json.loads(articles.read_text(encoding="utf-8"))
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE article USING fts5(title, questions, answer, action UNINDEXED, tokenize='porter')"
        )
        self._database.executemany(
            "INSERT INTO article VALUES (?, ?, ?, ?)",
            [(a["title"], " . ".join(a["questions"]), a["answer"], a.get("action")) for a in self._articles],
        )

    def questions(self) -> list[str]:
        """Every question the articles were written for."""
        return [question for article in self._articles for question in article["questions"]]

    def search(self, question: str) -> Inference | None:
        """The article that fits best, or None where no word of the question leads to one."""
        words = [word for word in re.findall(r"[a-z]+", question.lower()) if word not in _STOP_WORDS]
        if not words:
            return None
        # Words of the answer do not count: they say what an article tells, not what it is asked for.
        query = "{title questions} : (" + " OR ".join(f'"{word}"' for word in words) + ")"
        with self._lock:
            row = self._database.execute(
                "SELECT title, answer, action FROM article WHERE article MATCH ? ORDER BY bm25(article, 4, 2) LIMIT 1",
                (query,),
            ).fetchone()
        return Inference(*row) if row else None

    def close(self) -> None:
        """Give the database back."""
        self._database.close()


def knowledge_app(knowledge: KnowledgeBase, slow_s: float = 0.0) -> Starlette:
    """The RAG API: ``POST /infer`` with ``{"question": ...}`` gives an `Inference`, or status 404.

    Args:
        knowledge: where it looks.
        slow_s: how much longer it takes than that, in seconds.

    """

    async def infer(request: Request) -> Response:
        question = (await request.json())["question"]
        await asyncio.sleep(slow_s)
        found = await asyncio.to_thread(knowledge.search, question)
        return JSONResponse(asdict(found)) if found else JSONResponse({"error": "nothing found"}, status_code=404)

    return Starlette(routes=[Route("/infer", infer, methods=["POST"])])


class KnowledgeClient:
    """The bot's side of the RAG API."""

    def __init__(self, url: str, timeout_s: float = 15.0) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=timeout_s)

    @measure_latency(OperationType.RAG, provider="sqlite-fts5")
    async def infer(self, question: str) -> Inference | None:
        """The answer to `question`, or None where the knowledge base has none."""
        response = await self._client.post("/infer", json={"question": question})
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        return Inference(**response.raise_for_status().json())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
