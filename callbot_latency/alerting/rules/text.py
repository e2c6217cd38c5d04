"""What a rule says: its own text with named fields, or ours."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from string import Formatter
from typing import Any, Final

from ...base.text import text_of_any
from ...model.metric import LatencyMetric
from ..display import display_id, display_text

__all__ = ["COMMON_FIELDS", "ENDINGS", "TEXTS", "RuleText", "guess", "in_words", "rule_fields"]

COMMON_FIELDS: Final = (
    "rule",
    "severity",
    "operation_type",
    "operation_name",
    "provider",
    "call_sid",
    "stream_sid",
    "trace_id",
)
_METADATA: Final = "metadata."
_UNKNOWN: Final = "-"
_MAX_VALUE_CHARS: Final = 100


def guess(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where nothing is like it."""
    alike = get_close_matches(word, list(known), n=1)
    return f"; did you mean {alike[0]!r}?" if alike else ""


class RuleText:
    """A text with fields such as ``{value_ms}`` or ``{metadata.queue}``; ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: a field that is not one of `fields`, or a brace without its other.

    """

    def __init__(self, text: str, fields: Collection[str]) -> None:
        self._parts: list[tuple[str, str | None]] = []
        for before, field, form, conversion in Formatter().parse(text):
            if field is not None and (form or conversion):
                raise ValueError(f"{{{field}}}: expected the name alone, without '!' or ':'; values have their units")
            if field is not None and field not in fields and not _key_of(field):
                known = ", ".join(f"{{{name}}}" for name in fields)
                raise ValueError(
                    f"unknown field {{{field}}}{guess(field, fields) or '.'} This kind of rule has {known} "
                    f"and {{metadata.<key>}}"
                )
            self._parts.append((before, field))

    @property
    def metadata_keys(self) -> set[str]:
        """Keys of metadata that the text names."""
        return {key for _, field in self._parts if field and (key := _key_of(field))}

    def render(self, facts: Mapping[str, str], metadata: Mapping[str, Any]) -> str:
        """The text with its fields filled in; what is not known is a dash."""
        return "".join(before + self._value(field, facts, metadata) for before, field in self._parts)

    def _value(self, field: str | None, facts: Mapping[str, str], metadata: Mapping[str, Any]) -> str:
        if field is None:
            return ""
        if key := _key_of(field):
            value = metadata.get(key)
            return _UNKNOWN if value is None else display_text(text_of_any(value), _MAX_VALUE_CHARS)
        return facts.get(field, _UNKNOWN)


def _key_of(field: str) -> str:
    """The key of a metadata field; empty for another one."""
    return field.removeprefix(_METADATA) if field.startswith(_METADATA) else ""


def rule_fields(metric: LatencyMetric) -> dict[str, str]:
    """What fields may say of a measurement."""
    facts = {"operation_type": metric.operation_type.value, "operation_name": display_text(metric.operation_name)}
    if metric.provider:
        facts["provider"] = display_text(metric.provider)
    ids = ("call_sid", "stream_sid", "trace_id")
    return facts | {name: display_id(value) for name in ids if (value := getattr(metric, name)) is not None}


def in_words(seconds: float) -> str:
    """A duration that is read, not computed with: ``45 s``, ``5 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else f"{round(seconds / 3600, 1):g} h"


_STATISTIC_EN: Final = "{kind} is {{value_ms}} over {{window}} ({{count}} measurements), limit {{threshold_ms}}"
_STATISTIC_FR: Final = "{kind} : {{value_ms}} sur {{window}} ({{count}} mesures), limite {{threshold_ms}}"

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "latency": "{operation_type} {operation_name} took {value_ms}, limit {threshold_ms}",
        **{kind: _STATISTIC_EN.format(kind=kind) for kind in ("p50", "p95", "p99", "mean")},
        "error_rate": "{value_percent} failed over {window} ({bad} of {count}), limit {threshold_percent}",
        "timeouts_in_a_row": "{count} timeouts in a row",
        "no_traffic": "no {operation_type} for {silence}, expected within {window}",
        "burn_rate": "{value_percent} took {threshold_ms} or more over {window} ({bad} of {count}), "
        "{burn_rate} times what an objective of {objective_percent} allows",
    },
    "fr": {
        "latency": "{operation_type} {operation_name} a pris {value_ms}, limite {threshold_ms}",
        **{kind: _STATISTIC_FR.format(kind=kind) for kind in ("p50", "p95", "p99")},
        "mean": _STATISTIC_FR.format(kind="moyenne"),
        "error_rate": "{value_percent} en échec sur {window} ({bad} sur {count}), limite {threshold_percent}",
        "timeouts_in_a_row": "{count} délais dépassés de suite",
        "no_traffic": "aucun {operation_type} depuis {silence}, attendu en moins de {window}",
        "burn_rate": "{value_percent} ont pris {threshold_ms} ou plus sur {window} ({bad} sur {count}), "
        "{burn_rate} fois ce que permet un objectif de {objective_percent}",
    },
}
"""What a rule says that has no text of its own, by language and kind of condition."""

ENDINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "lasted": "after {duration}",
        "unknown": "after {duration}: nothing left to judge by",
        "closed": "after {duration}: its hours have ended",
    },
    "fr": {
        "lasted": "après {duration}",
        "unknown": "après {duration} : plus rien pour en juger",
        "closed": "après {duration} : ses horaires sont terminés",
    },
}
"""How the end of a rule is told, by language."""
