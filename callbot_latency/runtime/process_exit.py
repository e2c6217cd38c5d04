"""The ways in which a process ends, each of which writes what waits before it goes."""

import _thread
import atexit
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import sleep
from types import FrameType
from typing import Any, Final

from ..base.concurrency import is_in_hub, is_patched
from ..base.internal_errors import call_safely

__all__ = ["Exits"]

SIGNAL_WAIT_S: Final = 0.25
"""How long the code that a signal interrupts, and an application's own handler, are kept waiting for the file."""


class Exits:
    """Where the end of the process is heard of: each is hooked once, and inherited by forked children.

    Args:
        shutdown: ends measuring; does nothing the second time.
        flush: writes what waits, within so many seconds, and goes on.
        is_on: whether there is anything to end, or somebody is about it.

    """

    def __init__(
        self, shutdown: Callable[[], object], flush: Callable[[float], object], is_on: Callable[[], bool]
    ) -> None:
        self.shutdown = shutdown
        self.flush = flush
        self.is_on = is_on
        self._hooked = False
        self._signals_hooked = False
        self._gunicorn_hooked = False
        self._ours: set[signal.Signals] = set()
        """The signals whose handler is ours."""
        self._held_back = threading.local()

    def hook(self) -> None:
        """Hook those that are not yet; signals in the main thread alone, as Python has it."""
        if not self._hooked:
            self._hooked = True
            atexit.register(self.shutdown)
            self._hook_multiprocessing()
            self._hook_celery()
            self._hook_gunicorn()
        if not self._signals_hooked and threading.current_thread() is threading.main_thread():
            self._signals_hooked = True
            self._hook_signals()

    def block_signals(self) -> None:
        """Before a fork, on its thread: Python forgets a signal that reaches a child which is not yet set up.

        Without our handler it would have ended the child.
        """
        self._held_back.numbers = self._ours - signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, self._held_back.numbers)

    def unblock_signals(self) -> None:
        """After it: what came meanwhile is delivered now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, getattr(self._held_back, "numbers", ()))

    def restart_after_fork(self) -> None:
        """In a forked child: gunicorn is loaded by now, also where its configuration called `init()`."""
        call_safely(self._hook_gunicorn)

    def _hook_multiprocessing(self) -> None:
        """A child leaves by os._exit, past atexit, but runs multiprocessing's own finalizers."""
        from multiprocessing import parent_process, util

        util.register_after_fork(self, lambda exits: util.Finalize(None, exits.shutdown, exitpriority=0))
        if parent_process() is not None:
            util.Finalize(None, self.shutdown, exitpriority=0)

    def _hook_celery(self) -> None:
        """A child of the prefork pool leaves by os._exit too, and has its own way to say so before."""
        signals = sys.modules.get("celery.signals")
        if signals is not None:
            signals.worker_process_shutdown.connect(self._end_celery_child, weak=False)

    def _end_celery_child(self, **_: object) -> None:
        call_safely(self.shutdown)

    def _hook_gunicorn(self) -> None:
        """With ``--preload`` each worker sets its own signal handlers after the fork, and then takes the application.

        Uvicorn's sets the default, and ends itself by the signal once it has served.
        """
        worker: Any = getattr(sys.modules.get("gunicorn.workers.base"), "Worker", None)
        load = getattr(worker, "load_wsgi", None)
        if load is None or self._gunicorn_hooked:
            return
        self._gunicorn_hooked = True

        @functools.wraps(load)
        def load_wsgi(self_: Any) -> None:
            load(self_)
            call_safely(self._hook_signals)

        worker.load_wsgi = load_wsgi

    def _hook_signals(self) -> None:
        """Without a handler a signal ends the process on the spot: what is queued would be lost.

        SIGINT is an exception to Python, which ends at its leisure, unless somebody has put back the default.
        """
        self._hook_signal(signal.SIGTERM)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            self._hook_signal(signal.SIGINT)

    def _hook_signal(self, hooked: signal.Signals) -> None:
        previous = signal.getsignal(hooked)
        if previous is signal.SIG_IGN or previous is None or isinstance(previous, _OnSignal):
            return
        signal.signal(hooked, _OnSignal(previous, self))
        self._ours.add(hooked)


class _OnSignal:
    """A handler: what waits is written, then what the process had in its place is done."""

    def __init__(self, previous: Callable[[int, FrameType | None], object] | int, exits: Exits) -> None:
        self._previous = previous
        self._exits = exits
        self._ended = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if callable(self._previous):
            self._flush()
            self._previous(number, frame)
        elif self._ended or not self._exits.is_on():
            self._do_the_default(number)
        else:
            # Elsewhere, since the code that the signal interrupted may hold a lock that the worker needs: unless all
            # is over at once, it goes on meanwhile. Not a threading.Thread, whose start takes a lock too.
            try:
                _thread.start_new_thread(self._end, (number,))
            except RuntimeError as refused:
                # Python 3.12 starts none once the interpreter ends: then the shutdown() of the exit is at work already.
                if "interpreter shutdown" not in str(refused):
                    self._flush()
                    self._do_the_default(number)
            if not is_in_hub():
                sleep(SIGNAL_WAIT_S)

    def _flush(self) -> None:
        if not is_in_hub():
            call_safely(self._exits.flush, SIGNAL_WAIT_S)

    def _do_the_default(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _end(self, number: int) -> None:
        call_safely(self._exits.shutdown)
        self._ended = True
        if is_patched():
            os.kill(os.getpid(), number)
        else:
            # To the thread that runs handlers, which this wakes wherever it waits.
            signal.pthread_kill(threading.main_thread().ident or 0, number)
