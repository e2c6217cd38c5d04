"""A bot, a webhook worker, a RAG service and a batch job that share a call_sid: one trace in the real Jaeger."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets

from callbot_latency.tracing.spans import CallIdGenerator
from devservers.stack import Stack
from tests.e2e.reading import Span, eventually, spans_of
from tests.support.subprocesses import clean_environment, command

KEY = "key of this test"

READY = """
init()

def serve_until_told(port):
    print(f"PORT {port}", flush=True)
    sys.stdin.read()
    assert shutdown(10)
"""

RAG = """
import asyncio, socket, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def search(request):
    with cl.bound_from_headers(request.headers):
        with measure_latency_context("rag_inference", "search", provider="index"):
            await asyncio.sleep(0.01)
    return JSONResponse({"text": "We open at eight."})

listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/search", search)]), log_level="warning"))
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
serve_until_told(listening.getsockname()[1])
"""

WEBHOOK = """
import urllib.parse, wsgiref.simple_server

def application(environ, respond):
    form = urllib.parse.parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
    (call_sid,) = form["CallSid"]
    if environ["PATH_INFO"] == "/voice":
        with cl.call(call_sid, joins=True, metadata={"webhook": "voice"}):
            with measure_latency_context("salesforce_api", "look_up", provider="salesforce"):
                time.sleep(0.01)
    else:
        with measure_latency_context("salesforce_api", "log_call", provider="salesforce", call_sid=call_sid):
            time.sleep(0.01)
    respond("204 No Content", [])
    return []

class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_): pass

