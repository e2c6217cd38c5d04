"""The direct reporters that the settings name; what they need loads only then."""

from typing import TYPE_CHECKING, Final

from ..config import ConfigError, LatencyConfig
from ..semconv import ENV_INFLUXDB_URL, ENV_PUSHGATEWAY_URL

if TYPE_CHECKING:
    from .influxdb import InfluxDBReporter
    from .pushgateway import PrometheusReporter

__all__ = ["influxdb_reporter", "pushgateway_reporter"]

DEFAULT_JOB: Final = "callbot"
_UNKNOWN: Final = "unknown_service"


def pushgateway_reporter(config: LatencyConfig) -> "PrometheusReporter | None":
    """The reporter for PROMETHEUS_PUSHGATEWAY_URL; None where that is not set.

    Its job is LATENCY_PUSHGATEWAY_JOB, else the service's name, as for the Collector; else ``callbot``.

    Raises:
        ConfigError: a setting is wrong; the message names it.

    """
    if config.pushgateway_url is None:
        return None
    from .pushgateway import PrometheusReporter

    try:
        return PrometheusReporter(
            str(config.pushgateway_url),
            job=config.pushgateway_job or _service_name() or DEFAULT_JOB,
            thresholds=config.thresholds,
            interval_s=config.pushgateway_interval_s,
        )
    except ValueError as error:
        raise ConfigError(f"{ENV_PUSHGATEWAY_URL}: {error}") from None


def influxdb_reporter(config: LatencyConfig) -> "InfluxDBReporter | None":
    """The reporter for INFLUXDB_URL; None where that is not set.

    Raises:
        ConfigError: a setting is wrong, or influxdb-client is not installed; the message says what to do.

    """
    token, org, bucket = config.influxdb_token, config.influxdb_org, config.influxdb_bucket
    if config.influxdb_url is None or token is None or org is None or bucket is None:
        return None
    from .influxdb import InfluxDBReporter

    try:
        return InfluxDBReporter(
            influxdb_url=str(config.influxdb_url),
            token=token.get_secret_value(),
            org=org,
            bucket=bucket,
            timeout_ms=config.influxdb_timeout_ms,
        )
    except (ValueError, ModuleNotFoundError) as error:
        raise ConfigError(f"{ENV_INFLUXDB_URL}: {error}") from None


def _service_name() -> str | None:
    """What OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say, as the SDK reads them."""
    from opentelemetry.sdk.resources import Resource

    name = str(Resource.create().attributes.get("service.name", ""))
    return None if name.startswith(_UNKNOWN) else name or None
