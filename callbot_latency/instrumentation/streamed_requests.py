"""A call whose requests are streamed too: audio to be transcribed, text to be spoken.

While the caller of the bot still speaks, or the sentence is still being written, nobody waits for the provider. So
what is transcribed is timed from the end of its audio, and what is spoken from its first text. The span shows the
whole stream.
"""

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

from ..base.internal_errors import call_safely
from ..measuring.active_session import ActiveSession, active
from ..measuring.measurement import Measurement, Operation
from ..measuring.returned_streams import ReturnedStream, StreamSpec, wrap_stream
from ..model.operation import OperationType
from .measured_call import Run, async_wrapper_of, is_suppressed, wrapper_of

__all__ = ["field_of", "measure_streamed_requests", "measure_streamed_requests_async", "texts_of"]

_END_OF_SPEECH: Final = frozenset({"END_OF_SINGLE_UTTERANCE", "SPEECH_ACTIVITY_END"})


class _Conversation(ReturnedStream):
    """The measurement of such a stream: its clock starts when the provider is waited for."""

    def __init__(self, session: ActiveSession, measurement: Measurement, spec: StreamSpec) -> None:
        super().__init__(session, measurement, spec)
        self._lock = threading.Lock()
        self._begun_ns: int | None = None
        self._asked_ns = measurement.start_ns
        self._busy_ns = 0
        self._hears = measurement.operation.type is OperationType.STT
        # Until the clock starts it is not late.
        self._open = session.open_measurements
        del self._open[measurement.key]

    def asked(self, request: Any) -> None:
        """Take note of a request that the client library takes."""
        self._asked_ns = perf_counter_ns()
        if _is_configuration(request):
            if (measurement := self._measurement) is not None:
                measurement.set_metadata(**_facts(request))
        elif not self._hears:
            self._begin(self._asked_ns, "first_text")

    def asked_all(self) -> None:
        """Take note of the end of the requests."""
        self._begin(perf_counter_ns(), "audio_end" if self._hears else "text_end")

    def _begin(self, now_ns: int, timed_from: str) -> None:
        with self._lock:
            measurement = self._measurement
            if self._begun_ns is not None or measurement is None:
                return
            measurement.start_wall_ns += now_ns - measurement.start_ns
            measurement.start_ns = self._begun_ns = now_ns
            measurement.set_metadata(timed_from=timed_from)
            self._open[measurement.key] = measurement

    def _produced(self, started_ns: int, item: Any) -> None:
        if self._hears and self._begun_ns is None and _ends_speech(item):
            call_safely(self._begin, perf_counter_ns(), "end_of_speech")
        if self._begun_ns is None:
            self._items += 1
        else:
            super()._produced(max(started_ns, self._begun_ns), item)

    def _ended(self, started_ns: int, exc: BaseException | None) -> None:
        call_safely(self._begin, self._asked_ns, "last_request")
        super()._ended(max(started_ns, self._begun_ns or 0), exc)

    def closed(self) -> None:
        self._begin(self._asked_ns, "last_request")
        super().closed()

    def failed(self, exc: BaseException) -> None:
        """End it where the call itself raises."""
        self._ended(perf_counter_ns(), exc)


def _is_configuration(request: Any) -> bool:
    return "streaming_config" in request


def _ends_speech(response: Any) -> bool:
    event = getattr(response, "speech_event_type", None)
    return getattr(event, "name", None) in _END_OF_SPEECH


def field_of(message: Any, *names: str) -> Any:
    """What stands in a request, which may be a message, a dictionary, or missing."""
    for name in names:
        message = message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)
    return message


def texts_of(**facts: Any) -> dict[str, str]:
    """Those facts that are texts and say something."""
    return {name: value for name, value in facts.items() if isinstance(value, str) and value}


def _facts(request: Any) -> dict[str, str]:
    streaming = field_of(request, "streaming_config")
    config, voice = field_of(streaming, "config"), field_of(streaming, "voice")
    language = field_of(config, "language_code") or field_of(voice, "language_code")
    return texts_of(model=field_of(config, "model"), voice=field_of(voice, "name"), language=language)


def _noted(requests: Iterable[Any], stream: _Conversation) -> Iterator[Any]:
    for request in requests:
        call_safely(stream.asked, request)
        yield request
    call_safely(stream.asked_all)


async def _noted_async(requests: Any, stream: _Conversation) -> AsyncIterator[Any]:
    async for request in requests:
        call_safely(stream.asked, request)
        yield request
    call_safely(stream.asked_all)


class _Call(Run):
    """One call whose requests are noted on their way to the client."""

    def __init__(self, stream: _Conversation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        requests = args[0] if args else kwargs.get("requests")
        if requests is not None:
            note = _noted_async if hasattr(requests, "__aiter__") else _noted
            requests = note(requests, stream)
        if args:
            args = (requests, *args[1:])
        elif requests is not None:
            kwargs = {**kwargs, "requests": requests}
        super().__init__(args, kwargs)
        self._stream = stream

    def __exit__(self, exc_type: Any, exc: BaseException | None, traceback: Any) -> None:
        if exc is not None:
            call_safely(self._stream.failed, exc)

    def finish(self, result: Any) -> Any:
        return wrap_stream(self._stream, result)


def _begin(
    named: Operation, spec: StreamSpec, _instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> _Call | None:
    session = None if is_suppressed() else active.session
    # Not attached: what the caller's own requests do while they are taken is no part of it.
    measurement: Measurement | None = None if session is None else session.start(named)
    if session is None or measurement is None:
        return None
    return _Call(_Conversation(session, measurement, spec), args, kwargs)


def measure_streamed_requests(named: Operation, spec: StreamSpec) -> Callable[..., Any]:
    """The wrapper, as wrapt calls it, of a method that takes `requests` and returns an iterator."""
    return wrapper_of(partial(_begin, named, spec))


def measure_streamed_requests_async(named: Operation, spec: StreamSpec) -> Callable[..., Any]:
    """The same of a method that returns an awaitable of an async iterator."""
    return async_wrapper_of(partial(_begin, named, spec))
