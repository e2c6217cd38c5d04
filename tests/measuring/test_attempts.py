"""Which provider answered: one after the other, at the same time, in tasks and in threads."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode, format_span_id

from callbot_latency import (
    LatencyConfig,
    LatencyMetric,
    OperationStatus,
    OperationType,
    attempt,
    bind,
    call,
    init,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    record,
    shutdown,
    turn,
)
from callbot_latency.base.internal_errors import RateLimiter
from callbot_latency.measuring import attempts
from callbot_latency.pipeline.instruments import running_by_type
from tests.conftest import FinishedSpans, Start, ticking

STT = OperationType.STT


def measured() -> tuple[LatencyMetric, list[LatencyMetric]]:
    """The one operation, and its attempts in their order."""
    metrics = list(latency_tracker.metrics)
    [operation] = [metric for metric in metrics if metric.attempt is None]
    return operation, sorted((m for m in metrics if m.attempt is not None), key=lambda m: m.attempt or 0)


class Elsewhere:
    """An attempt in a task of its own, as far as its context goes: begun and ended when the test says so."""

    def __init__(self, provider: str) -> None:
        self._context = copy_context()
        self._attempt = attempt(provider)
        self._context.run(self._attempt.__enter__)

    def end(self, exc: BaseException | None = None) -> None:
        self._context.run(self._attempt.__exit__, type(exc) if exc else None, exc, None)


class RateLimited(Exception):
    """A provider's refusal."""


# -- one after the other ----------------------------------------------------------------------------------------------


def test_the_one_that_answers_at_once_is_the_provider(measuring: LatencyConfig) -> None:
    """One attempt, no switch, nothing lost."""
    with measure_latency_context(STT, "transcribe"), attempt("google"):
        pass
    operation, [only] = measured()
    assert (operation.provider, operation.provider_requested, operation.attempts) == ("google", "google", 1)
    assert (operation.switch_reason, operation.lost_ms, operation.hedge_losers) == (None, None, None)
    assert (only.operation_name, only.provider, only.attempt, only.hedge) == ("transcribe.attempt", "google", 1, None)


@pytest.mark.parametrize(
    ("fault", "reason", "status"),
    [
        (TimeoutError("slow"), "timeout", OperationStatus.TIMEOUT),
        (RateLimited("429"), "tests.measuring.test_attempts.RateLimited", OperationStatus.ERROR),
        (asyncio.CancelledError(), "cancelled", OperationStatus.CANCELLED),
    ],
    ids=["timeout", "error", "cancelled"],
)
def test_a_fallback_tells_why_and_how_long(
    measuring: LatencyConfig, fault: BaseException, reason: str, status: OperationStatus
) -> None:
    """The operation is the second provider's; the first one's failure and time stand beside it."""
    with measure_latency_context(STT, "transcribe"):
        with pytest.raises(type(fault)) as raised, attempt("google"):
            threading.Event().wait(0.02)
            raise fault
        assert raised.value is fault
        with attempt("openai"):
            pass
    operation, [first, second] = measured()
    assert (operation.provider, operation.provider_requested, operation.attempts) == ("openai", "google", 2)
    assert (operation.status, operation.switch_reason) == (OperationStatus.SUCCESS, reason)
    assert operation.lost_ms is not None
    assert first.latency_ms <= operation.lost_ms <= operation.latency_ms
    assert (first.status, second.status) == (status, OperationStatus.SUCCESS)
    assert (first.hedge, second.hedge) == (None, None)


def test_an_answer_that_is_none_is_rejected(measuring: LatencyConfig) -> None:
    """The first provider did answer, so it stays a success; the operation is the second one's."""
    with measure_latency_context(STT, "transcribe"):
        with attempt("sphinx") as tried:
            tried.reject("empty")
        with attempt("google"):
            pass
    operation, [first, _] = measured()
    assert (operation.provider, operation.switch_reason, first.status) == ("google", "empty", OperationStatus.SUCCESS)


