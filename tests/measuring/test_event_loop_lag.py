"""What an event loop that is held up does to a response, and to what is said of the providers."""

import asyncio
import contextlib
import gc
import math
import re
import selectors
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import uvloop

from callbot_latency import (
    LatencyConfig,
    TurnMetric,
    call,
    latency_tracker,
    measure_latency,
    measure_latency_context,
    turn,
)
from callbot_latency.calls.critical_path import Interval, parts_of
from callbot_latency.measuring.event_loop_lag import MAX_WAITS, AwaitTimes, LoopLag, blocked_since, current_loop_lag
from tests.support.clock import Clock

R = TypeVar("R")

MS = 1_000_000
HELD_UP_S = 0.06


def times(*times_ms: tuple[float, float]) -> list[tuple[int, int]]:
    return [(round(began * MS), round(ended * MS)) for began, ended in times_ms]


@pytest.mark.parametrize(
    ("held_up", "at", "in_hand", "since"),
    [
        ([], 100, True, 100),
        ([(40, 99.5)], 100, False, 40),
        # The loop was free again for a while: what came then waited for nothing.
        ([(40, 95)], 100, True, 100),
        # In the same pass: only what had just begun to run waited for what ran before it.
        ([(40, 130)], 100, True, 40),
        ([(40, 130)], 100, False, 100),
        # Pass after pass without a pause, of which an answer waits for three at the most.
        ([(2, 20), (20, 40), (40, 60), (60, 80), (80, 99.9)], 100, True, 40),
        # A pause between two of them.
        ([(40, 60), (70, 99.9)], 100, True, 70),
        # What had not begun yet did not wait.
        ([(5, 99.9)], 100, True, 10),
        ([(5, 9)], 11, True, 11),
    ],
)
def test_what_happened_had_to_wait_since_the_loop_was_held_up(
    held_up: list[tuple[float, float]], at: float, in_hand: bool, since: float
) -> None:
    """Never since before it began itself."""
    assert blocked_since(times(*held_up), 10 * MS, at * MS, in_hand=in_hand) == round(since * MS)


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])


