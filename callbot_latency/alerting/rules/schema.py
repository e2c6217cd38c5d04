"""What the file of LATENCY_ALERT_RULES_FILE may say."""

from math import isfinite
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, field_validator, model_validator

from ...model.operation import OperationType, Severity
from .business_hours import DAYS, MINUTES_A_DAY, BusinessHours
from .text import COMMON_FIELDS, RuleText, guess

__all__ = [
    "BurnRate",
    "Condition",
    "ErrorRate",
    "Latency",
    "Match",
    "NoTraffic",
    "Rule",
    "RuleFile",
    "Statistic",
    "TimeoutsInARow",
]

LONGEST_WINDOW_S: Final = 3 * 24 * 3600
_PERCENT: Final = 100.0


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


def _listed(value: Any) -> Any:
    """A single word is as good as a list of it."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise ValueError("expected one or more, got an empty list")
    return tuple(values)


def _globs(value: Any) -> Any:
    """Patterns of text; numbers and booleans as TOML writes them."""
    return tuple(_written(item) for item in _listed(value))


def _written(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


Milliseconds = Annotated[float, Field(gt=0), BeforeValidator(_finite)]
WindowSeconds = Annotated[float, Field(ge=1, le=LONGEST_WINDOW_S), BeforeValidator(_finite)]
Percent = Annotated[float, Field(gt=0, le=_PERCENT), BeforeValidator(_finite)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Globs = Annotated[tuple[str, ...], BeforeValidator(_globs)]


class _Table(BaseModel):
    """A table of the file: TOML's own types, and no key that is not known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)


class Match(_Table):
    """Which measurements a rule is about; what is left out matches all. Several words: any of them.

    Names, providers and metadata are patterns as in a shell: ``*``, ``?``, ``[abc]``; upper and lower case differ.
    """

    operation_type: Names = ()
    operation_name: Globs = ()
    provider: Globs = ()
    metadata: dict[str, Globs] = Field(default_factory=dict)

    @field_validator("operation_type")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        known = [kind.value for kind in OperationType.known()]
        for value in values:
            if value not in known:
                raise ValueError(f"expected one of {', '.join(known)}, got {value!r}{guess(value, known)}")
        return values


class Latency(_Table):
    """One measurement took `threshold_ms` or more."""

    kind: Literal["latency"]
    threshold_ms: Milliseconds


class Statistic(_Table):
    """A percentile or the mean over a window is `threshold_ms` or more."""

    kind: Literal["p50", "p95", "p99", "mean"]
    threshold_ms: Milliseconds
    window_s: WindowSeconds = 300.0
    min_count: Count = 20


class ErrorRate(_Table):
    """Of what ended within a window, `threshold_percent` or more ended as error or timeout."""

    kind: Literal["error_rate"]
    threshold_percent: Percent
    window_s: WindowSeconds = 300.0
    min_count: Count = 20


class TimeoutsInARow(_Table):
    """So many measurements one after the other timed out."""

    kind: Literal["timeouts_in_a_row"]
    count: Count


class NoTraffic(_Table):
    """Nothing has ended for `window_s` seconds."""

    kind: Literal["no_traffic"]
    window_s: Annotated[float, Field(ge=1, le=LONGEST_WINDOW_S), BeforeValidator(_finite)]


class BurnRate(_Table):
    """The error budget of an objective burns `burn_rate` times as fast as it may, over a long and a short window.

    Objective: `objective_percent` of operations, or of phone calls, stay under `threshold_ms`.
    """

    kind: Literal["burn_rate"]
    threshold_ms: Milliseconds
    objective_percent: Annotated[float, Field(gt=0, lt=_PERCENT), BeforeValidator(_finite)]
    per: Literal["operation", "call"] = "operation"
    burn_rate: Annotated[float, Field(gt=0), BeforeValidator(_finite)] = 14.4
    long_window_s: WindowSeconds = 3600.0
    short_window_s: WindowSeconds = 300.0
    min_count: Count = 20

    @property
    def threshold_percent(self) -> float:
        """The share of bad ones from which on the rule fires."""
        return self.burn_rate * (_PERCENT - self.objective_percent)

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        if self.short_window_s >= self.long_window_s:
            raise ValueError(
                f"short_window_s: expected less than long_window_s, got {self.short_window_s:g} "
                f"and {self.long_window_s:g}"
            )
        if self.threshold_percent > _PERCENT:
            raise ValueError(
                f"burn_rate: can never fire: {self.burn_rate:g} times the {_PERCENT - self.objective_percent:g} % that "
                f"may be slow are {self.threshold_percent:g} %; expected at most "
                f"{_PERCENT / (_PERCENT - self.objective_percent):g}"
            )
        return self


