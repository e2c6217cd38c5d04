"""The one reader of the environment."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasGenerator, AnyHttpUrl, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from . import semconv
from .base.endpoints import ENDPOINTS, without_credentials
from .base.scrubbing import scrub
from .model.alert import Language
from .model.operation import OperationType, ThresholdsMs
from .model.thresholds import DEFAULT_THRESHOLDS, Thresholds
from .tracing.headers import checked_host

__all__ = ["ConfigError", "LatencyConfig", "load_config", "load_otel_from_dotenv", "otel_names"]

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], NoDecode]
Protocol = Literal["grpc", "http/protobuf"]

_SECRETS = {semconv.ENV_SLACK_WEBHOOK_URL, semconv.ENV_INFLUXDB_TOKEN, semconv.ENV_TRACE_KEY, semconv.ENV_APPRISE_URLS}
_STT, _TTS, _SALESFORCE, _RAG = (DEFAULT_THRESHOLDS[kind.value] for kind in OperationType)

_EXPECTED = {
    semconv.ENV_METRICS_FILE_MAX_MB: "a number of MB, or 0 for no rotation",
    semconv.ENV_METRICS_FILE_BACKUPS: "how many rotated files are kept, 0 or more",
    semconv.ENV_ALERT_COOLDOWN_S: "a number of seconds, 0 or more",
    semconv.ENV_ALERT_BURST: "how many messages a minute, 1 or more",
    semconv.ENV_PUSHGATEWAY_INTERVAL_S: "a number of seconds above 0",
}


_NOT_UTF8 = ".env: expected text in UTF-8; save it as such, or take out what is not"


class ConfigError(ValueError):
    """A setting is not what it should be; each line names the variable, what was expected and what was given."""


def _environment_name(setting: str) -> str:
    """The variable of a setting, by the constant of `semconv` that has its name."""
    constants = [f"{prefix}{setting.upper()}" for prefix in ("ENV_", "OTEL_", "OTEL_EXPORTER_")]
    return next((str(vars(semconv)[name]) for name in constants if name in vars(semconv)), setting)


class LatencyConfig(BaseSettings):
    """Every setting, from keywords, the environment, or a ``.env`` file in the working folder, in that order.

    Thresholds are in milliseconds. Secrets are hidden in its repr.

    Raises:
        TypeError: a keyword that is no setting.
        pydantic.ValidationError: a bad value; `load_config` turns it into a `ConfigError`.

    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=_environment_name),
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    tracking_enabled: bool = True
    logging_enabled: bool = True
    file_logging_enabled: bool = True
    metrics_file_path: Path = Path("outputs/logs/latency_metrics.jsonl")
    metrics_file_max_mb: float = Field(default=100, ge=0, allow_inf_nan=False)
    metrics_file_backups: int = Field(default=14, ge=0)
    stt_warning_ms: Milliseconds = _STT.warning_ms
    stt_critical_ms: Milliseconds = _STT.critical_ms
    tts_warning_ms: Milliseconds = _TTS.warning_ms
    tts_critical_ms: Milliseconds = _TTS.critical_ms
    salesforce_warning_ms: Milliseconds = _SALESFORCE.warning_ms
    salesforce_critical_ms: Milliseconds = _SALESFORCE.critical_ms
    rag_warning_ms: Milliseconds = _RAG.warning_ms
    rag_critical_ms: Milliseconds = _RAG.critical_ms
    trace_key: SecretStr = SecretStr("")
    phone_numbers: Literal["never", "hashed"] = "never"
    scrub_patterns_file: Path | None = None
    propagate_to: Names = ()
    trace_url: str | None = None
    rag_url: str | None = None
    alert_cooldown_s: float = Field(default=300, ge=0, allow_inf_nan=False)
    alert_burst: int = Field(default=20, ge=1)
    alert_rules_file: Path | None = None
    pushgateway_url: AnyHttpUrl | None = None
    pushgateway_job: str | None = None
    pushgateway_interval_s: float = Field(default=15, gt=0, allow_inf_nan=False)
    influxdb_url: AnyHttpUrl | None = None
    influxdb_token: SecretStr | None = None
    influxdb_org: str | None = None
    influxdb_bucket: str | None = None
    influxdb_timeout_ms: Milliseconds = 10_000
    slack_webhook_url: SecretStr | None = None
    slack_channel: str | None = None
    slack_severity: Literal["warning", "critical"] = "critical"
    apprise_urls: SecretStr | None = None
    apprise_severity: Literal["warning", "critical"] = "critical"
    language: Language = "en"
    foreign_spans: bool = True

    traces_exporter: Names | None = None
    metrics_exporter: Names | None = None
    otlp_endpoint: str | None = None
    otlp_traces_endpoint: str | None = None
    otlp_metrics_endpoint: str | None = None
    otlp_protocol: Protocol = "grpc"
    otlp_traces_protocol: Protocol | None = None
    otlp_metrics_protocol: Protocol | None = None
    semconv_opt_in: Names = Field(default=(), validation_alias=semconv.OTEL_SEMCONV_STABILITY_OPT_IN)
    prometheus_host: str = "localhost"
    prometheus_port: int = Field(default=9464, ge=0, le=65535)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources as they are; a keyword that is no setting is refused, since a slip would set nothing."""
        known = {*cls.model_fields, *(str(field.validation_alias) for field in cls.model_fields.values())}
        for name in init_settings():
            if name not in known:
                alike = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {alike[0]!r}?" if alike else ""
                raise TypeError(f"LatencyConfig: unknown setting {name!r}{hint}")
        return super().settings_customise_sources(settings_cls, init_settings, *others, **named)

    @field_validator("semconv_opt_in", "traces_exporter", "metrics_exporter", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.strip()) and name != "none")

    @field_validator("propagate_to", mode="before")
    @classmethod
    def _are_hosts(cls, value: Any) -> Any:
        if not isinstance(value, str | list | tuple):
            return value
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(checked_host(part) for part in map(str, parts) if part.strip())

    @field_validator("traces_exporter")
    @classmethod
    def _known_traces(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _known(value, {"otlp", "console"})

    @field_validator("metrics_exporter")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _known(value, {"otlp", "console", "prometheus"})

    @field_validator("trace_url")
    @classmethod
    def _leads_to_a_trace(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith(("https://", "http://")) and "{trace_id}" in value):
            raise ValueError("expected a URL with {trace_id} in it, such as http://jaeger:16686/trace/{trace_id}")
        return value

    @field_validator("rag_url", "slack_webhook_url")
    @classmethod
    def _is_http(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        url = value.get_secret_value() if isinstance(value, SecretStr) else value
        if url is not None and not url.startswith(("https://", "http://")):
            raise ValueError("expected a URL that starts with https:// or http://")
        return value

    @model_validator(mode="after")
    def _warning_below_critical(self) -> Self:
        for kind in ("stt", "tts", "salesforce", "rag"):
            warning_ms, critical_ms = getattr(self, f"{kind}_warning_ms"), getattr(self, f"{kind}_critical_ms")
            if warning_ms > critical_ms:
                name = f"LATENCY_{kind.upper()}"
                raise ValueError(
                    f"{name}_WARNING_MS: expected at most {name}_CRITICAL_MS, got {warning_ms:g} and {critical_ms:g}"
                )
        return self

    @model_validator(mode="after")
    def _hashes_have_a_key(self) -> Self:
        if self.phone_numbers == "hashed" and not self.trace_key.get_secret_value().strip():
            raise ValueError(
                f"{semconv.ENV_PHONE_NUMBERS}: expected {semconv.ENV_TRACE_KEY} beside 'hashed': "
                "without a secret, all phone numbers are tried in seconds"
            )
        return self

    @model_validator(mode="after")
    def _influxdb_is_complete(self) -> Self:
        """The URL says that we write there; without it, the others are a Collector's that has the same ``.env``."""
        needed = {
            semconv.ENV_INFLUXDB_TOKEN: self.influxdb_token,
            semconv.ENV_INFLUXDB_ORG: self.influxdb_org,
            semconv.ENV_INFLUXDB_BUCKET: self.influxdb_bucket,
        }
        missing = [name for name, given in needed.items() if given is None]
        if self.influxdb_url is not None and missing:
            raise ValueError(f"{semconv.ENV_INFLUXDB_URL}: expected {', '.join(missing)} beside it")
        return self

    @model_validator(mode="after")
    def _endpoints_fit_their_protocols(self) -> Self:
        for signal, metrics in (("traces", self.otlp_traces_protocol), ("metrics", self.otlp_metrics_protocol)):
            protocol = metrics or self.otlp_protocol
            own = getattr(self, f"otlp_{signal}_endpoint")
            name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT" if own else semconv.OTEL_EXPORTER_OTLP_ENDPOINT
            endpoint = own or self.otlp_endpoint
            if endpoint is not None and not ENDPOINTS[protocol].fullmatch(endpoint):
                example = "http://localhost:4317" if protocol == "grpc" else "http://localhost:4318"
                raise ValueError(
                    f"{name}: expected a URL such as {example} ({protocol}), got {without_credentials(endpoint)!r}"
                )
        return self

    # Not a cached_property: in Python 3.11 that has a lock for all of its class, which a fork would leave held.
    @property
    def thresholds(self) -> Thresholds:
        """The thresholds of every operation type, registered ones included."""
        return Thresholds(
            {
                OperationType.STT.value: ThresholdsMs(self.stt_warning_ms, self.stt_critical_ms),
                OperationType.TTS.value: ThresholdsMs(self.tts_warning_ms, self.tts_critical_ms),
                OperationType.SALESFORCE.value: ThresholdsMs(self.salesforce_warning_ms, self.salesforce_critical_ms),
                OperationType.RAG.value: ThresholdsMs(self.rag_warning_ms, self.rag_critical_ms),
                **OperationType.registered(),
            }
        )

    @property
    def gen_ai_names(self) -> bool:
        """Whether our spans carry OpenTelemetry's names for generative AI too."""
        return "gen_ai_latest_experimental" in self.semconv_opt_in

    def traces_exporters(self) -> tuple[str, ...]:
        """Where spans go: what OTEL_TRACES_EXPORTER names, else ``otlp`` where an OTLP endpoint is set."""
        if self.traces_exporter is not None:
            return self.traces_exporter
        return ("otlp",) if self.otlp_endpoint or self.otlp_traces_endpoint else ()

    def metrics_exporters(self) -> tuple[str, ...]:
        """Where metrics go: what OTEL_METRICS_EXPORTER names, else ``otlp`` where an OTLP endpoint is set."""
        if self.metrics_exporter is not None:
            return self.metrics_exporter
        return ("otlp",) if self.otlp_endpoint or self.otlp_metrics_endpoint else ()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            if isinstance(value, AnyHttpUrl) or str(name).endswith("_endpoint"):
                yield name, None if value is None else without_credentials(str(value))
            else:
                yield name, scrub(value) if isinstance(value, str) else value