def test_what_was_rejected_is_nobodys_answer(measuring: LatencyConfig) -> None:
    """Two providers, no answer: the operation has no provider."""
    with measure_latency_context(STT, "transcribe"):
        for provider in ("sphinx", "google"):
            with attempt(provider) as tried:
                tried.reject()
    operation, _ = measured()
    assert (operation.provider, operation.switch_reason, operation.lost_ms) == (None, "rejected", None)


def test_one_provider_that_fails_is_named(measuring: LatencyConfig) -> None:
    """Where all attempts were one provider's, the failure is its own."""
    with pytest.raises(RateLimited), measure_latency_context(STT, "transcribe"):
        for _ in range(2):
            try:
                with attempt("google"):
                    raise RateLimited
            except RateLimited:
                pass
        raise RateLimited
    operation, tried = measured()
    assert (operation.provider, operation.attempts, operation.status) == ("google", 2, OperationStatus.ERROR)
    assert len(tried) == 2


def test_a_retry_with_the_same_provider(measuring: LatencyConfig) -> None:
    """Two attempts of one provider: no other was asked, and yet time was lost."""
    with measure_latency_context(STT, "transcribe"):
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("google"):
            pass
    operation, _ = measured()
    assert (operation.provider, operation.switch_reason) == ("google", "timeout")
    assert operation.lost_ms is not None


def test_two_steps_of_one_provider_are_no_switch(measuring: LatencyConfig) -> None:
    """Both answered, and are the same provider: nothing was lost."""
    with measure_latency_context(STT, "transcribe"):
        for _ in range(2):
            with attempt("google"):
                pass
    operation, _ = measured()
    assert (operation.provider, operation.attempts, operation.switch_reason, operation.lost_ms) == (
        "google",
        2,
        None,
        None,
    )


def test_the_code_may_know_better_who_answered(measuring: LatencyConfig) -> None:
    """A gateway that says whose answer it was: the attempt, and so the operation, is that provider's."""
    with measure_latency_context(STT, "transcribe"), attempt("gateway") as tried:
        tried.set_provider("azure")
        tried.set_metadata(model="latest")
        tried.mark_first_output()
    operation, [only] = measured()
    assert (operation.provider, operation.provider_requested, only.provider) == ("azure", "gateway", "azure")
    assert only.metadata == {"model": "latest"}
    assert only.time_to_first_output_ms is not None
    assert operation.time_to_first_output_ms is None


# -- at the same time -------------------------------------------------------------------------------------------------


