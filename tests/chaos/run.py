"""A run: everything is started, goes wrong for so many seconds, is put right again, and judged."""

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from devservers.stack import DATABASE, Stack, missing_servers
from tests.chaos import slack as slack_
from tests.chaos.callers import Callers
from tests.chaos.control import Control
from tests.chaos.disk import SmallDisk
from tests.chaos.imp import Imp
from tests.chaos.judge import Evidence, Servers, findings, of_the_bot
from tests.chaos.plan import PROXIED, SERVERS, plan
from tests.chaos.process import BotProcess
from tests.chaos.proxy import Road
from tests.chaos.reading import exposed, lines_of, points
from tests.chaos.table import table

SERVICE = "chaos"
TOLD_EVERY_S = 5.0
SETTLE_S = 180.0
Say = Callable[[str], None]


class Run:
    """One run.

    Args:
        seed: of everything that goes wrong.
        seconds: for how long it does.
        say: is told how far it is, a line each.
        rate: measurements a second, besides those of the calls.
        lines: calls at once.
        protocol: of OTLP: ``grpc`` or ``http/protobuf``.

    """

    def __init__(
        self, seed: int, seconds: float, say: Say, *, rate: int = 500, lines: int = 4, protocol: str = "grpc"
    ) -> None:
        self.seed, self.seconds, self._say, self._protocol = seed, seconds, say, protocol
        self._rate, self._lines = rate, lines

    def judged(self) -> list[str]:
        """Do it; what breaks the law."""
        if missing := missing_servers(SERVERS):
            raise RuntimeError("\n".join(missing.values()))
        with ExitStack() as self._open:
            seen = self._evidence()
        broken = findings(seen)
        self._say(table(seen, self._imp.done))
        for finding in broken:
            self._say(f"BROKEN: {finding}")
        self._say("The law is broken." if broken else "The law holds.")
        return broken

    def _evidence(self) -> Evidence:
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="callbot-chaos-")))
        self._start(folder)
        with Control() as control:
            callers = Callers(f"ws://{self._bot.told('ready')}/media", self._lines)
            callers.start()
            self._imp.start()
            self._watch(callers)
            self._say("nothing more goes wrong; the last calls end, and what is still down comes back")
            callers.end()
            self._imp.wait()
            self._bot.tell("rest")
            self._bot.told("rests")
            self._say("everything is well again; waiting until everything is handed on")
            rested = self._settled()
            servers = self._servers(rested)
            bot = self._bot.end()
        lines = lines_of(self._file)
        return Evidence(rested, bot, _children(folder), callers.calls, lines, servers, control, self._imp.errors)

    # -- beginning ------------------------------------------------------------------------------------------------

    def _start(self, folder: Path) -> None:
        (folder / "stack").mkdir()
        self._stack = self._open.enter_context(Stack(SERVERS, folder=folder / "stack", say=lambda _: None))
        self._roads = {}
        otlp = "otlp_grpc" if self._protocol == "grpc" else "otlp_http"
        for name, endpoint in zip(PROXIED, (otlp, "influxdb", "pushgateway"), strict=True):
            self._roads[name] = Road(urlsplit(self._stack.url(endpoint)).port or 0)
            self._open.callback(self._roads[name].close)
        self._slack = self._open.enter_context(slack_.running())
        self._disk = SmallDisk(folder / "disk")
        self._open.callback(self._disk.close)
        self._say(f"the metrics file lies on {self._disk}")
        self._file = self._disk.folder / "metrics.jsonl"
        self._bot = BotProcess(folder, self._rate, self._settings())
        self._disk.tell = self._bot.tell
        self._open.callback(self._bot.close)
        events = plan(self.seed, self.seconds)
        self._imp = Imp(self._stack, self._roads, self._slack, self._disk, self._bot, events, self.seconds)
        self._open.callback(self._imp.close)

    def _settings(self) -> dict[str, str]:
        influxdb, pushgateway, collector = (
            f"http://127.0.0.1:{self._roads[name].port}" for name in ("influxdb", "pushgateway", "collector")
        )
        return {
            **self._stack.environment(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self._protocol,
            "OTEL_SERVICE_NAME": SERVICE,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "LATENCY_METRICS_FILE_PATH": str(self._file),
            "LATENCY_METRICS_FILE_MAX_MB": "2",
            "LATENCY_METRICS_FILE_BACKUPS": "10000",
            "INFLUXDB_URL": influxdb,
            "INFLUXDB_TOKEN": self._stack.influxdb_token,
            "INFLUXDB_ORG": "callbot",
            "INFLUXDB_BUCKET": f"{DATABASE}/autogen",
            "LATENCY_INFLUXDB_TIMEOUT_MS": "3000",
            "PROMETHEUS_PUSHGATEWAY_URL": pushgateway,
            "LATENCY_PUSHGATEWAY_JOB": SERVICE,
            "LATENCY_PUSHGATEWAY_INTERVAL_S": "1",
            "SLACK_WEBHOOK_URL": self._slack.server.url,
            "LATENCY_SLACK_SEVERITY": "warning",
            # Alerts, so that Slack has something to do.
            "LATENCY_STT_WARNING_MS": "2.5",
            "LATENCY_STT_CRITICAL_MS": "2.9",
            "LATENCY_ALERT_COOLDOWN_S": "1",
            "LATENCY_ALERT_BURST": "100000",
            "NO_PROXY": "127.0.0.1",
        }

    # -- meanwhile ------------------------------------------------------------------------------------------------

    def _watch(self, callers: Callers) -> None:
        """Tell how far it is until it is over."""
        began_s = time.monotonic()
        while (elapsed_s := time.monotonic() - began_s) < self.seconds:
            time.sleep(min(TOLD_EVERY_S, self.seconds - elapsed_s))
            progress = self._bot.progress
            pending = {name: n for name, n in progress.get("pending", {}).items() if n}
            self._say(
                f"{time.monotonic() - began_s:4.0f} s of {self.seconds:.0f}, {self._imp.done.total()} events, "
                f"{progress.get('measured', 0):,} measured, {len(callers.calls)} calls, pending {pending}, "
                f"dropped {progress.get('dropped', {})}; now {', '.join(map(str, list(self._imp.now.values())))}"
            )

    def _settled(self) -> dict[str, Any]:
        """The bot's account once nothing is pending any more."""
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            account = self._bot.account()
            pending = {name: status["pending"] for name, status in account["status"].items() if status["pending"]}
            if not pending or time.monotonic() > deadline_s:
                return account
            time.sleep(0.5)

    def _servers(self, rested: dict[str, Any]) -> Servers:
        """What they have; counts are pushed once a second, and must come to what was measured in time."""
        deadline_s = time.monotonic() + SETTLE_S
        group = f"{socket.gethostname()}:{rested['pid']}"
        while True:
            late = time.monotonic() > deadline_s
            try:
                collector = exposed(f"{self._stack.url('exporter')}/metrics", rested["instance"])
                pushed = exposed(f"{self._stack.url('pushgateway')}/metrics", group)
                there = Servers(points(self._stack), self._slack.taken, collector, pushed)
            except httpx.HTTPError:
                if late:
                    raise
            else:
                if late or not (of_the_bot(collector, rested) or of_the_bot(pushed, rested)):
                    return there
            time.sleep(0.5)


def _children(folder: Path) -> dict[str, dict[str, Any]]:
    told = {path.stem: json.loads(path.read_text() or '{"error": "nothing"}') for path in folder.glob("c*.json")}
    return told | {path.stem: {"error": path.read_text()} for path in folder.glob("c*.error")}


def say(text: str) -> None:
    """To whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
