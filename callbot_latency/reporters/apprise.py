"""Alerts by e-mail, Teams, Telegram, PagerDuty and whatever else Apprise has an URL for."""

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import SecretStr

from ..alerting.display import display_text, display_url, neutralise_mentions
from ..alerting.message import message_fields, title_of
from ..alerting.translations import checked, say
from ..delivery.errors import TransientError
from ..model.alert import Alert, AlertEvent, Language
from ..model.operation import Severity
from .http import unlogged

__all__ = ["AppriseReporter"]

_TYPES: Final = {Severity.WARNING: "warning", Severity.CRITICAL: "failure"}
_URLS: Final = "expected URLs of Apprise such as mailto://... or msteams://..., separated by blanks or commas"


class AppriseReporter:
    """Sends each alert to every service once; it takes no measurements.

    When a lane tries again, those that took the alert are not asked a second time. Redirects are not followed. The
    URLs are secrets: they are in no repr, log line or error. Each service has the time-outs of its own URL, 4 s
    for connecting and for each wait where it says nothing (``cto=`` and ``rto=``, in seconds).

    Args:
        urls: one or several, separated as Apprise does it.
        severity: `Severity.CRITICAL` for critical alerts alone, `Severity.WARNING` for both. An alert that names this
            channel is sent whatever its severity.
        language: of the messages, ``en`` or ``fr``.

    Raises:
        TypeError, ValueError: a bad argument; the message names it, and quotes no URL.
        ImportError: the extra ``apprise`` is not installed.

    """

    name = "apprise"

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        severity: Severity | str = Severity.CRITICAL,
        language: Language | str = "en",
    ) -> None:
        self._severity = Severity.of(severity)
        self._language = checked(language)
        self._services = _services(urls)
        self.target: SecretStr = SecretStr(" ".join(sorted(service[0].url() for service in self._services)))
        self._alert: Alert | None = None
        self._left: list[Any] = []

    def __repr__(self) -> str:
        services = ", ".join(_name(service) for service in self._services)
        return f"AppriseReporter(<{services}>, severity={self._severity.value!r})"

    def notify(self, alert: Alert) -> None:
        """Send one alert to those services that do not have it yet.

        Raises:
            TransientError: a service did not take it; Apprise does not tell whether it ever would.

        """
        if not alert.is_wanted(self._severity):
            return
        if alert is not self._alert:
            self._alert, self._left = alert, list(self._services)
        message = self._message(alert)
        failed = {service: reason for service in self._left if (reason := _sent(service, message)) is not None}
        self._left = list(failed)
        if failed:
            raise TransientError("Apprise: " + "; ".join(failed.values()))
        self._alert = None

    def _message(self, alert: Alert) -> dict[str, str]:
        lines = [
            say(self._language, "{label}: {value}", label=fact.label, value=fact.value)
            for fact in message_fields(alert, self._language)
        ]
        url = display_url(alert.trace_url)
        return {
            "title": neutralise_mentions(title_of(alert, self._language)),
            "body": neutralise_mentions("\n".join([*lines, url] if url else lines)),
            "notify_type": "success" if alert.event is AlertEvent.RECOVERY else _TYPES[alert.severity],
            "body_format": "text",
        }


def _services(urls: str | Sequence[str]) -> tuple[Any, ...]:
    try:
        import netrc  # noqa: F401 - else by requests at the first alert, on the lane: see influxdb._loaded

        import apprise
    except ImportError as missing:
        raise ImportError("AppriseReporter needs apprise: pip install callbot-latency[apprise]") from missing
    # On the lane's thread, within the services' own time-outs: a thread of Apprise's would keep the exit waiting.
    asset = apprise.AppriseAsset(async_mode=False, service_timeout=0, http_redirects=False)
    known = apprise.Apprise(asset=asset)
    # What is wrong with an URL is logged together with it.
    with unlogged():
        # A text may hold several; in a list each stands for itself.
        understood = known.add(urls if isinstance(urls, str) else list(urls))
    if not understood or not len(known):
        raise ValueError(f"urls: {_URLS}, got at least one that is none")
    services = []
    for service in known:
        services.append(one := apprise.Apprise(asset=asset))
        one.add(service)
    return tuple(services)


def _sent(service: Any, message: dict[str, str]) -> str | None:
    """None when it was taken, else what Apprise complains of, without a part of the URL."""
    with unlogged() as complaints:
        taken = service.notify(**message)
    if taken:
        return None
    told = complaints[-1] if complaints else "did not take the message"
    for secret in _secrets_in(service):
        told = told.replace(secret, "[secret]")
    return f"{_name(service)}: {display_text(told, 200)}"


def _secrets_in(service: Any) -> list[str]:
    """Every part of the URL, the longest first."""
    parts = {part for part in re.split(r"[/:@?&=,+;\s]+", service[0].url().partition("://")[2]) if len(part) > 3}
    return sorted(parts, key=len, reverse=True)


def _name(service: Any) -> str:
    return str(service[0].service_name)
