"""Reads the file of LATENCY_ALERT_RULES_FILE; an error names the rule, the key and what was expected."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ... import semconv
from ...config import ConfigError
from . import schema
from .business_hours import DAYS
from .schema import Rule, RuleFile
from .text import guess

__all__ = ["load_rules"]

_Path = tuple[str | int, ...]
_MAX_SHOWN_CHARS: Final = 80
MAX_FAULTS: Final = 20
"""So many are told at once."""

_CONDITIONS: Final[Mapping[str, type[BaseModel]]] = {
    kind: condition
    for condition in get_args(get_args(schema.Condition)[0])
    for kind in get_args(condition.model_fields["kind"].annotation)
}
_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "rule": Rule,
    "match": schema.Match,
    "hours": schema.Hours,
    **_CONDITIONS,
}

_WINDOW: Final = f"a number of seconds from 1 to {schema.LONGEST_WINDOW_S}"
_COUNT: Final = "a whole number from 1 to 1000000"
_WORDS: Final = "a string or a list of strings"
_EXPECTED: Final[Mapping[str, str]] = {
    "rule": "one or more [[rule]]",
    "name": "a name of 1 to 100 characters",
    "severity": "'warning' or 'critical'",
    "channels": _WORDS + ", such as ['log', 'slack']",
    "cooldown_s": "a number of seconds, 0 or more",
    "text": "a string of 1 to 1000 characters",
    "match": "a table [rule.match]",
    "condition": "a table [rule.condition]",
    "hours": "a table [rule.hours]",
    "operation_type": _WORDS,
    "operation_name": _WORDS,
    "provider": _WORDS,
    "metadata": "a table of strings, numbers or booleans, or of lists of them",
    "kind": "one of " + ", ".join(_CONDITIONS),
    "threshold_ms": "a number of milliseconds above 0",
    "threshold_percent": "a number above 0, at most 100",
    "objective_percent": "a number above 0 and below 100",
    "burn_rate": "a number above 0",
    "per": "'operation' or 'call'",
    "window_s": _WINDOW,
    "long_window_s": _WINDOW,
    "short_window_s": _WINDOW,
    "min_count": _COUNT,
    "count": _COUNT,
    "time_zone": "a time zone such as 'Europe/Paris'",
    "days": "some of " + ", ".join(DAYS),
    "from": "a time of day such as '09:00'",
    "to": "a time of day such as '18:00'",
}


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something that no rule can; a line for each fault, with
            file, rule and key.

    """
    try:
        # Some editors begin a file with a byte order mark.
        written = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        rules = RuleFile.model_validate(written).rule
    except OSError as error:
        raise ConfigError(
            f"{semconv.ENV_ALERT_RULES_FILE}: cannot read {str(path)!r}: {error.strerror or error}"
        ) from None
    except ValidationError as error:
        raise ConfigError(_faults_in(path, written, error)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    _check_names(path, rules)
    return rules


def _faults_in(path: Path, written: Mapping[str, Any], error: ValidationError) -> str:
    """A line for each fault, up to `MAX_FAULTS`."""
    details = error.errors(include_url=False)
    lines = [f"{path}: {_message_of(detail, written)}" for detail in details[:MAX_FAULTS]]
    more = len(details) - len(lines)
    return "\n".join([*lines, f"{path}: {more} more faults"] if more else lines)


def _check_names(path: Path, rules: Sequence[Rule]) -> None:
    first: dict[str, int] = {}
    for number, rule in enumerate(rules, 1):
        before = first.setdefault(rule.name, number)
        if before != number:
            raise ConfigError(f"{path}: rule {number}: name: {rule.name!r} is already the name of rule {before}")


def _message_of(detail: ErrorDetails, written: Mapping[str, Any]) -> str:
    """What pydantic found, in the words of the file."""
    path, message = _without_tags(detail["loc"]), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error" and (key := _leading_key(message)):
        # A check of a whole table names the key itself.
        path, message = (*path, *key), message.partition(": ")[2]
    elif detail["type"].startswith("union_tag"):
        path = (*path, "kind")
    inside = path[2:] if path[:1] == ("rule",) and len(path) > 2 else path
    names = [part for part in inside if isinstance(part, str)]
    return f"{_name_of(path, written)}{'.'.join(names)}: {_explanation_of(detail, path, message)}"


def _explanation_of(detail: ErrorDetails, path: _Path, message: str) -> str:
    kind, key = detail["type"], next((part for part in reversed(path) if isinstance(part, str)), "rule")
    if kind == "value_error":
        return message
    if kind == "extra_forbidden":
        known = _keys_at(detail["loc"])
        return f"unknown key{guess(key, known) or '; expected one of ' + ', '.join(known)}"
    expected = _EXPECTED.get("metadata" if "metadata" in path else key, message)
    if kind in {"missing", "union_tag_not_found"}:
        return f"missing; expected {expected}"
    if kind == "union_tag_invalid":
        given = detail["input"]["kind"]
        return f"expected {expected}, got {_shown(given)}{guess(str(given), _CONDITIONS)}"
    return f"expected {expected}, got {_shown(detail['input'])}"


def _leading_key(message: str) -> tuple[str, ...]:
    key = message.partition(": ")[0]
    parts = tuple(key.split("."))
    return parts if all(part in _EXPECTED for part in parts) else ()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"


def _without_tags(loc: _Path) -> _Path:
    """Without the name of the kind, which pydantic puts after ``condition``."""
    tag = loc.index("condition") + 1 if "condition" in loc else len(loc)
    return loc[:tag] + loc[tag + 1 :] if loc[tag : tag + 1] and loc[tag] in _CONDITIONS else loc


def _keys_at(loc: _Path) -> list[str]:
    """The keys that the table at `loc` (its last part is the wrong one) may have."""
    table: type[BaseModel] = RuleFile
    for part in loc[:-1]:
        table = _TABLES.get(str(part), table)
    return [field.alias or name for name, field in table.model_fields.items()]


def _name_of(path: _Path, written: Mapping[str, Any]) -> str:
    """``rule 'x': ``, or the rule's number from 1 where it has no name."""
    if len(path) < 2 or not isinstance(path[1], int):
        return ""
    rules = written["rule"]
    rule = rules[path[1]] if isinstance(rules, list) else rules
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {name!r}: " if isinstance(name, str) else f"rule {path[1] + 1}: "
