"""`init()` and `shutdown()`: the wiring, and what happens in a forked child."""

import _thread
import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ..alerting import AlertPolicy
from ..alerting.callbacks import callbacks
from ..alerting.channel_test import running
from ..alerting.rules.engine import RuleEngine
from ..alerting.rules.file import load_rules
from ..alerting.rules.schema import Rule
from ..base.drop_counters import dropped, unmeasured
from ..base.internal_errors import call_safely
from ..base.phone_numbers import REDACT, PhoneNumbers
from ..base.scrubbing import custom_patterns
from ..config import ConfigError, LatencyConfig, load_config, load_otel_from_dotenv
from ..delivery.lane import Lane
from ..delivery.manager import report_manager
from ..delivery.protocols import Consumer
from ..interop.gen_ai import GenAISession
from ..measuring.active_session import active
from ..measuring.session import Session
from ..pipeline.deadlines import Deadlines, OnDeadline
from ..pipeline.histograms import Histograms
from ..pipeline.tracker import latency_tracker
from ..pipeline.worker import Pipeline
from ..reporters.from_config import reporters_of
from ..reporters.log import LogReporter
from ..semconv import LOGGER_RUNTIME, SCOPE
from ..tracing.headers import Hosts
from ..tracing.spans import SpanFactory
from .otel_providers import Providers, open_providers
from .process_exit import Exits
from .scrub_patterns import load_patterns

__all__ = ["ConfigError", "effective_config", "init", "init_for_auto_instrumentation", "shutdown"]

_log = logging.getLogger(LOGGER_RUNTIME)

EXIT_TIMEOUT_S: Final = 2.0
"""How long exit, SIGTERM and, unless told otherwise, `shutdown()` wait for files and servers."""
LONGEST_TIMEOUT_S: Final = 3_600.0
WORKER_SHARE: Final = 0.75
"""The most of this that the worker may take."""


class _Runtime:
    """What one `init()` made, until its `shutdown()`."""

    def __init__(self, config: LatencyConfig) -> None:
        self.config = config
        # What is wrong in a file of rules or about a reporter stops here, before anything is opened.
        rules = () if config.alert_rules_file is None else load_rules(config.alert_rules_file)
        patterns = () if config.scrub_patterns_file is None else load_patterns(config.scrub_patterns_file)
        self._from_environment = reporters_of(config)
        self.providers: Providers = open_providers(config)
        custom_patterns.patterns = patterns
        key = _hash_key(config.trace_key.get_secret_value().encode())
        phones = PhoneNumbers(key) if config.phone_numbers == "hashed" else REDACT
        self.pipeline = Pipeline(latency_tracker, self._reporters(rules), config.thresholds, phones=phones)
        spans = SpanFactory.on(self.providers.tracers, key)
        self.session = (GenAISession if config.gen_ai_names else Session)(spans, config.thresholds, self.pipeline)
        self.session.follows_foreign = config.foreign_spans
        self.session.phones = phones
        self.session.opened_calls = self.rules.opened_calls
        self.session.propagates_to = Hosts(config.propagate_to)
        self.on_deadline = OnDeadline()
        self.deadlines = Deadlines(
            self.session.open_measurements, config.thresholds, self.policy.in_flight, self.on_deadline.run
        )

    def _reporters(self, rules: Sequence[Rule]) -> list[Consumer]:
        config, meter = self.config, self.providers.meters.get_meter(SCOPE)
        # The application's own code runs on these two: what it instruments stays instrumented.
        lanes = [told := Lane("callbacks", callbacks, suppressed=False)]
        log = Lane("log", LogReporter(config.language), suppressed=False) if config.logging_enabled else None
        if log is not None:
            lanes.append(log)
        self.policy = AlertPolicy(
            config.thresholds,
            callbacks=told,
            channels=(report_manager,),
            log=log,
            cooldown_s=config.alert_cooldown_s,
            burst=config.alert_burst,
            trace_url=config.trace_url,
        )
        self.rules = RuleEngine(rules, self.policy, config.thresholds, language=config.language)
        consumers: list[Consumer] = [Histograms(meter, config.thresholds), self.policy]
        return [*consumers, *([self.rules] if rules else []), *lanes, report_manager]

    def start(self) -> None:
        self.providers.start()
        for reporter in self._from_environment:
            report_manager.add_from_environment(reporter)
        self.pipeline.start()
        self.deadlines.start()
        latency_tracker.connect(self.session, self.pipeline.drain, self.pipeline.discard)
        running.channels = self.policy.channels

    def close(self, timeout_s: float) -> bool:
        deadline_s = monotonic() + timeout_s
        running.channels = None
        latency_tracker.disconnect()
        self.deadlines.stop()
        self.on_deadline.begin_close(timeout_s)
        # A worker that cannot keep up with threads that go on measuring leaves the reporters their share.
        on_time = self.pipeline.end_worker(max(0.1, timeout_s * WORKER_SHARE))
        # Servers and reporters at the same time: one that hangs does not take the others' share.
        self.providers.begin_close()
        on_time &= self.pipeline.close_reporters(max(0.0, deadline_s - monotonic()))
        return self.providers.wait_closed(max(0.0, deadline_s - monotonic())) and on_time

    def restart_after_fork(self) -> None:
        # What runs in the parent ends in the parent.
        self.session.open_measurements.clear()
        for timeline in list(self.session.timelines):
            call_safely(timeline.restart_after_fork)
        self.on_deadline.restart_after_fork()
        self.deadlines.restart_after_fork()
        self.pipeline.restart_after_fork()

    def resume_after_fork(self) -> None:
        """In a forked child: start the threads, on one that nobody waits for."""
        # Not a threading.Thread, whose start waits until it runs.
        try:
            _thread.start_new_thread(self._start_threads, ())
        except RuntimeError:
            self._give_up()

    def _start_threads(self) -> None:
        if not self.pipeline.resume(self.deadlines.start, self.providers.start):
            call_safely(self._give_up)

    def _give_up(self) -> None:
        """No thread can be started: nobody would report what this process measures."""
        global _runtime
        self.pipeline.has_threads = False
        latency_tracker.disconnect()
        self.pipeline.end_worker(0.0)
        _log.error("no thread can be started in this forked process: callbot_latency measures nothing in it")
        if _runtime is self:  # `init()` may have made another meanwhile
            _runtime = None


