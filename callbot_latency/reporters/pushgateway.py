"""To Prometheus' Pushgateway, for teams without a Collector."""

import base64
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Final

from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway

from .. import semconv
from ..base.internal_errors import call_safely
from ..base.pacing import yielding
from ..delivery.errors import PermanentError, TransientError
from ..model.metric import LatencyMetric
from ..model.thresholds import Thresholds
from ..model.turn_metric import TurnMetric
from ..pipeline.prometheus_exposition import Counts
from .http import Basic, address_of, checked_name, checked_number
from .http_client import HttpClient

__all__ = ["PrometheusReporter"]

MAX_WAIT_S: Final = 600.0
"""The longest wait that a server may ask for."""
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_TAKEN: Final = {*semconv.METRIC_LABELS, "job", "le"}
_ADVICE: Final = {
    400: "another program pushes a metric of the same name with another type or other labels, "
    "or there is a proxy between; give this bot a Pushgateway of its own, or delete the other group",
    401: "give auth=, or user and password in the address",
    403: "these credentials may not push",
    404: "is this the address of a Pushgateway, without /metrics?",
    405: "is this the address of a Pushgateway, without /metrics?",
    413: "something before the Pushgateway limits what may be sent",
}

_log = logging.getLogger(semconv.LOGGER_PUSHGATEWAY)


