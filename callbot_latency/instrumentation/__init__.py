"""Ready-made measuring of the clients that a callbot uses, without touching its code."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .base import ClientInstrumentor

__all__ = ["instrument", "uninstrument"]

_INSTRUMENTORS: Final[Mapping[str, str]] = {
    "openai": "OpenAIInstrumentor",
    "google": "GoogleInstrumentor",
    "salesforce": "SalesforceInstrumentor",
    "rag": "RagInstrumentor",
}
"""By the name that `instrument()` knows, which is that of its module too."""


def instrument(*clients: str, rag_url: str | Mapping[str, str] | None = None) -> None:
    """Measure every call that these clients make from now on; those that are measured already stay so.

    Measuring itself is `init()`'s, which may come before or after. Either all that is named is wrapped or, after an
    error, nothing more than before.

    Args:
        clients: ``openai``, ``google`` (Speech and Text-to-Speech, whichever is installed), ``salesforce``.
        rag_url: requests of httpx whose URL begins with this are `rag_inference`; or several such, by the operation
            name of each, such as ``{"search": "https://rag.internal/search"}``.

    Raises:
        ImportError: a library is missing or too old, or the extra ``instrument`` is not installed; names the package
            and the version.
        ValueError: an unknown client, or a `rag_url` that is none.

    """
    named: list[tuple[ClientInstrumentor, dict[str, Any]]] = [(_instrumentor(name), {}) for name in _checked(clients)]
    if rag_url is not None:
        named.append((_instrumentor("rag"), {"rag_url": checked_urls(rag_url)}))
    for instrumentor, _ in named:
        instrumentor.check()
    for instrumentor, settings in named:
        if settings and instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(skip_dep_check=True, **settings)


def uninstrument(*clients: str) -> None:
    """Put the clients back exactly as they were: those named, with ``rag`` for httpx, or all.

    Raises:
        ValueError: an unknown client.

    """
    for name in _checked(clients, "rag") or _INSTRUMENTORS:
        # What was never loaded wraps nothing.
        if f"{__name__}.{name}" in sys.modules and _instrumentor(name).is_instrumented_by_opentelemetry:
            _instrumentor(name).uninstrument()


def _checked(clients: tuple[str, ...], *also: str) -> tuple[str, ...]:
    known = [name for name in _INSTRUMENTORS if name != "rag"] + list(also)
    for name in clients:
        if name not in known:
            raise ValueError(f"unknown client {name!r}: expected one of {', '.join(known)}")
    return clients


def checked_urls(rag_url: Any) -> dict[str, str]:
    """The URLs of `rag_url` by name.

    Raises:
        ValueError: no URL, or a name that is empty or no text.

    """
    urls = {"request": rag_url} if isinstance(rag_url, str) else rag_url
    if not isinstance(urls, Mapping) or not urls:
        raise ValueError(f"rag_url: expected a URL, or URLs by name, got {type(rag_url).__name__}")
    for name, url in urls.items():
        if not isinstance(name, str) or not name:
            raise ValueError("rag_url: expected a non-empty name for each URL")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError("rag_url: expected a URL that begins with http:// or https://")
    return dict(urls)


def _instrumentor(name: str) -> "ClientInstrumentor":
    try:
        module = import_module(f".{name}", __name__)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"opentelemetry", "wrapt"}:
            raise
        raise ImportError(
            "instrument: opentelemetry-instrumentation is not installed; "
            "install it with: pip install 'callbot-latency[instrument]'"
        ) from None
    instrumentor: ClientInstrumentor = getattr(module, _INSTRUMENTORS[name])()
    return instrumentor
