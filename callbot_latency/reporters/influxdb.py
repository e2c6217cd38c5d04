"""To InfluxDB, for teams without a Collector: one point a measurement, and one a turn."""

import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NamedTuple

from ..base.pacing import yielding
from ..delivery.errors import PermanentError, TransientError
from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric
from ..semconv import LOGGER_INFLUXDB
from .http import HttpStatusError, address_of
from .http_client import HttpClient
from .influxdb_points import LineWriter

__all__ = ["InfluxDBReporter"]

NAME: Final = "influxdb"
MAX_ATTEMPTS: Final = 100
"""After so many requests for one batch, what is refused is not divided any more."""
_DIVISIBLE: Final = frozenset({400, 413, 422})
_PARTIAL: Final = re.compile(r"partial write:.*\bdropped=(\d{1,9})(?!\d)", re.DOTALL)

_Line = tuple[LatencyMetric | TurnMetric, bytes | None]
"""What was to be written, and as what; None where InfluxDB cannot hold it."""

_log = logging.getLogger(LOGGER_INFLUXDB)


class InfluxDBReporter:
    """Writes each measurement and each turn as a point by InfluxDB's 2.x API, compressed, to the nanosecond.

    A batch is one request and one attempt. Writing it again overwrites the same points: the lines of a batch that has
    not arrived are kept until it is handed over again. Of a batch that InfluxDB refuses, only the points that it really
    refused are lost: it says how many, or the batch is divided until they are found. docs/metrics.md has the schema.

    Attributes:
        target: address, organisation and bucket: what is written there twice is there once.

    Args:
        influxdb_url: such as ``http://localhost:8086``.
        token: that may write to the bucket; never shown. For InfluxDB 1.8: ``user:password``.
        org: organisation; InfluxDB 1.8 does not look at it.
        bucket: such as ``latency``; for InfluxDB 1.8: ``database/retention-policy``.
        timeout_ms: how long one request may take, in milliseconds.

    Raises:
        ModuleNotFoundError: influxdb-client is not installed; the message names the extra.
        ValueError: an argument is not what it should be; the message names it and shows no secret.

    """

    name: ClassVar[str] = NAME
    batch_size: int = 1_000
    """The most points of one request."""
    interval_s: float = 1.0

    def __init__(self, *, influxdb_url: str, token: str, org: str, bucket: str, timeout_ms: float = 10_000) -> None:
        self._library = _loaded()
        address = address_of("influxdb_url", influxdb_url)
        if address.basic is not None:
            raise ValueError("influxdb_url: expected an address without credentials; the token goes to token=")
        self._url = address.url
        self._token = _checked_token(token)
        self._org = _checked_name("org", org)
        self._bucket = _checked_name("bucket", bucket)
        if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)) or not 0 < timeout_ms < 1e9:
            raise ValueError(f"timeout_ms: expected a number of milliseconds above 0, got {timeout_ms!r}")
        self._timeout_ms = timeout_ms
        self.target: tuple[str, str, str] = self._url, self._org, self._bucket
        self._advice = _advice(self._org, self._bucket)
        self._process = os.getpid()
        self._reset()

    def _reset(self) -> None:
        # For InfluxDB 1.8, the token is user:password.
        secrets = [self._token, self._token.partition(":")[2]]
        self._http = HttpClient(f"InfluxDB {self._url}", self._url, self._timeout_ms / 1000.0, secrets)
        # Now, since it imports more by then; it opens nothing.
        self._client: Any = self._connected()
        self._points: LineWriter | None = None
        self._kept: list[_Line] = []

    def start(self) -> None:
        """In a forked child: the connection is the parent's, and so is what it could not write."""
        if os.getpid() != self._process:
            self._process = os.getpid()
            self._reset()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Write a batch.

        Raises:
            TransientError: InfluxDB cannot be reached or is busy; the same batch may be handed over again.
            PermanentError: it refused some points, or all; the message says why and what to do.

        """
        self._report(batch)

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        """Write turns; raises as `report` does."""
        self._report(turns)

    def _report(self, batch: Sequence[LatencyMetric] | Sequence[TurnMetric]) -> None:
        lines = self._lines(batch)
        fit = [line for _, line in lines if line is not None]
        self._kept = lines
        refused, why = self._write(fit)
        self._kept = []
        unfit = len(lines) - len(fit)
        if refused or unfit:
            why = why or "InfluxDB holds the years 1677 to 2262 alone"
            raise PermanentError(f"{refused + unfit} of {len(lines)} points: {why}", refused=refused + unfit)
        _log.debug("wrote %d points", len(lines))

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _lines(self, batch: Sequence[LatencyMetric] | Sequence[TurnMetric]) -> list[_Line]:
        """The lines of a batch; those it had before, if it is the end of what did not arrive."""
        kept = self._kept[len(self._kept) - len(batch) :] if len(batch) <= len(self._kept) else []
        if kept and all(metric is before for metric, (before, _) in zip(batch, kept, strict=True)):
            return kept
        metrics: Sequence[LatencyMetric | TurnMetric] = batch
        return [(metric, self._line(metric)) for metric in yielding(metrics)]

    def _line(self, metric: LatencyMetric | TurnMetric) -> bytes | None:
        if self._points is None:
            self._points = LineWriter()
        try:
            return self._points.line(metric)
        except ValueError as error:
            _log.debug("no point: %s", error)
            return None

    def _write(self, lines: list[bytes]) -> tuple[int, str]:
        """How many lines were refused, and why; those that were not have arrived."""
        refused, why, attempts, waiting = 0, "", 0, [lines] if lines else []
        while waiting:
            part = waiting.pop()
            attempts += 1
            try:
                self._attempt(part)
            except HttpStatusError as answer:
                error = answer.as_delivery(f"InfluxDB {self._url}", self._advice)
                if isinstance(error, TransientError):
                    raise error from None
                why = why or str(error)
                dropped = _dropped(answer)
                if answer.answer.status not in _DIVISIBLE:
                    refused += len(part) + sum(map(len, waiting))
                    break
                if dropped or len(part) == 1 or attempts >= MAX_ATTEMPTS:
                    refused += min(dropped or len(part), len(part))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
        return refused, why

    def _attempt(self, lines: list[bytes]) -> None:
        if self._client is None:
            self._client = self._connected()
        self._client.write_api(self._library.write_options).write(self._bucket, self._org, b"\n".join(lines))

    def _connected(self) -> Any:
        with _levels_kept():
            client: Any = self._library.client(
                self._url, self._token, timeout=self._timeout_ms, enable_gzip=True, org=self._org
            )
        # The client's own pool follows redirects with the token and reads answers of any length; its exceptions quote
        # headers, and the way they are made writes to the root logger, which sets that up where nobody had.
        client.api_client.rest_client.pool_manager = self._http
        return client


class _Library(NamedTuple):
    """What is used of influxdb-client; retries and batches are the lane's."""

    client: Any
    write_options: Any


