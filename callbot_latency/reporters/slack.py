"""Alerts in a Slack channel, through an incoming webhook."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from ..alerting.display import display_text
from ..alerting.translations import checked
from ..delivery.errors import PermanentError
from ..model.alert import Alert, Language
from ..model.operation import Severity
from .http import HttpResponse
from .http_client import HttpClient

__all__ = ["SlackReporter"]

_ADVICE: Final[Mapping[str, str]] = {
    "action_prohibited": "an administrator restricts posting: ask for this webhook to be allowed in the channel",
    "channel_is_archived": "the channel is archived: unarchive it, or set SLACK_CHANNEL or the webhook to another",
    "channel_not_found": "the channel does not exist or the app is no member: check SLACK_CHANNEL, invite the app",
    "invalid_blocks": "Slack does not take the message's layout: please report it to callbot_latency",
    "invalid_payload": "Slack does not understand the message: check that SLACK_WEBHOOK_URL is an incoming webhook",
    "invalid_token": "the webhook's secret is wrong or revoked: make a new one and set SLACK_WEBHOOK_URL",
    "no_active_hooks": "the webhook is disabled: enable incoming webhooks in the Slack app",
    "no_service": "the webhook was removed or disabled: make a new one and set SLACK_WEBHOOK_URL",
    "no_service_id": "the address is incomplete: copy the whole webhook into SLACK_WEBHOOK_URL",
    "no_team": "the workspace is gone, or the address is incomplete: check SLACK_WEBHOOK_URL",
    "posting_to_general_channel_denied": "only some members may post to #general: set SLACK_CHANNEL to another",
    "team_disabled": "the Slack workspace is disabled: set SLACK_WEBHOOK_URL to a webhook of another",
    "too_many_attachments": "Slack does not take the message's layout: please report it to callbot_latency",
    "user_not_found": "SLACK_CHANNEL names nobody: set it to a channel such as #alerts",
}
_BY_STATUS: Final[Mapping[int, str]] = {
    401: "the address is not accepted: check SLACK_WEBHOOK_URL, and the proxy if there is one",
    403: "posting is forbidden: check SLACK_WEBHOOK_URL, and what the workspace allows",
    404: "nothing is there: check SLACK_WEBHOOK_URL",
    407: "the proxy wants a password: put it into HTTPS_PROXY",
    410: "the webhook or its channel is gone: make a new one and set SLACK_WEBHOOK_URL",
}
_CHECK: Final = "check SLACK_WEBHOOK_URL"
_CHANNEL: Final = re.compile(r"[#@]?[^\s#@<>&,:]{1,80}")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{1,63}")


class SlackReporter:
    """Posts each alert as one message; it takes no measurements.

    One attempt an alert, by a connection of its own, answered within `timeout_s`; no redirect is followed and at most
    64 kB of an answer are read. What a server says decides whether a lane tries again. The webhook is a secret: it is
    in no repr, log line or error. ``HTTPS_PROXY`` and ``NO_PROXY`` are honoured.

    Args:
        webhook_url: address of an incoming webhook.
        channel: instead of the webhook's own, where it allows that (webhooks of Slack apps do not).
        severity: `Severity.CRITICAL` for critical alerts alone, `Severity.WARNING` for both. An alert that names this
            channel is posted whatever its severity.
        language: of the messages, ``en`` or ``fr``.
        timeout_s: how long connecting and the head of the answer may take, in seconds; what has not come of the rest
            by then is not read.

    Raises:
        TypeError, ValueError: a bad argument; the message names it, and never quotes the webhook.
        ImportError: the extra ``slack`` is not installed.

    """

    name = "slack"

    def __init__(
        self,
        webhook_url: str,
        channel: str | None = None,
        *,
        severity: Severity | str = Severity.CRITICAL,
        language: Language | str = "en",
        timeout_s: float = 5.0,
    ) -> None:
        self._webhook_url, self._host = _checked_url(webhook_url)
        self._channel = _checked_channel(channel)
        self._severity = Severity.of(severity)
        self._language = checked(language)
        if not 0 < timeout_s <= 60:
            raise ValueError(f"timeout_s: expected seconds above 0 and at most 60, got {timeout_s!r}")
        self._timeout_s = timeout_s
        self._message = _load()
        self._http = HttpClient("Slack", webhook_url, timeout_s)
        self.target: _Target = _Target(self._webhook_url, self._channel)

    def __repr__(self) -> str:
        return f"SlackReporter(<webhook of {self._host}>, channel={self._channel!r}, severity={self._severity.value!r})"

    def start(self) -> None:
        """In a forked child, let go of what the parent had open."""
        self._http = HttpClient("Slack", self._webhook_url.get_secret_value(), self._timeout_s)

    def notify(self, alert: Alert) -> None:
        """Post one alert, unless it is below the severity that was asked for.

        Raises:
            TransientError: Slack is busy, ails, or cannot be reached.
            PermanentError: Slack refuses; the message says what to do.

        """
        if not alert.is_wanted(self._severity):
            return
        message = self._message(alert, self._language)
        if self._channel is not None:
            message["channel"] = self._channel
        answer = self._post(message)
        if answer.status == 400 and _code_in(answer).startswith("invalid_blocks"):
            # Better a plain line that arrives than a fine message that does not.
            del message["blocks"]
            answer = self._post(message)
        _check_accepted(answer)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.clear()

    def _post(self, message: dict[str, Any]) -> HttpResponse:
        return self._http.request_once(
            "POST",
            self._webhook_url.get_secret_value(),
            json.dumps(message).encode(),
            {"Content-Type": "application/json; charset=utf-8", "Connection": "close"},
        )


def _text_in(answer: HttpResponse) -> str:
    return answer.body[:4096].decode("utf-8", "replace").strip()


def _code_in(answer: HttpResponse) -> str:
    """Slack's word for what is wrong, or nothing; never a text that quotes what we sent."""
    text = _text_in(answer)
    said = _json_in(text).get("error", "") if text.startswith("{") else text
    word = str(said).lower().replace(" ", "_")
    return word if _CODE.fullmatch(word) else ""


