"""Requests of httpx to the RAG API: those whose URL begins with what `instrument(rag_url=...)` was given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..config import ConfigError
from ..measuring.active_session import ActiveSession
from ..measuring.measurement import Measurement
from ..model.operation import OperationType
from ..runtime.lifecycle import effective_config
from . import checked_urls
from .base import ClientInstrumentor
from .measured_call import CallPlan, Planner, ReportedError, body_measured, measured, measured_async, operation
from .patching import Target

__all__ = ["RagInstrumentor"]


class RagInstrumentor(ClientInstrumentor):
    """`RagInstrumentor().instrument(rag_url=...)` measures every `Client` and `AsyncClient` of httpx.

    Without a `rag_url`, as `opentelemetry-instrument` calls it, the setting `LATENCY_RAG_URL` is taken; without
    either nothing is wrapped. A `rag_url` that is none, or a name of one that is empty or no text, is a ValueError.
    """

    requires: ClassVar[tuple[str, ...]] = ("httpx >= 0.27",)

    def _instrument(self, **kwargs: Any) -> None:
        urls = kwargs.get("rag_url") or _url_of_the_settings()
        self._urls: Mapping[str, str] = checked_urls(urls) if urls else {}
        if self._urls:
            super()._instrument()

    def targets(self) -> Iterable[Target]:
        import httpx

        # The longest first, so that the most particular name wins.
        urls = sorted(((httpx.URL(url), name) for name, url in self._urls.items()), key=_length, reverse=True)
        yield Target(httpx.Client, "send", measured(_planner(urls, is_awaited=False)))
        yield Target(httpx.AsyncClient, "send", measured_async(_planner(urls, is_awaited=True)))


def _url_of_the_settings() -> str | None:
    try:
        return effective_config().rag_url
    except ConfigError:
        # init() says what is wrong, in one line; tracking is off then.
        return None


def _length(named: tuple[Any, str]) -> int:
    return len(named[0].path)


def _planner(urls: Sequence[tuple[Any, str]], *, is_awaited: bool) -> Planner:
    def plan(_instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallPlan | None:
        request = args[0] if args else kwargs["request"]
        for base, name in urls:
            if _is_beneath(request.url, base):
                named = operation(OperationType.RAG, name, None, is_awaited=is_awaited)
                return CallPlan(named, {"method": request.method}, _on_result, _failure)
        return None

    return plan


def _is_beneath(url: Any, base: Any) -> bool:
    if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
        return False
    path: str = base.path
    return bool(url.path == path or url.path.startswith(path if path.endswith("/") else f"{path}/"))


def _on_result(session: ActiveSession, measurement: Measurement, response: Any) -> Any:
    measurement.set_metadata(http_status=response.status_code)
    return response if body_measured(session, measurement, response, _failure(response)) else None


def _failure(response: Any) -> BaseException | None:
    return None if response.is_success else ReportedError(f"HTTP {response.status_code}")
