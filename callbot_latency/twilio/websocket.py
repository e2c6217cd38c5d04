"""A WebSocket of Starlette or FastAPI that feeds a media stream with what passes through it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

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


class _MeasuredWebSocket:
    def __init__(self, websocket: Any, stream: TwilioMediaStream) -> None:
        self._websocket = websocket
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._websocket, name)

    async def receive_json(self, *args: Any, **kwargs: Any) -> Any:
        return await self._received(self._websocket.receive_json, *args, **kwargs)

    async def receive_text(self) -> Any:
        return await self._received(self._websocket.receive_text)

    async def receive_bytes(self) -> Any:
        return await self._received(self._websocket.receive_bytes)

    async def _received(self, receive: Callable[..., Awaitable[R]], *args: Any, **kwargs: Any) -> R:
        try:
            message = await receive(*args, **kwargs)
        except Exception as error:
            if _is_disconnect(error):
                self._stream.closed()
            raise
        self._stream.on_message(cast("Any", message))
        return message

    async def receive(self) -> Any:
        event = await self._websocket.receive()
        if event.get("type") == "websocket.disconnect":
            self._stream.closed()
        elif event.get("type") == "websocket.receive":
            self._stream.on_message(event.get("text") or event.get("bytes") or b"")
        return event

    async def iter_json(self) -> AsyncIterator[Any]:
        async for message in self._until_disconnect(self.receive_json):
            yield message

    async def iter_text(self) -> AsyncIterator[str]:
        async for message in self._until_disconnect(self.receive_text):
            yield message

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        async for message in self._until_disconnect(self.receive_bytes):
            yield message

    async def _until_disconnect(self, receive: Callable[[], Awaitable[R]]) -> AsyncIterator[R]:
        while True:
            try:
                message = await receive()
            except Exception as error:
                if _is_disconnect(error):
                    return
                raise
            yield message

    async def send_json(self, data: Any, *args: Any, **kwargs: Any) -> None:
        self._stream.on_send(data)
        await self._websocket.send_json(data, *args, **kwargs)

    async def send_text(self, data: str) -> None:
        self._stream.on_send(data)
        await self._websocket.send_text(data)

    async def send_bytes(self, data: bytes) -> None:
        self._stream.on_send(data)
        await self._websocket.send_bytes(data)

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