def run(main: Coroutine[Any, Any, R], new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> R:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


class Watcher:
    """Waits for a response."""


@LOOPS
def test_it_is_known_when_a_loop_was_held_up(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Of asyncio's and of uvloop's, while somebody watches, and once more when somebody watches again."""

    async def main() -> None:
        lag, watcher = current_loop_lag(), Watcher()
        assert lag is not None
        assert lag is current_loop_lag()
        for _ in range(2):
            lag.watch(watcher)
            await asyncio.sleep(0.01)
            before_ns = time.perf_counter_ns()
            hold_up()
            after_ns = time.perf_counter_ns()
            await asyncio.sleep(0.01)
            (began_ns, ended_ns), *_ = (held for held in lag.between(before_ns, after_ns) if held[1] >= after_ns)
            assert began_ns <= before_ns < after_ns <= ended_ns
            lag.leave(watcher)
            await asyncio.sleep(0.02)

    run(main(), new_loop)


def test_the_pass_that_runs_now_holds_up_too() -> None:
    """A bot may have done everything in one go."""

    async def main() -> None:
        lag, watcher = current_loop_lag(), Watcher()
        assert lag is not None
        lag.watch(watcher)
        before_ns = time.perf_counter_ns()
        hold_up()
        assert [ended > before_ns for _, ended in lag.between(before_ns, time.perf_counter_ns())] == [True]

    run(main())


def test_a_loop_that_nobody_watches_is_as_it_was() -> None:
    """A watcher that is forgotten is none."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        lag, watcher, forgotten = current_loop_lag(), Watcher(), Watcher()
        assert lag is not None
        lag.watch(watcher)
        lag.watch(forgotten)
        await asyncio.sleep(0)
        assert "select" in vars(loop._selector)
        lag.leave(watcher)
        del forgotten
        gc.collect()
        await asyncio.sleep(0)
        assert "select" not in vars(loop._selector)

    run(main())


def test_who_wrapped_the_selector_too_is_left_in_peace() -> None:
    """It is put back only where nobody did so since."""

    async def main() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        lag, watcher = current_loop_lag(), Watcher()
        assert lag is not None
        lag.watch(watcher)
        ours, theirs = selector.select, []

        def wrapped(timeout: float | None = None) -> Any:
            theirs.append(timeout)
            return ours(timeout)

        selector.select = wrapped
        lag.leave(watcher)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert selector.select is wrapped
        assert len(theirs) >= 2

    run(main())


def test_who_wrapped_the_selector_before_is_put_back() -> None:
    """And not the selector's own method."""

    async def main() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        own, theirs = selector.select, []

        def wrapped(timeout: float | None = None) -> Any:
            theirs.append(timeout)
            return own(timeout)

        selector.select = wrapped
        lag, watcher = current_loop_lag(), Watcher()
        assert lag is not None
        lag.watch(watcher)
        await asyncio.sleep(0)
        lag.leave(watcher)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert vars(selector)["select"] is wrapped
        assert theirs

    run(main())


class Waiting(selectors.DefaultSelector):
    """On its clock time passes while it waits, and at no other time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now_ns += math.ceil((timeout or 0) * 1e9)
        return super().select(0)


def test_where_somebody_puts_the_selector_back_it_is_timed_again_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no pass is taken for one that never ends."""
    clock = Clock()
    monkeypatch.setattr("callbot_latency.measuring.event_loop_lag.perf_counter_ns", clock)

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(Waiting(clock))
        loop.time = lambda: clock.now_ns / 1e9  # type: ignore[method-assign]
        return loop

    async def main() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        lag, watcher, another = current_loop_lag(), Watcher(), Watcher()
        assert lag is not None
        lag.watch(watcher)
        await asyncio.sleep(0)
        del selector.select
        lag.leave(watcher)
        await asyncio.sleep(0.05)
        lag.watch(another)
        began_ns = clock.now_ns
        await asyncio.sleep(0.05)
        assert clock.now_ns - began_ns >= 50 * MS
        assert lag.between(began_ns, clock.now_ns) == []
        free_ns = clock.now_ns
        clock.passes(60)
        await asyncio.sleep(0)
        assert lag.between(began_ns, clock.now_ns) == [(free_ns, free_ns + 60 * MS)]

    run(main(), new_loop)


def test_the_lag_of_a_loop_that_is_gone_is_forgotten() -> None:
    """Nothing of ours keeps a loop."""

    async def main() -> weakref.ref[LoopLag]:
        lag = current_loop_lag()
        assert lag is not None
        lag.watch(main)
        return weakref.ref(lag)

    kept = run(main())
    gc.collect()
    assert kept() is None
    assert current_loop_lag() is None


# -- stepping a coroutine ---------------------------------------------------------------------------------------------


def test_stepping_changes_nothing_of_what_a_coroutine_does() -> None:
    """Results, exceptions both ways, and cancellation; each wait is noted."""

    async def answers(value: int) -> int:
        await asyncio.sleep(0)
        try:
            await asyncio.sleep(0 if value else 600)
        except asyncio.CancelledError:
            raise LookupError("cancelled") from None
        if value < 0:
            raise ValueError(value)
        return value

    async def main() -> None:
        await_times = AwaitTimes()
        assert await await_times.trace(answers(5)) == 5
        assert len(await_times) == 2
        assert all(from_ns <= at_ns for from_ns, at_ns in await_times)
        with pytest.raises(ValueError, match="-1"):
            await await_times.trace(answers(-1))
        task = asyncio.create_task(_run(await_times.trace(answers(0))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(LookupError, match="cancelled"):
            await task

        @types.coroutine
        def old() -> Generator[Any, Any, str]:
            yield
            return "old"

        assert await await_times.trace(old()) == "old"
        with pytest.raises(TypeError, match="can't be (used in 'await'|awaited)"):
            await await_times.trace(5)  # type: ignore[arg-type]
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.set_result("there")
        assert await await_times.trace(future) == "there"

    run(main())


async def _run(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def test_closing_reaches_what_is_awaited_and_a_stop_of_its_own_is_an_error() -> None:
    """As with a bare `await`: a generator's end inside of a coroutine is no result."""
    closed = []

    async def waits_for_ever() -> None:
        try:
            await asyncio.sleep(600)
        except GeneratorExit:
            closed.append(True)
            raise

    async def stops() -> None:
        raise StopIteration("not a result")

    async def main() -> None:
        coroutine = _run(AwaitTimes().trace(waits_for_ever()))
        coroutine.send(None)
        coroutine.close()
        assert closed == [True]
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            await AwaitTimes().trace(stops())

    run(main())


def test_what_is_thrown_in_is_kept_alive_by_nobody() -> None:
    """A reference cycle would keep the caller's objects until the collector comes."""

    class Thrown(Exception):
        pass

    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> weakref.ref[Thrown]:
        coroutine = _run(AwaitTimes().trace(waits_for_ever()))
        coroutine.send(None)
        thrown = Thrown()
        kept = weakref.ref(thrown)
        with contextlib.suppress(Thrown):
            coroutine.throw(thrown)
        del thrown
        return kept

    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()


# -- in a turn --------------------------------------------------------------------------------------------------------


def hold_up() -> None:
    time.sleep(HELD_UP_S)


@measure_latency("speech_to_text")
async def on_the_loop() -> None:
    await asyncio.sleep(0)
    hold_up()


def holds_the_lock(lag: LoopLag) -> float:
    """For some 100 ms nobody else runs in this process: how long it was, in milliseconds. First the loop shall wait."""
    while lag._since_ns is not None:
        time.sleep(0.001)
    began_ns = time.perf_counter_ns()
    while time.perf_counter_ns() - began_ns < 100 * MS:
        re.fullmatch("(a+)+", "a" * 18 + "b")
    return (time.perf_counter_ns() - began_ns) / MS


def test_what_holds_the_loop_up_itself_keeps_its_time(measuring: LatencyConfig) -> None:
    """A recogniser that works on the loop's thread is slow itself."""

    async def main() -> None:
        with call("CA1"):
            async with turn() as current:
                current.speech_ended()
                await on_the_loop()
                current.audio_sent()
                current.playback_started()

    run(main())
    assert latency_tracker.get_turns()[-1].parts_ms["speech_to_text"] >= HELD_UP_S * 1000


def test_what_holds_pythons_lock_in_a_thread_keeps_its_time(measuring: LatencyConfig) -> None:
    """The loop does not run meanwhile, and is not what is waited for: it waits itself."""
    took_ms = 0.0

    @measure_latency("speech_to_text")
    async def in_a_thread() -> None:
        nonlocal took_ms
        lag = current_loop_lag()
        assert lag is not None
        took_ms = await asyncio.to_thread(holds_the_lock, lag)

    async def main() -> None:
        with call("CA1"):
            async with turn() as current:
                current.speech_ended()
                await in_a_thread()
                current.audio_sent()
                current.playback_started()

    run(main())
    assert latency_tracker.get_turns()[-1].parts_ms["speech_to_text"] >= took_ms / 2


def test_it_is_watched_only_until_the_answer_is_heard(measuring: LatencyConfig) -> None:
    """A turn lasts as long as the bot speaks, and there nobody waits."""

    async def main() -> None:
        lag = current_loop_lag()
        assert lag is not None
        with call("CA1"):
            async with turn() as current:
                current.speech_ended()
                assert lag.is_watched
                current.audio_sent()
                assert lag.is_watched
                current.playback_started()
                assert not lag.is_watched
            async with turn() as unheard:
                unheard.speech_ended()
                assert lag.is_watched
        assert not lag.is_watched

    run(main())


@dataclass
class Held:
    """A turn on a clock that is moved by hand, on a loop that was held up when the test says so."""

    clock: Clock
    lag: LoopLag

    def up(self, ms: float) -> None:
        free_ns = self.clock.now_ns
        self.clock.passes(ms)
        self.lag.note(free_ns, self.clock.now_ns)

    def told(self, work: Callable[["Held"], None]) -> TurnMetric:
        with turn() as current:
            current.speech_ended()
            current.loop_lag = self.lag
            work(self)
            current.audio_sent()
            self.clock.passes(20)
            current.playback_started()
        return latency_tracker.get_turns()[-1]


@pytest.fixture
def held(clock: Clock) -> Held:
    return Held(clock, LoopLag())


def test_what_waits_for_the_loop_is_no_part_of_a_provider(held: Held) -> None:
    """The answer came while the loop did something else: of a block it is known by when that ended."""

    def work(held: Held) -> None:
        with measure_latency_context("rag_inference", "ask") as run:
            run.await_times = AwaitTimes()  # type: ignore[attr-defined]
            held.clock.passes(50)
            held.up(30)

    told = held.told(work)
    assert told.parts_ms == {"rag_inference": 50, "twilio_buffer": 20, "loop_lag": 30}
    assert told.overlapped_ms == {}


def test_each_wait_of_a_coroutine_is_looked_at(held: Held) -> None:
    """What it does itself between two of them is its own, also where it holds up the loop by that."""

    def work(held: Held) -> None:
        with measure_latency_context("rag_inference", "ask") as run:
            began_ns = held.clock.now_ns
            held.clock.passes(50)
            held.up(30)
            first = began_ns, held.clock.now_ns
            held.up(40)
            second = held.clock.now_ns, held.clock.now_ns + 10 * MS
            held.clock.passes(10)
            run.await_times = AwaitTimes()
            run.await_times.extend([first, second])  # type: ignore[attr-defined]

    assert held.told(work).parts_ms == {"rag_inference": 100, "twilio_buffer": 20, "loop_lag": 30}


def test_of_many_waits_the_last_are_looked_at(held: Held) -> None:
    """The end of an operation is what is waited for."""

    async def main() -> None:
        await_times = AwaitTimes()

        async def waits_often() -> None:
            for _ in range(2 * MAX_WAITS):
                await asyncio.sleep(0)

        before_ns = time.perf_counter_ns()
        await await_times.trace(waits_often())
        assert len(await_times) == MAX_WAITS
        assert await_times[0][0] > before_ns
        assert await_times[-1][1] <= time.perf_counter_ns()

    run(main())


def test_an_operation_of_another_loop_waits_for_that(measuring: LatencyConfig) -> None:
    """What holds up the turn's loop is none of its business."""
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    seen: list[object] = []

    async def elsewhere() -> None:
        with measure_latency_context("rag_inference", "ask") as run:
            seen.append(run.await_times)  # type: ignore[attr-defined]

    async def main() -> None:
        with call("CA1"):
            async with turn():
                await elsewhere()
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere(), other))

    try:
        run(main())
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
    assert seen == [deque(), None]


def test_many_long_passes_cost_little(clock: Clock) -> None:
    """A turn on a loop that is never free is cut in a moment: by counting what is looked at, not by time."""
    looked = 0

    class Counted(tuple[int, int]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(place)

    late = [Counted((2 * at * MS, (2 * at + 1) * MS)) for at in range(8_000)]
    work = [Interval("stt", 2_000 * at * MS, (2_000 * at + 500) * MS) for at in range(8)]
    told = parts_of(0, 16_000 * MS, work, late)
    assert sum(told.on_path.values()) == 16_000 * MS
    assert looked < 20 * len(late)
    looked = 0
    assert blocked_since(late, 0, 15_999 * MS, in_hand=True) < 15_999 * MS
    assert looked < 100


def test_where_nothing_is_measured_the_loop_is_named_too(held: Held) -> None:
    """And the rest stays unattributed."""

    def work(held: Held) -> None:
        held.clock.passes(25)
        held.up(30)
        held.clock.passes(5)

    assert held.told(work).parts_ms == {"twilio_buffer": 20, "loop_lag": 30, "unattributed": 30}


def test_a_mark_that_waited_for_the_loop_is_not_twilios_delay(held: Held) -> None:
    """It was back while the loop did something else."""
    with turn() as current:
        current.speech_ended()
        current.loop_lag = held.lag
        current.audio_sent()
        held.clock.passes(20)
        held.up(30)
        current.playback_started()
    told = latency_tracker.get_turns()[-1]
    assert told.parts_ms == {"twilio_buffer": 20, "loop_lag": 30}
    assert told.response_ms == 50