def _json_in(text: str) -> Mapping[str, Any]:
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _check_accepted(answer: HttpResponse) -> None:
    """Slack's documentation calls every 200 a success, look-alikes answer 204 too; two kinds of them are none.

    A JSON object may say that it is not ``ok`` (Slack's own API and look-alikes), and a page of HTML is a proxy's.
    """
    text = _text_in(answer)
    if 200 <= answer.status < 300:
        if text.startswith("<"):
            raise PermanentError(
                f"Slack: a web page answered instead of a webhook: {_CHECK}, and the proxy if there is one"
            )
        told = _json_in(text)
        if told.get("ok", True) is not False and told.get("success", True) is not False:
            return
    code = _code_in(answer)
    raise answer.as_error("Slack", code, _ADVICE.get(code) or _BY_STATUS.get(answer.status) or _CHECK)


def _load() -> Callable[[Alert, Language], dict[str, Any]]:
    try:
        from .slack_blocks import slack_message
    except ImportError as missing:
        raise ImportError(
            f"SlackReporter needs {str(missing.name).partition('.')[0]}: pip install callbot-latency[slack]"
        ) from missing
    return slack_message


def _checked_url(url: str) -> tuple[SecretStr, str]:
    if not isinstance(url, str):
        raise TypeError(f"webhook_url: expected the URL of an incoming webhook, got {type(url).__name__}")
    host = None
    if url.isascii() and url.isprintable() and " " not in url:
        # What is wrong with a port or a bracket; the text would quote it.
        with suppress(ValueError):
            parts = urlsplit(url)
            host = parts.hostname if parts.scheme in {"https", "http"} and parts.port != 0 else None
    if not host:
        raise ValueError(
            "webhook_url: expected a URL such as https://hooks.slack.com/services/T.../B.../..., got another"
        )
    return SecretStr(url), host


def _checked_channel(channel: str | None) -> str | None:
    if not channel:
        return None
    if not isinstance(channel, str):
        raise TypeError(f"channel: expected a channel such as '#alerts' or an ID, got {type(channel).__name__}")
    if not _CHANNEL.fullmatch(channel):
        raise ValueError(f"channel: expected a channel such as '#alerts' or an ID, got {display_text(channel, 80)!r}")
    return channel


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """One webhook, and a channel unless that is the webhook's own: without one, it may be any."""

    webhook_url: SecretStr
    channel: str | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Target) or self.webhook_url != other.webhook_url:
            return False
        return None in {self.channel, other.channel} or self.channel == other.channel

    def __hash__(self) -> int:
        return hash(self.webhook_url)
