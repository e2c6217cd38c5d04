"""`measure_latency_context`: measures a block of code."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from opentelemetry.context import get_current

from ..base.internal_errors import call_safely
from ..model.audio import checked_rate
from ..model.operation import OperationType
from .active_session import ActiveSession, active
from .measurement import Handle, Measurement, cached_operation_of, checked_metadata, checked_text, operation_of

__all__ = ["measure_latency_context"]

_NOOP_HANDLE: Final = Handle()
_NO_METADATA: Final[Mapping[str, Any]] = {}


class measure_latency_context:  # noqa: N801 - used as a verb, like contextlib.suppress
    """Measure a block, with ``with`` or ``async with``; yields a handle.

    ``handle.set_provider(name)`` names who answered, ``handle.set_metadata(key=value)`` adds facts, and
    ``handle.mark_first_output()`` marks the first output, ``handle.set_audio(duration_ms=...)`` says how long the audio
    lasts that was heard or spoken.

    Args:
        operation_type: an OperationType or its value; sets the thresholds.
        operation_name: keep it of low cardinality.
        provider: who answers.
        call_sid: the call; where None, the one bound by `call()`.
        stream_sid: the media stream; where None, the one bound by `call()`.
        metadata: facts for this run.
        audio_bytes_per_s: how many bytes one second of the audio has, such as 8000 for Twilio's mu-law, so that
            ``handle.set_audio(size_bytes=...)`` tells how long it lasts.

    Raises:
        TypeError, ValueError: for an unknown type or a wrong argument.

    """

    __slots__ = ("_call_sid", "_measurement", "_metadata", "_operation", "_session", "_stream_sid")

    _session: ActiveSession

    def __init__(
        self,
        operation_type: OperationType | str,
        operation_name: str,
        *,
        provider: str | None = None,
        call_sid: str | None = None,
        stream_sid: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        audio_bytes_per_s: float | None = None,
    ) -> None:
        rate = audio_bytes_per_s if audio_bytes_per_s is None else checked_rate(audio_bytes_per_s)
        try:
            self._operation = cached_operation_of(operation_type, operation_name, provider, rate)
        except TypeError:  # what cannot be looked up is no string either: this says which
            self._operation = operation_of(operation_type, operation_name, provider=provider)
        self._call_sid = call_sid if call_sid is None else checked_text("call_sid", call_sid)
        self._stream_sid = stream_sid if stream_sid is None else checked_text("stream_sid", stream_sid)
        self._metadata = metadata if metadata is None else checked_metadata(metadata)
        self._measurement: Measurement | None = None

    def __enter__(self) -> Handle:
        session = active.session
        if session is None:
            return _NOOP_HANDLE
        measurement: Measurement | None = call_safely(
            session.open, self._operation, None, self._call_sid, self._stream_sid, self._metadata or _NO_METADATA
        )
        if measurement is None:
            return _NOOP_HANDLE
        if self._measurement is not None:
            measurement.outer = self._measurement
        self._session, self._measurement = session, measurement
        return measurement

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        measurement = self._measurement
        if measurement is None:
            return
        if measurement.outer is None:
            self._measurement = None
        else:
            measurement = self._own(measurement)
        call_safely(self._session.close, measurement, exc)

    def _own(self, measurement: Measurement) -> Measurement:
        """The one that this task entered last; others entered the same object too."""
        chain = [measurement]
        while chain[-1].outer is not None:
            chain.append(chain[-1].outer)
        here = get_current()
        own = next((each for each in chain if each.context is here), measurement)
        chain.remove(own)
        for each, outer in zip(chain, [*chain[1:], None], strict=True):
            each.outer = outer
        self._measurement = chain[0]
        return own

    async def __aenter__(self) -> Handle:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
