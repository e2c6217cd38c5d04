"""Servers within this process, on free ports of the loopback interface."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from math import ceil

import uvicorn
from starlette.applications import Starlette


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave Ctrl-C to the program around: there are several servers, and one program."""
        yield


@asynccontextmanager
async def serving(app: Starlette, end_within_s: float = 3.0) -> AsyncGenerator[str, None]:
    """Serve `app` within the block; gives its address, such as ``127.0.0.1:50123``.

    What it is about at the end of the block has `end_within_s` to finish.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        timeout_graceful_shutdown=ceil(end_within_s),
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        # A connection that comes before the server is ready waits in the socket's backlog.
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield address
        finally:
            server.should_exit = True
            await running
