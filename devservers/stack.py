"""The real servers on this machine without Docker, for `make stack` and for the tests.

    with Stack() as stack:
        os.environ.update(stack.environment())

Each server has free ports of loopback and a folder of its own; all are ended afterwards, whatever happens.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

import httpx
import yaml

from .processes import ServerProcess, free_ports
from .servers import SERVERS, TOOLS, MissingServerError, binary, obtain

__all__ = ["NAMES", "Stack", "command", "missing_servers", "until_told_to_end"]

ROOT: Final = Path(__file__).parents[1]
NAMES: Final = tuple(SERVERS)
DATABASE: Final = "latency"
USER: Final = "callbot"
OFTEN: Final = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"}


class Stack:
    """The servers named by `names`, all six unless given; started by ``with``, or `start()`.

    Args:
        names: of `NAMES`.
        folder: for configuration, data and logs; a temporary one, removed at the end, unless given.
        say: is told what is being done, a line each.
        slack_webhook_url: where Alertmanager sends alerts; they show in Alertmanager alone unless given.

    """

    def __init__(
        self,
        names: Iterable[str] = NAMES,
        *,
        folder: Path | None = None,
        say: Callable[[str], None] = print,
        slack_webhook_url: str | None = None,
    ) -> None:
        self._names = [name for name in NAMES if name in set(names)]
        self._is_temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="callbot-stack-"))
        self._say = say
        self._slack_webhook_url = slack_webhook_url
        self._password = secrets.token_hex(12)
        self._ports = free_ports(
            *("otlp_grpc", "otlp_http", "exporter", "health", "telemetry"),
            *("jaeger_grpc", "jaeger_http", "jaeger_query", "jaeger_query_grpc", "jaeger_health"),
            *("prometheus", "influxdb", "influxdb_rpc", "pushgateway", "alertmanager"),
        )
        self._servers: dict[str, ServerProcess] = {}

    # -- where things are -----------------------------------------------------------------------------------------

    def url(self, name: str) -> str:
        """Base address of ``otlp_grpc``, ``otlp_http``, ``exporter``, ``jaeger_query``, ``prometheus``, and so on."""
        return f"http://127.0.0.1:{self._ports[name]}"

    @property
    def influxdb_token(self) -> str:
        """What `/api/v2/write` takes as a token."""
        return f"{USER}:{self._password}"

    def environment(self) -> dict[str, str]:
        """The OTEL_* settings with which a process sends to this Collector."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url("otlp_grpc"),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            # Not below Prometheus' scrape interval: an exemplar lives for one export.
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }

    def log_ends(self, lines: int = 15) -> dict[str, str]:
        """The last lines of every server's log, by the log's path."""
        return {str(server.log): server.log_end(lines) for server in self._servers.values()}

    # -- starting and stopping ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                self.start(name)
        except BaseException as error:
            self.stop(keep_folder=isinstance(error, Exception))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(keep_folder=kind is not None and issubclass(kind, Exception))

    def start(self, name: str) -> None:
        """Start a server, or start it again with the same ports and data, and wait until it is ready.

        Raises:
            MissingServerError: it is not on this machine.
            StackError: it ended, or was not ready in time.

        """
        if name not in self._servers:
            self._servers[name] = self._blueprint(name)
        self._servers[name].start()
        self._say(f"{name} is ready at {self._servers[name].ready}")

    def kill(self, name: str) -> None:
        """End a server as a crash would, with SIGKILL."""
        self._servers[name].end(signal.SIGKILL)

    def stop(self, *, keep_folder: bool = False) -> None:
        """End every server, and remove the folder if it is a temporary one and nothing failed."""
        running = [server for server in reversed(self._servers.values()) if server.runs]
        for server in running:
            server.tell(signal.SIGTERM)
        for server in running:
            server.end()
        if self._is_temporary and not keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def running(self) -> list[str]:
        """Names of the servers that run."""
        return [name for name, server in self._servers.items() if server.runs]

    # -- the servers ----------------------------------------------------------------------------------------------

    def _at(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def _blueprint(self, name: str) -> ServerProcess:
        blueprints = {
            "collector": self._collector,
            "jaeger": self._jaeger,
            "prometheus": self._prometheus,
            "influxdb": self._influxdb,
            "pushgateway": self._pushgateway,
            "alertmanager": self._alertmanager,
        }
        return blueprints[name]()

    def _process(self, name: str, command: list[str], ready: str, **environment: str) -> ServerProcess:
        return ServerProcess(name, command, ready, self.folder / f"{name}.log", environment)

    def _collector(self) -> ServerProcess:
        environment = {
            "CALLBOT_OTLP_GRPC_ENDPOINT": self._at("otlp_grpc"),
            "CALLBOT_OTLP_HTTP_ENDPOINT": self._at("otlp_http"),
            "COLLECTOR_HEALTH_ENDPOINT": self._at("health"),
            "COLLECTOR_PROMETHEUS_ENDPOINT": self._at("exporter"),
            "COLLECTOR_STORAGE_DIR": str(self.folder / "collector"),
            "COLLECTOR_TELEMETRY_PORT": str(self._ports["telemetry"]),
            "JAEGER_OTLP_ENDPOINT": self._at("jaeger_grpc"),
            "INFLUXDB_URL": self.url("influxdb"),
            "INFLUXDB_BUCKET": f"{DATABASE}/autogen",
            "INFLUXDB_TOKEN": self.influxdb_token,
        }
        command = [str(binary("otelcol")), "--config", str(ROOT / "otel-collector.yaml")]
        return self._process("collector", command, self.url("health"), **environment)

    def _jaeger(self) -> ServerProcess:
        places = {
            "receivers.otlp.protocols.grpc.endpoint": self._at("jaeger_grpc"),
            "receivers.otlp.protocols.http.endpoint": self._at("jaeger_http"),
            "extensions.jaeger_query.http.endpoint": self._at("jaeger_query"),
            "extensions.jaeger_query.grpc.endpoint": self._at("jaeger_query_grpc"),
            "extensions.healthcheckv2.http.endpoint": self._at("jaeger_health"),
            "service.telemetry.metrics.level": "none",
        }
        command = [str(binary("jaeger")), "--config", str(ROOT / "deploy" / "jaeger.yaml")]
        command += [f"--set={key}={value}" for key, value in places.items()]
        ready = f"{self.url('jaeger_health')}/status"
        return self._process("jaeger", command, ready, CALLBOT_PROMETHEUS_URL=self.url("prometheus"))

    def _prometheus(self) -> ServerProcess:
        config = self.folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._prometheus_config()))
        command = [
            str(binary("prometheus")),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
            f"--web.listen-address={self._at('prometheus')}",
            f"--web.external-url={self.url('prometheus')}",
            "--enable-feature=exemplar-storage",
        ]
        return self._process("prometheus", command, f"{self.url('prometheus')}/-/ready")

    def _prometheus_config(self) -> dict[str, Any]:
        """The configuration of docker-compose.yml with this stack's addresses, and scrapes often enough to watch."""
        folder = ROOT / "deploy" / "prometheus"
        addresses = {
            "otel-collector:8889": self._at("exporter"),
            "otel-collector:8888": self._at("telemetry"),
            "pushgateway:9091": self._at("pushgateway"),
            "alertmanager:9093": self._at("alertmanager"),
            "localhost:9090": self._at("prometheus"),
        }
        config: dict[str, Any] = yaml.safe_load(_replaced((folder / "prometheus.yml").read_text(), addresses))
        config["global"] = {**config.get("global", {}), **OFTEN}
        for job in config["scrape_configs"]:
            job.pop("scrape_interval", None)
            job.pop("scrape_timeout", None)
        config["rule_files"] = [str(folder / "rules" / "*.yml")]
        return config

    def _influxdb(self) -> ServerProcess:
        data = self.folder / "influxdb"
        environment = {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_BIND_ADDRESS": self._at("influxdb_rpc"),
            "INFLUXDB_META_DIR": str(data / "meta"),
            "INFLUXDB_DATA_DIR": str(data / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(data / "wal"),
            "INFLUXDB_HTTP_BIND_ADDRESS": self._at("influxdb"),
            "INFLUXDB_HTTP_AUTH_ENABLED": "true",
            "INFLUXDB_HTTP_FLUX_ENABLED": "true",
            "INFLUXDB_HTTP_LOG_ENABLED": "false",  # it would log the password
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
        }
        command = [str(binary("influxd")), "run"]
        server = self._process("influxdb", command, f"{self.url('influxdb')}/health", **environment)
        server.after_start = self._prepare_influxdb
        return server

    def _prepare_influxdb(self) -> None:
        """Make the user and the database; after a restart they are there, and making them again is refused."""
        self.influxdb_query(f"CREATE USER {USER} WITH PASSWORD '{self._password}' WITH ALL PRIVILEGES")
        self.influxdb_query(f"CREATE DATABASE {DATABASE}")

    def influxdb_query(self, query: str) -> Any:
        """What InfluxDB answers to an InfluxQL statement, read from its JSON."""
        parameters = {"q": query, "db": DATABASE, "epoch": "ns"}
        answer = httpx.post(f"{self.url('influxdb')}/query", data=parameters, auth=(USER, self._password))
        answer.raise_for_status()
        return answer.json()

    def _pushgateway(self) -> ServerProcess:
        command = [str(binary("pushgateway")), f"--web.listen-address={self._at('pushgateway')}"]
        return self._process("pushgateway", command, f"{self.url('pushgateway')}/-/ready")

    def _alertmanager(self) -> ServerProcess:
        command = [
            str(binary("alertmanager")),
            f"--config.file={self._alertmanager_config()}",
            f"--web.listen-address={self._at('alertmanager')}",
            f"--storage.path={self.folder / 'alertmanager'}",
            "--cluster.listen-address=",
        ]
        return self._process("alertmanager", command, f"{self.url('alertmanager')}/-/ready")

    def _alertmanager_config(self) -> Path:
        """The configuration of docker-compose.yml, with the webhook's address in a file here, or nobody to tell."""
        folder = self.folder / "alertmanager-config"
        shutil.copytree(ROOT / "deploy" / "alertmanager", folder, dirs_exist_ok=True)
        secret, file = folder / "slack_webhook", folder / "alertmanager.yml"
        receiver = "slack" if self._slack_webhook_url else "nobody"
        by = {"/run/secrets/slack_webhook": str(secret), "  receiver: slack\n": f"  receiver: {receiver}\n"}
        file.write_text(_replaced(file.read_text(), by))
        secret.touch(mode=0o600)
        secret.write_text(self._slack_webhook_url or "")
        return file


def missing_servers(names: Iterable[str] = NAMES, *, say: Callable[[str], None] = print) -> dict[str, str]:
    """Get the servers, and return those that cannot be had, each with the reason."""
    missing = {}
    for name in names:
        try:
            obtain(name, say)
        except MissingServerError as reason:
            missing[name] = str(reason)
    return missing


def _replaced(text: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(old, new)
    return text


def until_told_to_end() -> None:
    """Wait for Ctrl-C or SIGTERM; blocked meanwhile, so that none slips in between a look and the wait."""
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    number = signal.sigwait(numbers)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    signal.raise_signal(number)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m devservers.stack`: start the servers, say where they are, and end them at Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m devservers.stack", description=main.__doc__)
    parser.add_argument("--servers", default=",".join(NAMES), help="comma-separated, of: %(default)s")
    parser.add_argument("--build-only", action="store_true", help="get the servers and what tests them, start none")
    parser.add_argument("--lenient", action="store_true", help="a server that cannot be had is said, and no failure")
    options = parser.parse_args(arguments)
    names = [name for part in options.servers.split(",") if (name := part.strip())]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"--servers: unknown {', '.join(unknown)}; expected some of {', '.join(NAMES)}")
    missing = missing_servers([*names, *TOOLS] if options.build_only else names, say=_say)
    for name, reason in missing.items():
        _say(f"MISSING {name}: {reason}")
    if missing:
        _say(f"What needs {', '.join(missing)} is not tested." if options.lenient else "Not every server can be had.")
    if options.build_only or missing:
        return 0 if options.build_only and (options.lenient or not missing) else 1
    with Stack(names, say=_say, slack_webhook_url=os.environ.get("SLACK_WEBHOOK_URL") or None) as stack:
        _say(f"\nLogs and data: {stack.folder}\nTo send here, set:")
        for name, value in stack.environment().items():
            _say(f"  export {name}={value}")
        _say("Ctrl-C ends the servers.")
        until_told_to_end()
    return 0


def command(act: Callable[[], int]) -> int:
    """Run a command that servers belong to: SIGTERM ends them as an error would, Ctrl-C quietly, with exit code 0."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        return act()
    except KeyboardInterrupt:
        print()
        return 0


if __name__ == "__main__":
    sys.exit(command(main))
