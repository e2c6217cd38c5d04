"""The bot for calls that Twilio makes: ``python -m examples.callbot.serve --port 8080``.

Let Twilio's number ask ``https://<your host>/twiml`` when a call comes in; it is told to stream the call to ``/media``.
"""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import parse_qs
from xml.sax.saxutils import quoteattr  # nosec B406 # it writes, and parses nothing

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from callbot_latency import ConfigError, configure_logging, init, shutdown

from .bot import Line, Services, media_stream_route
from .run import services_running

_log = logging.getLogger(__name__)


async def twiml(request: Request) -> Response:
    """What Twilio shall do with a call: stream it here, and tell who calls."""
    sent = parse_qs((await request.body()).decode())
    phone = sent.get("From", [""])[0]
    host = request.headers.get("host", request.url.netloc)
    scheme = "ws" if host.split(":")[0] in {"localhost", "127.0.0.1"} else "wss"
    stream = f"<Stream url={quoteattr(f'{scheme}://{host}/media')}>"
    parameter = f'<Parameter name="from" value={quoteattr(phone)}/>'
    text = f'<?xml version="1.0" encoding="UTF-8"?><Response><Connect>{stream}{parameter}</Stream></Connect></Response>'
    return Response(text, media_type="text/xml")


async def health(_request: Request) -> Response:
    """Whether the server runs."""
    return PlainTextResponse("ok")


def app(services: Services) -> Starlette:
    """The webhook and the media stream."""
    routes = [Route("/twiml", twiml, methods=["GET", "POST"]), Route("/health", health), media_stream_route(services)]
    return Starlette(routes=routes)


def _log_line(line: Line) -> None:
    # Who said something, and not what: a transcript is the caller's own.
    _log.info("%s spoke, %d characters", line.speaker, len(line.text))


async def _serve(host: str, port: int) -> None:
    async with services_running(_log_line) as services:
        # No access log: addresses of the Salesforce API hold telephone numbers.
        config = uvicorn.Config(
            app(services),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            timeout_graceful_shutdown=5,
        )
        # What is loaded by now stays: Python's garbage collector, which stops every call while it looks through all
        # there is, need not look through that.
        gc.freeze()
        await uvicorn.Server(config).serve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.callbot.serve", description="The bot for Twilio's calls.")
    every = "0.0.0.0"  # nosec B104 # Twilio comes from outside
    parser.add_argument("--host", default=every, help="address to listen on (default: every one)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: 8080)")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        init()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_serve(options.host, options.port))
    finally:
        shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
