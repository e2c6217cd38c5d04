"""Every reporter that the settings name; what it needs is loaded only then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ..config import ConfigError, LatencyConfig
from ..delivery.protocols import LatencyReporter, Notifier
from ..semconv import (
    ENV_APPRISE_SEVERITY,
    ENV_APPRISE_URLS,
    ENV_INFLUXDB_TOKEN,
    ENV_INFLUXDB_URL,
    ENV_PUSHGATEWAY_JOB,
    ENV_PUSHGATEWAY_URL,
    ENV_SLACK_CHANNEL,
    ENV_SLACK_WEBHOOK_URL,
)
from .jsonl import JsonlReporter

if TYPE_CHECKING:
    from .apprise import AppriseReporter
    from .influxdb import InfluxDBReporter
    from .pushgateway import PrometheusReporter
    from .slack import SlackReporter

__all__ = ["apprise_reporter", "influxdb_reporter", "pushgateway_reporter", "reporters_of", "slack_reporter"]

DEFAULT_JOB: Final = "callbot"


def reporters_of(config: LatencyConfig) -> list[LatencyReporter | Notifier]:
    """The reporters that the settings name.

    Raises:
        ConfigError: one that cannot be made, or whose extra is not installed.

    """
    makers = (_jsonl_reporter, slack_reporter, apprise_reporter, pushgateway_reporter, influxdb_reporter)
    return [reporter for make in makers if (reporter := make(config)) is not None]


def _jsonl_reporter(config: LatencyConfig) -> JsonlReporter | None:
    if not config.file_logging_enabled:
        return None
    return JsonlReporter(
        config.metrics_file_path, max_mb=config.metrics_file_max_mb, backups=config.metrics_file_backups
    )


def pushgateway_reporter(config: LatencyConfig) -> "PrometheusReporter | None":
    """The reporter for PROMETHEUS_PUSHGATEWAY_URL; None where that is not set.

    Its job is LATENCY_PUSHGATEWAY_JOB, else the service's name, as for the Collector; else ``callbot``.

    Raises:
        ConfigError: a setting is wrong; the message names it.

    """
    if config.pushgateway_url is None:
        return None
    from .pushgateway import PrometheusReporter

    with _explained(url=ENV_PUSHGATEWAY_URL, job=ENV_PUSHGATEWAY_JOB, needs=ENV_PUSHGATEWAY_URL):
        return PrometheusReporter(
            str(config.pushgateway_url),
            job=config.pushgateway_job or _service_name() or DEFAULT_JOB,
            thresholds=config.thresholds,
            interval_s=config.pushgateway_interval_s,
        )


def influxdb_reporter(config: LatencyConfig) -> "InfluxDBReporter | None":
    """The reporter for INFLUXDB_URL; None where that is not set.

    Raises:
        ConfigError: a setting is wrong, or influxdb-client is not installed; the message says what to do.

    """
    token, org, bucket = config.influxdb_token, config.influxdb_org, config.influxdb_bucket
    if config.influxdb_url is None or token is None or org is None or bucket is None:
        return None
    from .influxdb import InfluxDBReporter

    with _explained(influxdb_url=ENV_INFLUXDB_URL, token=ENV_INFLUXDB_TOKEN, needs=ENV_INFLUXDB_URL):
        return InfluxDBReporter(
            influxdb_url=str(config.influxdb_url),
            token=token.get_secret_value(),
            org=org,
            bucket=bucket,
            timeout_ms=config.influxdb_timeout_ms,
        )


def slack_reporter(config: LatencyConfig) -> "SlackReporter | None":
    """The Slack channel that the settings name; None where they name none.

    Raises:
        ConfigError: a setting that Slack cannot be reached with, or the extra ``slack`` is missing.

    """
    if config.slack_webhook_url is None:
        return None
    from .slack import SlackReporter

    with _explained(webhook_url=ENV_SLACK_WEBHOOK_URL, channel=ENV_SLACK_CHANNEL, needs=ENV_SLACK_WEBHOOK_URL):
        return SlackReporter(
            config.slack_webhook_url.get_secret_value(),
            config.slack_channel,
            severity=config.slack_severity,
            language=config.language,
        )


def apprise_reporter(config: LatencyConfig) -> "AppriseReporter | None":
    """The services that the settings name; None where they name none.

    Raises:
        ConfigError: an URL that Apprise does not know, or the extra ``apprise`` is missing.

    """
    if config.apprise_urls is None:
        return None
    from .apprise import AppriseReporter

    with _explained(urls=ENV_APPRISE_URLS, severity=ENV_APPRISE_SEVERITY, needs=ENV_APPRISE_URLS):
        return AppriseReporter(
            config.apprise_urls.get_secret_value(), severity=config.apprise_severity, language=config.language
        )


def _service_name() -> str | None:
    """What OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say, as the SDK reads them."""
    from opentelemetry.sdk.resources import Resource

    name = str(Resource.create().attributes.get("service.name", ""))
    return None if name.startswith("unknown_service") else name or None


@contextmanager
def _explained(*, needs: str, **variables: str) -> Iterator[None]:
    """What a reporter says of an argument becomes a `ConfigError` that names its environment variable.

    Args:
        needs: the variable that asks for the reporter, named if its extra is not installed, or for other arguments.
        variables: the variable of each argument.

    """
    try:
        yield
    except ImportError as missing:
        raise ConfigError(f"{needs}: {missing}") from missing
    except ValueError as wrong:
        argument, _, what = str(wrong).partition(":")
        raise ConfigError(f"{variables[argument]}:{what}" if argument in variables else f"{needs}: {wrong}") from None