server = wsgiref.simple_server.make_server("127.0.0.1", 0, application, handler_class=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
serve_until_told(server.server_port)
"""

BOT = """
import asyncio, httpx, requests, websockets
rag = sys.argv[1] + "/search"
session = cl.propagate(requests.Session())

def ask_by_requests():
    with measure_latency_context("rag_inference", "ask_by_requests", provider="rag-api"):
        return session.get(rag).json()["text"]

async def on_stream(websocket):
    start = json.loads(await websocket.recv())["start"]
    async with cl.call(start["callSid"], stream_sid=start["streamSid"]) as opened:
        async with cl.turn():
            with measure_latency_context("rag_inference", "ask_by_httpx", provider="rag-api"):
                first = (await client.get(rag)).json()["text"]
        async with cl.turn():
            second = await asyncio.to_thread(ask_by_requests)
        await websocket.send(json.dumps({"said": [first, second], "trace_id": opened.trace_id}))

async def main():
    global client
    async with cl.propagate(httpx.AsyncClient()) as client, websockets.serve(on_stream, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(serve_until_told, port)

asyncio.run(main())
"""

BATCH = """
for call_sid in sys.argv[1:]:
    with measure_latency_context("rag_inference", "summarise", call_sid=call_sid):
        pass
assert shutdown(10)
"""


@contextmanager
def serving(code: str, folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """A process that serves until the block is left, and then has sent everything; gives host and port."""
    with subprocess.Popen(
        [*command(READY + code), *arguments],
        cwd=folder,
        env=clean_environment(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("PORT "), (line, process.stderr and process.stderr.read())
            yield f"127.0.0.1:{line.split()[1]}"
        except BaseException:
            process.kill()
            raise
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors


async def stream(bot: str, call_sid: str) -> dict[str, Any]:
    """What Twilio does: opens the WebSocket and says which call it is."""
    async with websockets.connect(f"ws://{bot}/stream") as websocket:
        start = {"callSid": call_sid, "streamSid": call_sid.replace("CA", "MZ")}
        await websocket.send(json.dumps({"event": "start", "start": start}))
        answer: dict[str, Any] = json.loads(await websocket.recv())
        return answer


def hold_calls(stack: Stack, folder: Path, call_sids: list[str], more: Mapping[str, str]) -> dict[str, str]:
    """Each call through all four processes; gives the trace ids that the bot told."""
    traces = {}
    with ExitStack() as running:

        def start(name: str, code: str, *arguments: str, propagate_to: str = "") -> str:
            environment = {**stack.environment(), "LATENCY_TRACE_KEY": KEY, "OTEL_SERVICE_NAME": name, **more}
            own = folder / name
            own.mkdir(parents=True)
            return running.enter_context(
                serving(code, own, {**environment, "LATENCY_PROPAGATE_TO": propagate_to}, *arguments)
            )

        webhook, rag = start("webhook", WEBHOOK), start("rag", RAG)
        bot = start("bot", BOT, f"http://{rag}", propagate_to="127.0.0.1")
        for call_sid in call_sids:
            httpx.post(f"http://{webhook}/voice", data={"CallSid": call_sid}).raise_for_status()
            told = asyncio.run(stream(bot, call_sid))
            assert told["said"] == ["We open at eight."] * 2
            traces[call_sid] = told["trace_id"]
            httpx.post(f"http://{webhook}/status", data={"CallSid": call_sid}).raise_for_status()
        environment = {**stack.environment(), "LATENCY_TRACE_KEY": KEY, "OTEL_SERVICE_NAME": "batch", **more}
        done = subprocess.run(
            [*command("init()\n" + BATCH), *call_sids],
            cwd=folder,
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return traces


def new_sids(number: int) -> list[str]:
    return [f"CA{uuid.uuid4().hex}" for _ in range(number)]


TREE = sorted(
    [
        ("call", None),
        ("call part", "call"),  # the webhook worker, which knows the call_sid alone
        ("salesforce_api look_up", "call part"),
        ("salesforce_api log_call", "call"),
        ("turn", "call"),
        ("rag_inference ask_by_httpx", "turn"),
        ("call part", "rag_inference ask_by_httpx"),  # the RAG service
        ("rag_inference search", "call part"),
        ("turn", "call"),
        ("rag_inference ask_by_requests", "turn"),
        ("call part", "rag_inference ask_by_requests"),
        ("rag_inference search", "call part"),
        ("rag_inference summarise", "call"),  # the batch job
    ],
    key=str,
)


def tree(spans: list[Span]) -> list[tuple[str, str | None]]:
    """Each span's name with that of its parent; a parent that is not in the trace is an orphan, and fails."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "two spans have the same id"
    return sorted(((s.name, by_id[s.parent_id].name if s.parent_id else None) for s in spans), key=str)


def whole(stack: Stack, trace_id: str) -> list[Span]:
    """The spans of a trace, as soon as there are as many as there should be."""

    def found() -> list[Span]:
        spans = spans_of(stack, trace_id)
        assert len(spans) >= len(TREE), sorted(span.name for span in spans)
        return spans

    return eventually(found)


def test_four_processes_write_one_trace(stack: Stack, tmp_path: Path) -> None:
    """One root, every parent in the trace, no span id twice, and the call's ids with the turn on what belongs to it."""
    (call_sid,) = new_sids(1)
    trace_id = hold_calls(stack, tmp_path, [call_sid], {})[call_sid]
    spans = whole(stack, trace_id)
    assert tree(spans) == TREE
    ids = CallIdGenerator(KEY.encode())
    (root,) = (span for span in spans if not span.parent_id)
    assert int(root.trace_id, 16) == ids.trace_id_of(call_sid)
    assert int(root.span_id, 16) == ids.root_span_id_of(call_sid)
    assert {span.attributes["call_sid"] for span in spans} == {call_sid}
    by_id = {span.span_id: span for span in spans}
    for search in (span for span in spans if span.name == "rag_inference search"):
        part = by_id[search.parent_id]
        asked = by_id[part.parent_id]
        for span in (search, part, asked):
            assert span.attributes["stream_sid"] == call_sid.replace("CA", "MZ")
            assert int(span.attributes["turn"]) == (1 if asked.name.endswith("httpx") else 2)


def test_a_sampled_call_is_whole_and_another_is_nowhere(stack: Stack, tmp_path: Path) -> None:
    """Ratio 0.5 in four processes that agree on nothing: all spans of a call, or none."""
    sampling = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    ids, sids = CallIdGenerator(KEY.encode()), new_sids(40)
    by_decision = {
        decision: [sid for sid in sids if (ids.trace_id_of(sid) & (1 << 64) - 1 < 1 << 63) is decision][:4]
        for decision in (True, False)
    }
    call_sids = [*by_decision[True], *by_decision[False]]
    hold_calls(stack, tmp_path, call_sids, sampling)
    for sid in by_decision[True]:
        assert tree(whole(stack, format(ids.trace_id_of(sid), "032x"))) == TREE
    # The others would have come before: every process has ended, and sent all in one stream.
    for sid in by_decision[False]:
        assert spans_of(stack, format(ids.trace_id_of(sid), "032x")) == []
