"""Reads the file of LATENCY_ALERT_RULES_FILE; whatever is wrong in it is said with its line and key."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ... import semconv
from ...config import ConfigError
from . import schema as room
from .business_hours import DAYS
from .schema import Rule, RuleFile
from .text import guess

__all__ = ["load_rules"]

_Path = tuple[str | int, ...]
_MAX_SHOWN_CHARS: Final = 80
MAX_FAULTS: Final = 20
"""So many are told at once."""
_TOO_DEEP: Final = "lists or tables are nested too deeply"
_TOO_LONG: Final = re.compile(r"[\d_]{4301}")
_LINE: Final = re.compile(r"line (\d+)")

_CONDITIONS: Final[Mapping[str, type[BaseModel]]] = {
    kind: condition
    for condition in get_args(get_args(room.Condition)[0])
    for kind in get_args(condition.model_fields["kind"].annotation)
}
_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "rule": Rule,
    "match": room.Match,
    "hours": room.Hours,
    **_CONDITIONS,
}

_WINDOW: Final = f"a number of seconds from 1 to {room.LONGEST_WINDOW_S}"
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
            file, line and key.

    """
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
        written = tomllib.loads(text)
        rules = RuleFile.model_validate(written).rule
    except OSError as error:
        raise ConfigError(
            f"{semconv.ENV_ALERT_RULES_FILE}: cannot read {str(path)!r}: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).rpartition(" (at ")
        line = int(found[1]) if (found := _LINE.match(where)) else len(text.splitlines())
        raise ConfigError(f"{path}, line {line}: not TOML: {what or error}") from None
    except ValidationError as error:
        raise ConfigError(_faults_in(path, text, written, error)) from None
    except ValueError:
        # The one that the parser of Python does not make its own.
        line = next((n for n, line in enumerate(text.splitlines(), 1) if _TOO_LONG.search(line)), 1)
        raise ConfigError(f"{path}, line {line}: not TOML: a number of more than 4300 digits") from None
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None
    _check_names(path, text, rules)
    return rules


def _faults_in(path: Path, text: str, written: Mapping[str, Any], error: ValidationError) -> str:
    """A line for each fault, up to some: to find the line of one takes a while."""
    details = error.errors(include_url=False)
    try:
        faults = [_Fault(detail, written) for detail in details[:MAX_FAULTS]]
        lines = [f"{path}, line {_line_of(text, fault.path)}: {fault.message}" for fault in faults]
    except RecursionError:  # it could be read, at a depth at which it cannot be shown
        return f"{path}: {_TOO_DEEP}"
    finally:
        _parsed.cache_clear()
    more = len(details) - len(faults)
    return "\n".join([*lines, f"{path}: {more} more faults"] if more else lines)


def _check_names(path: Path, text: str, rules: Sequence[Rule]) -> None:
    first: dict[str, int] = {}
    for number, rule in enumerate(rules):
        if rule.name in first:
            line = _line_of(text, ("rule", number, "name"))
            before = _line_of(text, ("rule", first[rule.name], "name"))
            _parsed.cache_clear()
            raise ConfigError(f"{path}, line {line}: name: {rule.name!r} is already the rule of line {before}")
        first[rule.name] = number


class _Fault:
    """What pydantic found, in the words of the file."""

    def __init__(self, detail: ErrorDetails, written: Mapping[str, Any]) -> None:
        self._detail = detail
        message = detail["msg"].removeprefix("Value error, ")
        self.path: _Path = _without_tags(detail["loc"])
        if detail["type"] == "value_error" and (key := _leading_key(message)):
            # A check of a whole table names the key itself.
            self.path, message = (*self.path, *key), message.partition(": ")[2]
        elif detail["type"].startswith("union_tag"):
            self.path = (*self.path, "kind")
        self.message = f"{_name_of(self.path, written)}{self._key()}: {self._say(message)}"

    def _key(self) -> str:
        inside = self.path[2:] if self.path[:1] == ("rule",) and len(self.path) > 2 else self.path
        return ".".join(str(part) for part in inside if isinstance(part, str))

    def _say(self, message: str) -> str:
        kind, key = self._detail["type"], str(next((p for p in reversed(self.path) if isinstance(p, str)), "rule"))
        if kind == "value_error":
            return message
        if kind == "extra_forbidden":
            known = _keys_at(self._detail["loc"])
            return f"unknown key{guess(key, known) or '; expected one of ' + ', '.join(known)}"
        metadata_key = "metadata" if "metadata" in self.path else key
        expected = _EXPECTED.get(metadata_key, message)
        if kind in {"missing", "union_tag_not_found"}:
            return f"missing; expected {expected}"
        if kind == "union_tag_invalid":
            given = self._detail["input"]["kind"]
            return f"expected {expected}, got {_shown(given)}{guess(str(given), _CONDITIONS)}"
        return f"expected {expected}, got {_shown(self._detail['input'])}"


def _leading_key(message: str) -> tuple[str, ...]:
    key = message.partition(": ")[0]
    parts = tuple(key.split("."))
    return parts if all(part in _EXPECTED for part in parts) else ()


def _shown(value: Any) -> str:
    display_text = repr(value)
    return display_text if len(display_text) <= _MAX_SHOWN_CHARS else display_text[:_MAX_SHOWN_CHARS] + "…"


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
    """``rule 'x': ``, where the rule has a name."""
    if len(path) < 2 or not isinstance(path[1], int):
        return ""
    rules = written["rule"]
    rule = rules[path[1]] if isinstance(rules, list) else rules
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {name!r}: " if isinstance(name, str) else ""


def _line_of(text: str, path: _Path) -> int:
    """The line on which the key at `path` begins, or the nearest thing around it that is written.

    The TOML parser of Python tells no lines. But a file up to some line is a file too: the key begins after the last
    such part of it that can be read and does not have the key yet.
    """
    lines = text.splitlines(keepends=True)
    while path and not _has(_parsed(text), path):
        path = path[:-1]
    without, having = 0, len(lines)
    while having - without > 1:
        middle = (without + having) // 2
        part = next((n for n in range(middle, having) if _parsed("".join(lines[:n])) is not None), None)
        if part is None or _has(_parsed("".join(lines[:part])), path):
            having = middle
        else:
            without = part
    return without + 1


# Faults near each other are looked for in the same parts of the file.
@lru_cache(maxsize=32)
def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(value: Any, path: _Path) -> bool:
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list):
                continue  # a single table where a list may be
            if part >= len(value):
                return False
            value = value[part]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return True
