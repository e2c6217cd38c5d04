"""The road to a server, which may be slow, swallow everything, or be cut."""

import asyncio
import threading
from contextlib import suppress

CHUNK = 1 << 16
SLOW_S = 0.4


class Road:
    """A TCP proxy before ``127.0.0.1:port``; its `mood` is ``well``, ``slow`` (0.4 s a piece), ``hung`` or ``cut``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.mood = "well"
        self._open: set[asyncio.StreamWriter] = set()
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="road", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._take, "127.0.0.1", 0)

    def turn(self, mood: str) -> None:
        """From now on it is like that; what is open is cut where it is cut."""
        self.mood = mood
        self._loop.call_soon_threadsafe(self._turned)

    def _turned(self) -> None:
        if self.mood == "hung":
            self._goes_on.clear()
        else:
            self._goes_on.set()
        if self.mood == "cut":
            self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mood == "cut":
            writer.transport.abort()
            return
        try:
            behind, beyond = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, beyond}
        with suppress(asyncio.CancelledError):
            await asyncio.gather(self._carry(reader, beyond), self._carry(behind, writer))
        self._open -= {writer, beyond}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.mood == "slow":
                    await asyncio.sleep(SLOW_S)
                await self._goes_on.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        """Cut it for good."""

        async def end() -> None:
            self._server.close()
            self._cut()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