Condition = Annotated[Latency | Statistic | ErrorRate | TimeoutsInARow | NoTraffic | BurnRate, Discriminator("kind")]


class Hours(_Table):
    """When a rule is in force."""

    time_zone: str
    days: Names = DAYS
    opens: str = Field(default="00:00", alias="from")
    closes: str = Field(default="24:00", alias="to")

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        known = available_timezones()
        if value not in known:
            hint = guess(value, known) if known else "; this machine has no time zones: pip install tzdata"
            raise ValueError(f"expected a time zone such as 'Europe/Paris', got {value!r}{hint}")
        return value

    @field_validator("days")
    @classmethod
    def _days(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value not in DAYS:
                raise ValueError(f"expected some of {', '.join(DAYS)}, got {value!r}{guess(value, DAYS)}")
        return values

    @field_validator("opens", "closes")
    @classmethod
    def _time(cls, value: str) -> str:
        _minutes(value)
        return value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.opens == self.closes:
            raise ValueError(f"to: expected another time than from, got {self.closes!r}; all day is 00:00 to 24:00")
        if self.opens == "24:00":
            raise ValueError("from: expected a time of day from 00:00 to 23:59, got '24:00'")
        return self

    @property
    def business_hours(self) -> BusinessHours:
        """What decides."""
        days = frozenset(DAYS.index(day) for day in self.days)
        return BusinessHours(ZoneInfo(self.time_zone), days, _minutes(self.opens), _minutes(self.closes))


def _minutes(value: str) -> int:
    hour, colon, minute = value.partition(":")
    if colon and len(hour) == len(minute) == 2 and (hour + minute).isdecimal() and (hour + minute).isascii():
        minutes = int(hour) * 60 + int(minute)
        if int(minute) < 60 and minutes <= MINUTES_A_DAY:
            return minutes
    raise ValueError(f"expected a time of day such as '09:00', at most '24:00', got {value!r}")


class Rule(_Table):
    """One rule of the file."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    severity: Literal["warning", "critical"] = "warning"
    channels: Names | None = None
    cooldown_s: Annotated[float, Field(ge=0), BeforeValidator(_finite)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    match: Match = Match()
    condition: Condition
    hours: Annotated[tuple[Hours, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.condition, NoTraffic) and len(self.match.operation_type) != 1:
            raise ValueError(
                "match.operation_type: a no_traffic rule names one operation type, so that it can say what it waits for"
            )
        if self.text is not None:
            try:
                RuleText(self.text, self.fields)
            except ValueError as wrong:
                raise ValueError(f"text: {wrong}") from None
        return self

    @property
    def level(self) -> Severity:
        """How bad it is when the rule fires."""
        return Severity(self.severity)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names that `text` may use in braces, besides ``metadata.<key>``."""
        return (*COMMON_FIELDS, *_FIELDS[type(self.condition)])


_FIELDS: Final[dict[type[BaseModel], tuple[str, ...]]] = {
    Latency: ("value_ms", "threshold_ms"),
    Statistic: ("value_ms", "threshold_ms", "count", "window"),
    ErrorRate: ("value_percent", "threshold_percent", "bad", "count", "window"),
    TimeoutsInARow: ("count",),
    NoTraffic: ("window", "silence"),
    BurnRate: (
        "value_percent",
        "threshold_percent",
        "threshold_ms",
        "objective_percent",
        "burn_rate",
        "bad",
        "count",
        "window",
        "short_window",
    ),
}


class RuleFile(_Table):
    """The whole file."""

    rule: Annotated[tuple[Rule, ...], BeforeValidator(_listed)]