def _loaded() -> _Library:
    """By whoever makes the reporter: a fork while the lane imports would leave the child a module lock for ever."""
    if importlib.util.find_spec("influxdb_client") is None:
        raise ModuleNotFoundError("InfluxDBReporter needs influxdb-client: pip install 'callbot-latency[influxdb]'")
    from influxdb_client.client.influxdb_client import InfluxDBClient
    from influxdb_client.client.write_api import SYNCHRONOUS

    return _Library(InfluxDBClient, SYNCHRONOUS)


@contextmanager
def _levels_kept() -> Iterator[None]:
    """The client sets the level of urllib3's logger for the whole process, which is the application's to set."""
    logger = logging.getLogger("urllib3")
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)


def _dropped(answer: HttpStatusError) -> int:
    """How many points of the request the server says that it dropped, the others being written; 0 if it does not."""
    said = _PARTIAL.search(answer.answer.body.decode(errors="replace"))
    return int(said[1]) if said else 0


def _advice(org: str, bucket: str) -> dict[int, str]:
    return {
        401: "INFLUXDB_TOKEN must be a token of this server that may write to the bucket",
        403: f"the token may not write to bucket {bucket!r}",
        404: f"is there a bucket {bucket!r} in the organisation {org!r}?",
        413: "something before InfluxDB limits what may be sent",
    }


def _checked_token(token: Any) -> str:
    # What has no place in a header would be refused by http.client, whose message quotes it.
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise ValueError("token: expected a token of printable ASCII characters")
    return token


def _checked_name(what: str, name: Any) -> str:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"{what}: expected a name, got {name!r}")
    return name