class PrometheusReporter:
    """Counts measurements and turns like the Collector's Prometheus exporter, and pushes all counts as one group.

    The group is ``job`` and ``instance``, host and process id: each process has its own, and a container that is
    started anew takes its old one over. A push replaces the group, so that nothing is ever counted twice.

    Counts are cumulative, so a push that fails loses nothing: each measurement is counted here once, whatever
    becomes of the push, and the next push carries them all. Hence a `TransientError` of this reporter says
    that all of the batch was ``delivered``, and nothing is handed over again; with `PermanentError`, the batch counts
    as refused until somebody mends the cause, and the next push that is accepted carries it all the same. While a
    server asks us to wait (``Retry-After``, at most 600 s), measurements are counted and not pushed. The lane calls
    `report` at least every `interval_s`, and right after each batch of turns; so turns are only counted, and the push
    that follows carries them. `close` pushes a last time; what did not arrive then is counted as
    ``pushgateway_unconfirmed``, or ``pushgateway_refused``.

    Attributes:
        target: the address without credentials. Two groups of one process on one Pushgateway would count twice.

    Args:
        url: of the Pushgateway, such as ``http://localhost:9091``; user and password may stand in it.
        job: the label ``job``: the bot's name.
        grouping_key: labels that the group has besides, or another ``instance``.
        auth: user and password, or a bearer token; never shown.
        timeout_s: how long one push may take, in seconds.
        delete_at_close: delete the group at a clean shutdown instead of pushing a last time. What Prometheus has not
            scraped by then is lost to it; without this, the group of a process that is gone stays as it last was.
        thresholds: become edges of the histograms; the default ones unless given.
        interval_s: from one push to the next, in seconds.

    Raises:
        ValueError: an argument is not what it should be; the message names it and shows no secret.

    """

    name: ClassVar[str] = "pushgateway"
    batch_size: int = 8_192
    """So many measurements and turns are taken at once, before `interval_s` is over."""
    interval_s: float = 15.0
    reports_when_idle: ClassVar[bool] = True
    """What runs now changes without a measurement, and what a failed push left behind waits for none."""

    def __init__(
        self,
        url: str,
        *,
        job: str = "callbot",
        grouping_key: Mapping[str, str] | None = None,
        auth: Basic | str | None = None,
        timeout_s: float = 5.0,
        delete_at_close: bool = False,
        thresholds: Thresholds | None = None,
        interval_s: float | None = None,
    ) -> None:
        address, basic = address_of("url", url)
        self.target: str = address
        if auth is not None and basic is not None:
            raise ValueError("auth: the address has a user and password already; give one of the two")
        self._auth = _checked_auth(auth) if auth is not None else basic
        self._job = checked_name("job", job)
        self._labels = _checked_labels(grouping_key or {})
        self._timeout_s = checked_number("timeout_s", timeout_s)
        self._delete_at_close = delete_at_close
        self._thresholds = thresholds or Thresholds()
        if interval_s is not None:
            self.interval_s = checked_number("interval_s", interval_s)
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._group = {"instance": f"{socket.gethostname()}:{self._process}", **self._labels}
        self._counts = Counts(self._thresholds)
        self._registry = CollectorRegistry()
        self._registry.register(self._counts)
        self._authorization, secrets = _authorization(self._auth)
        self._http = HttpClient(f"Pushgateway {self.target}", self.target, self._timeout_s, secrets, _ADVICE)
        self._unpushed = self._refused = 0
        self._has_group = False
        self._not_before_s = float("-inf")

    def start(self) -> None:
        """In a forked child: the counts and the connection are the parent's."""
        if os.getpid() != self._process:
            self._reset()

    def report(self, batch: Sequence[LatencyMetric]) -> None:
        """Count a batch and push all counts.

        Raises:
            TransientError: the Pushgateway cannot be reached or is busy; the next push carries the counts.
            PermanentError: it refuses; the message says what to do.

        """
        for metric in yielding(batch):
            call_safely(self._counts.count, metric)
        self._unpushed += len(batch)
        if monotonic() < self._not_before_s:
            return
        try:
            self._push()
        except PermanentError:
            self._refused += len(batch)
            raise
        except TransientError as busy:
            self._not_before_s = monotonic() + min(busy.retry_after_s or 0.0, MAX_WAIT_S)
            raise TransientError(
                f"{busy}; the counts are kept, the next push carries them",
                retry_after_s=busy.retry_after_s,
                delivered=len(batch),
            ) from None

    def report_turns(self, turns: Sequence[TurnMetric]) -> None:
        """Count turns, which the next push carries."""
        for turn in turns:
            call_safely(self._counts.count_turn, turn)
        self._unpushed += len(turns)

    def close(self) -> None:
        """Push a last time, or delete the group; one attempt.

        Raises:
            TransientError, PermanentError: it failed; how many measurements and turns are lost to Prometheus by that.

        """
        try:
            if self._delete_at_close:
                if self._has_group:
                    delete_from_gateway(self.target, self._job, self._group, handler=self._send)
                    self._has_group = False
            elif self._unpushed or self._has_group:
                left_s = self._not_before_s - monotonic()
                if left_s > 0:
                    raise TransientError(f"Pushgateway {self.target} asked to wait {left_s:.0f} s more")  # noqa: TRY301
                self._push()
        except (TransientError, PermanentError) as error:
            said = f"the last push failed, {self._unpushed} measurements and turns are lost to Prometheus: {error}"
            # Those that were refused before are counted already.
            lost = self._unpushed - self._refused
            if isinstance(error, TransientError):
                raise TransientError(said, unconfirmed=lost) from None
            raise PermanentError(said, refused=lost) from None
        finally:
            self._unpushed = self._refused = 0
            self._http.clear()

    def _push(self) -> None:
        self._has_group = True  # perhaps, even where no answer comes
        push_to_gateway(self.target, self._job, self._registry, self._group, handler=self._send)
        _log.debug("pushed %d new measurements and turns", self._unpushed)
        self._unpushed = self._refused = 0

    def _send(
        self, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        """How prometheus_client lets somebody else speak HTTP, with a time-out of its own."""
        return lambda: self._http.send(method, url, data, {**dict(headers), **self._authorization})


def _authorization(auth: Basic | str | None) -> tuple[dict[str, str], list[str]]:
    """The headers for `auth`, and the secrets in it."""
    if auth is None:
        return {}, []
    if isinstance(auth, str):
        return {"Authorization": f"Bearer {auth}"}, [auth]
    joined = ":".join(auth)
    return {"Authorization": "Basic " + base64.b64encode(joined.encode()).decode()}, [auth[1], joined]


def _checked_auth(auth: Any) -> Basic | str:
    # What has no place in a header would be refused by http.client, whose message quotes it.
    if isinstance(auth, str) and auth and auth.isascii() and auth.isprintable():
        return auth
    match auth:
        case (str(user), str(password)) if ":" not in user and (user + password).isprintable():
            return user, password
    raise ValueError("auth: expected (user, password), or a bearer token of printable ASCII characters")


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name) or name in _TAKEN:
            raise ValueError(f"grouping_key: expected names of labels other than those of the metrics, got {name!r}")
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(f"grouping_key: expected text as the value of {name!r}, got {value!r}")
    return dict(labels)