def _known(names: tuple[str, ...] | None, known: set[str]) -> tuple[str, ...] | None:
    for name in names or ():
        if name not in known:
            raise ValueError(f"expected a comma-separated list of none, {', '.join(sorted(known))}")
    return names


def load_otel_from_dotenv() -> None:
    """Put ``OTEL_*`` of a ``.env`` file into the environment, where the SDK reads them; what is set there stays."""
    try:
        written = dotenv_values(".env")
    except UnicodeDecodeError:
        raise ConfigError(_NOT_UTF8) from None
    for name, value in written.items():
        if name.startswith("OTEL_") and value:
            os.environ.setdefault(name, value)


def otel_names() -> list[str]:
    """Names of the ``OTEL_*`` variables that are set."""
    return sorted(name for name in os.environ if name.startswith("OTEL_"))


def load_config() -> LatencyConfig:
    """Read the settings of this process.

    Raises:
        ConfigError: a bad value; names the variable, what was expected, and what was given unless it is a secret.

    """
    try:
        return LatencyConfig()
    except UnicodeDecodeError:
        raise ConfigError(_NOT_UTF8) from None
    except ValidationError as error:
        raise ConfigError("\n".join(_explained(e) for e in error.errors(include_url=False))) from None


def _explained(error: ErrorDetails) -> str:
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    name, given = str(error["loc"][0]), str(error["input"])
    shown = without_credentials(given) if name.endswith("_URL") else scrub(given)
    expected = f"expected {_EXPECTED[name]}" if name in _EXPECTED else _expected(error)
    return f"{name}: {expected}" + ("" if name in _SECRETS else f", got {shown!r}")


def _expected(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in {"float_parsing", "greater_than", "finite_number", "float_type"}:
        return "expected a number of milliseconds above 0"
    if kind.startswith("bool"):
        return "expected true or false"
    if kind.startswith("url"):
        return "expected a URL such as http://host:port"
    if kind.startswith("int") or kind.endswith("_equal"):
        return "expected a port from 0 to 65535"
    if kind == "literal_error":
        return f"expected {error['ctx']['expected']}"
    return error["msg"].removeprefix("Value error, ")
