"""To InfluxDB, for teams without a Collector: one point a measurement, and one a turn."""

import gzip
import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from ..base.pacing import yielding
from ..delivery.errors import PermanentError
from ..model.metric import LatencyMetric
from ..model.turn_metric import TurnMetric
from ..semconv import LOGGER_INFLUXDB
from .http import HttpRefusedError, address_of, checked_name, checked_number
from .http_client import HttpClient
from .influxdb_points import LineWriter

__all__ = ["InfluxDBReporter"]

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

    name: ClassVar[str] = "influxdb"
    batch_size: int = 1_000
    """The most points of one request."""
    interval_s: float = 1.0

    def __init__(self, *, influxdb_url: str, token: str, org: str, bucket: str, timeout_ms: float = 10_000) -> None:
        url, credentials = address_of("influxdb_url", influxdb_url)
        if credentials is not None:
            raise ValueError("influxdb_url: expected an address without credentials; the token goes to token=")
        self._token = _checked_token(token)
        self._timeout_ms = checked_number("timeout_ms", timeout_ms, "milliseconds")
        self.target: tuple[str, str, str] = url, checked_name("org", org), checked_name("bucket", bucket)
        query = urlencode({"org": org, "bucket": bucket, "precision": "ns"})
        self._write_url = f"{url}/api/v2/write?{query}"
        self._headers = {
            "Authorization": f"Token {self._token}",
            "Content-Encoding": "gzip",
            "Content-Type": "text/plain; charset=utf-8",
        }
        self.start()

    def start(self) -> None:
        """Forget connections and what could not be written: in a forked child, they are the parent's."""
        url, org, bucket = self.target
        advice = {
            401: "INFLUXDB_TOKEN must be a token of this server that may write to the bucket",
            403: f"the token may not write to bucket {bucket!r}",
            404: f"is there a bucket {bucket!r} in the organisation {org!r}?",
            413: "something before InfluxDB limits what may be sent",
        }
        # For InfluxDB 1.8, the token is user:password.
        secrets = [self._token, self._token.partition(":")[2]]
        self._http = HttpClient(f"InfluxDB {url}", url, self._timeout_ms / 1000.0, secrets, advice)
        # Loads influxdb-client now: a fork while the lane imports it would leave the child a locked module.
        self._points = LineWriter()
        self._kept: list[_Line] = []

    def report(self, batch: Sequence[LatencyMetric | TurnMetric]) -> None:
        """Write a batch of measurements or of turns.

        Raises:
            TransientError: InfluxDB cannot be reached or is busy; the same batch may be handed over again.
            PermanentError: it refused some points, or all; the message says why and what to do.

        """
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

    report_turns = report

    def close(self) -> None:
        """Close the connection."""
        self._http.clear()

    def _lines(self, batch: Sequence[LatencyMetric | TurnMetric]) -> list[_Line]:
        """The lines of a batch; those it had before, if it is the end of what did not arrive."""
        kept = self._kept[len(self._kept) - len(batch) :] if len(batch) <= len(self._kept) else []
        if kept and all(metric is before for metric, (before, _) in zip(batch, kept, strict=True)):
            return kept
        return [(metric, self._line(metric)) for metric in yielding(batch)]

    def _line(self, metric: LatencyMetric | TurnMetric) -> bytes | None:
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
                self._http.send("POST", self._write_url, gzip.compress(b"\n".join(part)), self._headers)
            except HttpRefusedError as error:
                why = why or str(error)
                # InfluxDB may say how many points of the request it dropped; it wrote the others.
                partial = _PARTIAL.search(error.answer.body.decode(errors="replace"))
                dropped = int(partial[1]) if partial else 0
                if error.answer.status not in _DIVISIBLE:
                    refused += len(part) + sum(map(len, waiting))
                    break
                if dropped or len(part) == 1 or attempts >= MAX_ATTEMPTS:
                    refused += min(dropped or len(part), len(part))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
        return refused, why


def _checked_token(token: Any) -> str:
    # What has no place in a header would be refused by http.client, whose message quotes it.
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise ValueError("token: expected a token of printable ASCII characters")
    return token
