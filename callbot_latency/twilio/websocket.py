"""A WebSocket of Starlette or FastAPI that feeds a media stream with what passes through it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, cast

from .stream import TwilioMediaStream

__all__ = ["measured_websocket"]

W = TypeVar("W")
R = TypeVar("R")


def measured_websocket(websocket: W, stream: TwilioMediaStream) -> W:
    """`websocket`, to be used in its place: all passes through it unchanged, and `stream` is told of each message.

    Works with whatever has the methods of Starlette's `WebSocket`, of which FastAPI's is one.

    Args:
        websocket: the one that the handler was given, accepted or not.
        stream: is handed what comes and what is sent, and told when the WebSocket closes.

    """
    return cast("W", _MeasuredWebSocket(websocket, stream))


_RECEIVING: Final = frozenset({"receive_json", "receive_text", "receive_bytes"})
_SENDING: Final = frozenset({"send_json", "send_text", "send_bytes"})
_ITERATING: Final = {"iter_json": "receive_json", "iter_text": "receive_text", "iter_bytes": "receive_bytes"}


class _MeasuredWebSocket:
    def __init__(self, websocket: Any, stream: TwilioMediaStream) -> None:
        self._websocket = websocket
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name in _ITERATING:
            return partial(self._until_disconnect, getattr(self, _ITERATING[name]))
        method = getattr(self._websocket, name)
        if name in _RECEIVING:
            return partial(self._received, method)
        if name in _SENDING:
            return partial(self._sent, method)
        return method

    async def _received(self, receive: Callable[..., Awaitable[R]], *args: Any, **kwargs: Any) -> R:
        try:
            message = await receive(*args, **kwargs)
        except Exception as error:
            if _is_disconnect(error):
                self._stream.closed()
            raise
        self._stream.on_message(cast("Any", message))
        return message

    async def _sent(self, send: Callable[..., Awaitable[None]], data: Any, *args: Any, **kwargs: Any) -> None:
        self._stream.on_send(data)
        await send(data, *args, **kwargs)

    async def receive(self) -> Any:
        event = await self._websocket.receive()
        if event.get("type") == "websocket.disconnect":
            self._stream.closed()
        elif event.get("type") == "websocket.receive":
            self._stream.on_message(event.get("text") or event.get("bytes") or b"")
        return event

    async def _until_disconnect(self, receive: Callable[[], Awaitable[R]]) -> AsyncIterator[R]:
        while True:
            try:
                message = await receive()
            except Exception as error:
                if _is_disconnect(error):
                    return
                raise
            yield message

    async def send(self, message: Any) -> None:
        if message.get("type") == "websocket.send":
            self._stream.on_send(message.get("text") or message.get("bytes") or b"")
        await self._websocket.send(message)

    async def close(self, *args: Any, **kwargs: Any) -> None:
        try:
            await self._websocket.close(*args, **kwargs)
        finally:
            self._stream.closed()


def _is_disconnect(error: Exception) -> bool:
    # By its name: Starlette is none of our dependencies.
    return any(kind.__name__ == "WebSocketDisconnect" for kind in type(error).__mro__)
