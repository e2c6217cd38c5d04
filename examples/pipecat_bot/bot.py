"""A bot on pipecat and Twilio Media Streams: ``uvicorn examples.pipecat_bot.bot:app --port 8080``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from callbot_latency import call, init, latency_tracker, shutdown
from callbot_latency.twilio import TwilioMediaStream, measured_websocket
from examples.pipecat_bot.engines import StubDetector, StubLLMService, StubSTTService, StubTTSService
from examples.pipecat_bot.turns import Marks, TurnObserver


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Measuring begins and ends with the server. An application's own TracerProvider is to be set before."""
    init()
    yield
    await asyncio.to_thread(shutdown)


app = FastAPI(lifespan=lifespan)


@app.post("/twiml")
async def twiml(request: Request) -> Response:
    """Twilio's webhook."""
    stream = f'<Stream url="wss://{request.url.netloc}/media" />'
    return Response(f"<Response><Connect>{stream}</Connect></Response>", media_type="text/xml")


@app.websocket("/media")
async def media(websocket: WebSocket) -> None:
    """Twilio's Media Stream: one call."""
    websocket = measured_websocket(websocket, stream := TwilioMediaStream())
    await websocket.accept()
    _, started = await parse_telephony_websocket(websocket)
    call_sid, stream_sid = started["call_id"], started["stream_id"]
    async with call(call_sid, stream_sid=stream_sid):
        serializer = TwilioFrameSerializer(stream_sid, params=TwilioFrameSerializer.InputParams(auto_hang_up=False))
        await converse(call_sid, websocket, serializer, stream)
    for told in latency_tracker.get_turns(call_sid):
        print(told.to_dict(), flush=True)


async def converse(
    call_sid: str, websocket: WebSocket, serializer: TwilioFrameSerializer, stream: TwilioMediaStream
) -> None:
    """Run pipecat until the caller hangs up."""
    transport = FastAPIWebsocketTransport(
        websocket, FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer)
    )
    turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.1)])
    context = LLMContext()
    user, assistant = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(vad_analyzer=StubDetector(), user_turn_strategies=turns)
    )
    pipeline = Pipeline(
        [
            transport.input(),
            StubSTTService(),
            user,
            StubLLMService(),
            StubTTSService(),
            Marks(stream),
            transport.output(),
            assistant,
        ]
    )
    observer = TurnObserver(stream)
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=8_000, audio_out_sample_rate=8_000, enable_metrics=True),
        enable_tracing=True,
        conversation_id=call_sid,
        observers=[observer],
        enable_rtvi=False,
    )

    @worker.turn_tracking_observer.event_handler("on_turn_started")
    async def number(_observer: Any, turn_number: int) -> None:
        observer.pipecat_turn = turn_number

    @transport.event_handler("on_client_connected")
    async def greet(_transport: Any, _client: Any) -> None:
        await worker.queue_frame(LLMRunFrame())

    @transport.event_handler("on_client_disconnected")
    async def hang_up(_transport: Any, _client: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