def test_of_two_tasks_the_first_to_answer_wins(measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loser was cancelled; both are named."""
    asked, release, clock = asyncio.Event(), asyncio.Event(), ticking(monkeypatch)
    monkeypatch.setattr(attempts, "perf_counter_ns", clock)

    async def ask(provider: str, await_times: bool) -> str:
        async with attempt(provider):
            if await_times:
                asked.set()
                await release.wait()
            else:
                await asyncio.sleep(0)
        return provider

    @measure_latency(STT)
    async def transcribe() -> str:
        slow = asyncio.create_task(ask("google", True))
        await asked.wait()
        clock.passes(10)
        quick = asyncio.create_task(ask("openai", False))
        done, pending = await asyncio.wait({slow, quick}, return_when=FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return done.pop().result()

    assert asyncio.run(transcribe()) == "openai"
    operation, [loser, winner] = measured()
    assert (operation.provider, operation.provider_requested, operation.switch_reason) == ("openai", "google", "hedge")
    assert operation.hedge_losers == "google"
    assert operation.lost_ms == 10
    assert (loser.hedge, loser.status, loser.provider) == ("loser", OperationStatus.CANCELLED, "google")
    assert (winner.hedge, winner.status, winner.provider) == ("winner", OperationStatus.SUCCESS, "openai")


def test_a_loser_that_is_left_behind_is_cancelled(measuring: LatencyConfig) -> None:
    """The application takes the first of two threads and goes on; the other one ends long after, and counts once."""
    release, both = threading.Event(), threading.Barrier(2)

    def ask(provider: str) -> str:
        with attempt(provider):
            both.wait(60)
            if provider == "google":
                release.wait(100)
        return provider

    with ThreadPoolExecutor(2) as pool:
        with measure_latency_context(STT, "transcribe"):
            asked = [pool.submit(bind(ask), provider) for provider in ("google", "openai")]
            wait(asked, return_when=FIRST_COMPLETED)
        operation, tried = measured()
        release.set()
    loser, winner = sorted(tried, key=lambda metric: metric.provider or "")
    assert (operation.provider, operation.hedge_losers, operation.attempts) == ("openai", "google", 2)
    assert (loser.hedge, loser.status) == ("loser", OperationStatus.CANCELLED)
    assert loser.latency_ms <= operation.latency_ms
    assert winner.hedge == "winner"
    assert len(latency_tracker.metrics) == 3


def test_a_loser_whose_connection_is_closed_is_cancelled(measuring: LatencyConfig, spans: FinishedSpans) -> None:
    """An error after another one answered says nothing about the provider."""
    with measure_latency_context(STT, "transcribe"):
        slow = Elsewhere("google")
        with attempt("openai"):
            pass
        slow.end(ConnectionError("closed"))
    operation, [loser, _] = measured()
    assert (loser.status, loser.hedge, loser.error_message) == (OperationStatus.CANCELLED, "loser", "closed")
    assert (operation.provider, operation.switch_reason) == ("openai", "hedge")
    [span] = [span for span in spans() if (span.attributes or {}).get("hedge") == "loser"]
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["error.type"] == "ConnectionError"


def test_a_loser_that_answers_all_the_same_keeps_its_latency(measuring: LatencyConfig) -> None:
    """The operation waited for both: the loser's time is its provider's, and the first to answer stays the winner."""
    with measure_latency_context(STT, "transcribe"):
        slow = Elsewhere("google")
        with attempt("openai"):
            pass
        slow.end()
    operation, [loser, winner] = measured()
    assert (loser.status, loser.hedge, winner.hedge) == (OperationStatus.SUCCESS, "loser", "winner")
    assert operation.provider == "openai"


def test_the_requested_one_may_win(measuring: LatencyConfig) -> None:
    """The hedge was not needed: the provider is the one that was asked first, and nothing was lost."""
    with measure_latency_context(STT, "transcribe"):
        first, _ = Elsewhere("google"), Elsewhere("openai")
        first.end()
    operation, [winner, loser] = measured()
    assert (operation.provider, operation.switch_reason, operation.lost_ms) == ("google", None, None)
    assert operation.hedge_losers == "openai"
    assert (winner.hedge, loser.hedge, loser.status) == ("winner", "loser", OperationStatus.CANCELLED)


def test_a_hang_up_cancels_all_attempts(measuring: LatencyConfig) -> None:
    """Nobody answered: nobody won or lost."""
    with pytest.raises(asyncio.CancelledError), measure_latency_context(STT, "transcribe"):
        for provider in ("google", "openai"):
            Elsewhere(provider)
        raise asyncio.CancelledError
    operation, tried = measured()
    assert (operation.status, operation.provider, operation.attempts) == (OperationStatus.CANCELLED, None, 2)
    assert [(m.status, m.hedge) for m in tried] == [(OperationStatus.CANCELLED, None)] * 2


def test_two_hundred_hedges_in_threads_count_once_each(measuring: LatencyConfig) -> None:
    """Whoever ends an attempt, its block or the operation's end, each is told exactly once."""

    def ask(provider: str) -> None:
        with attempt(provider):
            pass

    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            with measure_latency_context(STT, "transcribe"):
                wait([pool.submit(bind(ask), name) for name in "abcd"], return_when=FIRST_COMPLETED)
    stats = latency_tracker.get_stats()
    assert stats["speech_to_text/transcribe"]["count"] == 200
    tried = [metric for metric in latency_tracker.metrics if metric.attempt is not None]
    assert len({metric.span_id for metric in tried}) == len(tried) <= 800


def test_of_threads_that_begin_at_once_the_first_may_be_counted_second(
    measuring: LatencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they change between an attempt's start and its number; no time was lost then, and all is told."""
    begin, has_started, may_count = attempts._Attempts.begin, threading.Event(), threading.Event()

    def held_up(self: Any, measurement: Any) -> Any:
        if measurement.provider == "google":
            has_started.set()
            assert may_count.wait(60)
        return begin(self, measurement)

    monkeypatch.setattr(attempts._Attempts, "begin", held_up)

    def ask_google() -> None:
        with attempt("google"):
            pass

    with measure_latency_context(STT, "transcribe"), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(bind(ask_google))
        assert has_started.wait(60)
        with attempt("openai") as tried:
            tried.reject("empty")
        may_count.set()
        asked.result(60)
    operation, tries = measured()
    assert [metric.provider for metric in tries] == ["openai", "google"]
    assert (operation.provider, operation.switch_reason, operation.lost_ms) == ("google", "empty", None)


# -- where ------------------------------------------------------------------------------------------------------------


def test_spans_lie_beneath_the_operation(measuring: LatencyConfig, spans: FinishedSpans) -> None:
    """Each attempt is a span of its own with its provider; what runs in it lies beneath it."""
    with call("CA1", stream_sid="MZ1"), measure_latency_context(STT, "transcribe"):
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"), measure_latency_context("rag_inference", "search"):
            pass
    by_name: dict[str, list[Any]] = {}
    for span in spans():
        by_name.setdefault(span.name, []).append(span)
    [operation] = by_name["speech_to_text transcribe"]
    first, second = by_name["speech_to_text transcribe.attempt"]
    [inner] = by_name["rag_inference search"]
    assert first.parent.span_id == second.parent.span_id == operation.context.span_id
    assert inner.parent.span_id == second.context.span_id
    assert dict(first.attributes) == {
        "operation_type": "speech_to_text",
        "operation_name": "transcribe.attempt",
        "provider": "google",
        "call_sid": "CA1",
        "stream_sid": "MZ1",
        "attempt": 1,
        "error.type": "TimeoutError",
        "status": "timeout",
    }
    said = {name: operation.attributes[name] for name in ("provider", "provider_requested", "attempts")}
    assert said == {"provider": "openai", "provider_requested": "google", "attempts": 2}
    assert operation.attributes["switch_reason"] == "timeout"
    assert operation.attributes["lost_ms"] > 0
    [metric] = [m for m in latency_tracker.metrics if m.provider == "google"]
    assert (metric.span_id, metric.call_sid) == (format_span_id(first.context.span_id), "CA1")


def test_an_attempt_belongs_to_the_innermost_operation(measuring: LatencyConfig) -> None:
    """An operation within an operation has attempts of its own."""
    outer, inner = measure_latency_context("rag_inference", "answer"), measure_latency_context(STT, "transcribe")
    with outer, attempt("house"), inner, attempt("google"):
        pass
    by_name = {metric.operation_name: metric for metric in latency_tracker.metrics}
    assert (by_name["answer"].provider, by_name["answer"].attempts) == ("house", 1)
    assert (by_name["transcribe"].provider, by_name["transcribe"].attempts) == ("google", 1)


def test_an_attempt_within_an_attempt_is_the_outer_ones(measuring: LatencyConfig) -> None:
    """A gateway that asks two providers: to the operation it is one attempt, and whoever answered is named."""
    with measure_latency_context(STT, "transcribe"), attempt("gateway"):
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"):
            pass
    outer, *_ = [m for m in latency_tracker.metrics if m.attempts == 2]
    [operation] = [m for m in latency_tracker.metrics if m.attempt is None]
    assert (outer.operation_name, outer.attempt, outer.switch_reason) == ("transcribe.attempt", 1, "timeout")
    assert (operation.attempts, operation.provider, operation.provider_requested) == (1, "openai", "gateway")


def test_attempts_inside_of_generators(measuring: LatencyConfig) -> None:
    """An attempt that is open between two items is the stream's; a stream that is broken off cancels it."""

    @measure_latency(OperationType.TTS)
    def speak() -> Iterator[int]:
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"):
            yield 1
            yield 2

    assert list(speak()) == [1, 2]
    operation, _ = measured()
    assert (operation.provider, operation.attempts, operation.items) == ("openai", 2, 2)

    latency_tracker.reset_stats()
    broken_off = speak()
    next(broken_off)
    broken_off.close()  # type: ignore[attr-defined]
    operation, [_, second] = measured()
    assert (operation.status, second.status) == (OperationStatus.CANCELLED, OperationStatus.CANCELLED)


def test_attempts_inside_of_async_generators(measuring: LatencyConfig) -> None:
    """The same where the stream is asynchronous."""

    @measure_latency(OperationType.TTS)
    async def speak() -> AsyncIterator[int]:
        async with attempt("openai") as tried:
            await asyncio.sleep(0)
            tried.mark_first_output()
            yield 1
            yield 2

    async def listen() -> list[int]:
        return [item async for item in speak()]

    assert asyncio.run(listen()) == [1, 2]
    operation, [only] = measured()
    assert (operation.provider, only.status) == ("openai", OperationStatus.SUCCESS)


def test_outside_of_an_operation_nothing_is_measured(
    measuring: LatencyConfig, spans: FinishedSpans, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No metric, no span; the log says so, at most once a minute."""
    monkeypatch.setattr(attempts, "_speak", RateLimiter())
    with caplog.at_level(logging.WARNING, "callbot_latency.attempts"):
        for _ in range(2):
            with attempt("google") as tried:
                tried.reject()
                tried.set_provider("openai")
                tried.mark_first_output()
    assert (list(latency_tracker.metrics), list(spans())) == ([], [])
    [said] = caplog.messages
    assert "attempt('google') is within no measured operation" in said


def test_once_the_operation_is_over_nothing_is_measured(measuring: LatencyConfig) -> None:
    """What a function left behind begins too late to be part of it."""
    started: list[Callable[[], None]] = []

    def late() -> None:
        with attempt("openai") as tried:
            tried.reject()

    with measure_latency_context(STT, "transcribe"), attempt("google"):
        started.append(bind(late))
    started[0]()
    operation, tried = measured()
    assert (operation.attempts, len(tried)) == (1, 1)


def test_exceptions_pass_unchanged_and_tracking_off_measures_nothing(start: Start) -> None:
    """The block runs as if bare, with the same exception, also before `init()` and after `shutdown()`."""
    for begin in (start, None):
        if begin is not None:
            begin(tracking_enabled=False)
        fault = RateLimited("429")
        with pytest.raises(RateLimited) as raised, measure_latency_context(STT, "transcribe"), attempt("google"):
            raise fault
        assert raised.value is fault
        shutdown()
    assert list(latency_tracker.metrics) == []


@pytest.mark.parametrize("given", ["", None, 3])
def test_a_provider_is_a_name(given: Any) -> None:
    """Anything else is refused where it stands."""
    with pytest.raises((TypeError, ValueError), match="provider"):
        attempt(given)


def test_one_object_may_be_entered_again(measuring: LatencyConfig) -> None:
    """Each entering is an attempt of its own."""
    google = attempt("google")
    with measure_latency_context(STT, "transcribe"):
        for _ in range(2):
            with google:
                pass
    assert measured()[0].attempts == 2


def test_unsampled_operations_count_the_same(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any span that records, the same metrics."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    start()
    with measure_latency_context(STT, "transcribe"):
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"):
            pass
    operation, tried = measured()
    assert (operation.provider, operation.switch_reason, len(tried)) == ("openai", "timeout", 2)


def test_an_attempt_says_how_long_its_audio_lasts(measuring: LatencyConfig) -> None:
    """By the operation's rate; the operation says its own."""
    with measure_latency_context(OperationType.TTS, "speak", audio_bytes_per_s=8000), attempt("google") as handle:
        handle.set_audio(size_bytes=4000)
    operation, [only] = measured()
    assert (only.bytes, only.audio_ms, only.attempt) == (4000, 500, 1)
    assert only.real_time_factor == only.latency_ms / 500
    assert (operation.bytes, operation.audio_ms) == (None, None)


# -- counted once -----------------------------------------------------------------------------------------------------


def test_attempts_breach_nothing_and_are_not_averaged(start: Start) -> None:
    """One slow operation is one breach and one latency of its type."""
    start(stt_warning_ms=1, stt_critical_ms=10_000)
    with measure_latency_context(STT, "transcribe"), attempt("google"):
        assert running_by_type()["speech_to_text"] == 1
        threading.Event().wait(0.01)
    operation, [only] = measured()
    assert operation.severity is not None
    assert only.severity is None
    assert latency_tracker.get_average_latency(STT) == operation.latency_ms
    record(LatencyMetric.from_dict({**only.to_dict(), "latency_ms": 9_999.0}))
    assert latency_tracker.get_recent_metrics(1)[0].severity is None


def test_percentiles_by_provider_mix_nothing(measuring: LatencyConfig) -> None:
    """`get_stats(by_provider=True)` has a key for each provider, and the shorter one where there is none."""
    for provider, latency_ms in (("google", 100.0), ("openai", 900.0), (None, 1.0)):
        record(LatencyMetric(STT, "transcribe", latency_ms, OperationStatus.SUCCESS, provider=provider))
    stats = latency_tracker.get_stats(STT, by_provider=True)
    assert {key: (row["count"], row["p95_ms"]) for key, row in stats.items()} == {
        "speech_to_text/transcribe/google": (1, 100.0),
        "speech_to_text/transcribe/openai": (1, 900.0),
        "speech_to_text/transcribe": (1, 1.0),
    }
    assert latency_tracker.get_stats()["speech_to_text/transcribe"]["count"] == 3
    latency_tracker.reset_stats()
    assert latency_tracker.get_stats(by_provider=True) == {}


def test_a_line_of_the_file_says_it_all(measuring: LatencyConfig) -> None:
    """The added keys stand in the JSONL, and read back equal."""
    with measure_latency_context(STT, "transcribe"):
        with pytest.raises(TimeoutError), attempt("google"):
            raise TimeoutError
        with attempt("openai"):
            pass
    operation, tried = measured()
    assert shutdown(60)
    lines = [line for line in Path(measuring.metrics_file_path).read_text().splitlines() if "transcribe" in line]
    read = [LatencyMetric.from_dict(json.loads(line)) for line in lines]
    assert read == [*tried, operation]
    init(measuring)


def test_prometheus_sums_over_operations_hold_no_attempt(measuring: LatencyConfig) -> None:
    """Attempts have an instrument of their own."""
    from prometheus_client import CollectorRegistry, generate_latest

    from callbot_latency.pipeline.prometheus_exposition import Counts

    counts = Counts(measuring.thresholds)
    with measure_latency_context(STT, "transcribe"), attempt("google"):
        pass
    for metric in latency_tracker.metrics:
        counts.count(metric)
    registry = CollectorRegistry()
    registry.register(counts)
    written = generate_latest(registry).decode()
    [count] = [line for line in written.splitlines() if line.startswith("callbot_operation_duration_seconds_count")]
    assert 'operation_name="transcribe"' in count
    [count] = [line for line in written.splitlines() if line.startswith("callbot_attempt_duration_seconds_count")]
    assert 'operation_name="transcribe.attempt"' in count


# -- within a turn ----------------------------------------------------------------------------------------------------


def test_a_turn_counts_an_operation_and_not_its_attempts(measuring: LatencyConfig) -> None:
    """Attempts know their turn; what runs inside of one is of the operation around both."""
    with call("CA1"), turn() as spoken:
        outer, within = measure_latency_context(STT, "transcribe"), measure_latency_context("rag_inference", "search")
        with outer, attempt("google"), within:
            pass
        added = [measurement.operation.name for measurement in spoken.operations]
        [inner] = [measurement for measurement in spoken.operations if measurement.operation.name == "search"]
    assert added == ["transcribe", "search"]
    assert inner.parent is not None
    assert inner.parent.operation.name == "transcribe"
    assert {metric.turn for metric in latency_tracker.metrics} == {1}