def _hash_key(secret: bytes) -> bytes:
    """`secret` as a key of BLAKE2, which takes up to 64 bytes (RFC 7693); a longer one is hashed, as HMAC does."""
    return secret if len(secret) <= 64 else hashlib.blake2b(secret).digest()


_lifecycle = threading.Lock()
_runtime: _Runtime | None = None
_hooked = False


def init(config: LatencyConfig | None = None) -> None:
    """Start measuring, once, when the application starts; a second call does nothing until `shutdown()`.

    Uses the process's own TracerProvider and MeterProvider where they are set; else makes ours the global ones.
    Spans and metrics are sent where ``OTEL_*`` names an exporter or an OTLP endpoint, and nowhere else.

    Args:
        config: the settings; read from the environment and ``.env`` unless given.

    Raises:
        ConfigError: a setting is wrong; the message names the variable, what was expected and what was given.
        TypeError: `config` is none.

    """
    global _runtime
    with _lifecycle:
        if _runtime is not None:
            return
        if config is not None and not isinstance(config, LatencyConfig):
            raise TypeError(f"config: expected a LatencyConfig, got {type(config).__name__}")
        config = config or load_config()
        latency_tracker.refused = not config.tracking_enabled
        if not config.tracking_enabled:
            active.session = None
            return
        load_otel_from_dotenv()
        runtime = _Runtime(config)
        try:
            runtime.start()
        except BaseException:
            call_safely(runtime.close, EXIT_TIMEOUT_S)
            raise
        _runtime = runtime
        _hook()


def shutdown(timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Stop measuring: write and send what waits, and end what `init()` started, within `timeout_s` seconds.

    Providers that the application made stay as they are. `init()` may be called again.

    Returns:
        False when the time was too short, so that something was not delivered, or when a callback of ours calls it:
        then what waits is delivered after the callback has returned.

    Raises:
        ValueError: `timeout_s` is no number of seconds.

    """
    global _runtime
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:
        raise ValueError(f"timeout_s: expected seconds from 0, got {timeout_s!r}")
    timeout_s = min(timeout_s, LONGEST_TIMEOUT_S)
    lifecycle = _lifecycle  # a fork makes another for the child
    if not lifecycle.acquire(timeout=timeout_s):
        return False
    try:
        runtime, _runtime = _runtime, None
        return runtime is None or bool(call_safely(runtime.close, timeout_s))
    finally:
        lifecycle.release()


def init_for_auto_instrumentation() -> None:
    """What ``opentelemetry-instrument`` calls: a bad setting is one line in the log, and tracking stays off."""
    try:
        init()
    except Exception as error:  # noqa: BLE001 - what is raised here would end every other instrumentation too
        active.session = None
        _log.error("callbot_latency is off: %s", error)


def effective_config() -> LatencyConfig:
    """The settings of the running session, else those that `init()` would find."""
    runtime = _runtime
    return runtime.config if runtime else load_config()


def _hook() -> None:
    """After a fork, once a process; and at its end."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(
            before=_exits.block_signals, after_in_parent=_exits.unblock_signals, after_in_child=_after_fork_in_child
        )
    _exits.hook()


def _after_fork_in_child() -> None:
    runtime = _runtime
    try:
        _restart_after_fork(runtime)
    finally:
        # Not sooner, since the end of the process needs all of that; nor later, since threads inherit the mask.
        _exits.unblock_signals()
        if runtime is not None:
            call_safely(runtime.resume_after_fork)


def _restart_after_fork(runtime: _Runtime | None) -> None:
    global _lifecycle
    _lifecycle = threading.Lock()
    _exits.restart_after_fork()
    for each in (callbacks, latency_tracker):
        call_safely(each.restart_after_fork)
    dropped.reset_after_fork()
    unmeasured.reset_after_fork()
    if runtime is not None:
        call_safely(runtime.restart_after_fork)
    else:
        # Off, or amid an init() or a shutdown() of a thread that is not here: nobody goes on with what that has made.
        call_safely(latency_tracker.disconnect)
        call_safely(report_manager.restart_after_fork, running=False)


def _flush(timeout_s: float) -> None:
    runtime = _runtime
    if runtime is not None:
        runtime.pipeline.flush(timeout_s)


def _is_on() -> bool:
    return _runtime is not None or _lifecycle.locked()


_exits: Final = Exits(shutdown, _flush, _is_on)


class _EffectiveConfig:
    """`latency_config`: reads as the effective `LatencyConfig`, and may be imported before `init()`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(effective_config(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"latency_config.{name}: settings are read once; give init() a LatencyConfig({name}=...)")

    def __repr__(self) -> str:
        return repr(effective_config())


latency_config: Final = _EffectiveConfig()
