"""What is said of a file of rules that is wrong: one error, with the file, the rule and the key."""

import re
import tomllib
from pathlib import Path

import pytest

from callbot_latency import ConfigError, LatencyConfig, OperationType, init
from callbot_latency.alerting.rules.file import _CONDITIONS, _EXPECTED, _TABLES, MAX_FAULTS, load_rules
from callbot_latency.alerting.rules.schema import LONGEST_WINDOW_S, RuleFile
from callbot_latency.runtime import lifecycle as runtime_module

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "alert_rules.toml"


def test_the_example_shows_each_kind() -> None:
    """And is right."""
    kinds = {rule.condition.kind for rule in load_rules(EXAMPLE)}
    assert {"mean" if kind in {"p50", "p95", "p99"} else kind for kind in kinds} == set(_CONDITIONS) - {
        "p50",
        "p95",
        "p99",
    }


def test_every_key_is_documented_and_has_words_for_what_is_expected() -> None:
    """docs/alert-rules.md names each key and each kind; so does the error of a wrong value."""
    page = (ROOT / "docs" / "alert-rules.md").read_text()
    tables = [RuleFile, *_TABLES.values()]
    keys = {field.alias or name for table in tables for name, field in table.model_fields.items()}
    assert set(_EXPECTED) == keys
    for word in (*keys - {"rule"}, *_CONDITIONS):
        assert f"`{word}`" in page, word
    for rule in load_rules(EXAMPLE):
        for field in rule.fields:
            assert f"`{{{field}}}`" in page, field


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "threshold_ms = 4000 ",
            "treshold_ms = 4000",
            "condition.treshold_ms: unknown key; did you mean 'threshold_ms'?",
        ),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = '4000'",
            "condition.threshold_ms: expected a number of milliseconds above 0, got '4000'",
        ),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = 0",
            "condition.threshold_ms: expected a number of milliseconds above 0, got 0",
        ),
        ("threshold_ms = 4000 ", "threshold_ms = nan", "condition.threshold_ms: expected a finite number, got nan"),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = true",
            "condition.threshold_ms: expected a number of milliseconds above 0, got True",
        ),
        ("threshold_ms = 4000 ", "", "condition.threshold_ms: missing; expected a number of milliseconds above 0"),
        (
            'kind = "p95"',
            'kind = "p59"',
            "condition.kind: expected one of latency, p50, p95, p99, mean, error_rate, "
            "timeouts_in_a_row, no_traffic, burn_rate, got 'p59'; did you mean 'p99'?",
        ),
        ('kind = "p95"', "", "condition.kind: missing; expected one of latency, "),
        (
            "{value_ms} in",
            "{valu_ms} in",
            "text: unknown field {valu_ms}; did you mean 'value_ms'? This kind of rule has {rule}, ",
        ),
        ("{value_ms} in", "{count} in", "text: unknown field {count}. This kind of rule has {rule}, "),
        ("{value_ms} in", "{metadata.} in", "text: unknown field {metadata.}"),
        ("{value_ms} in", "{} in", "text: unknown field {}"),
        ("{value_ms} in", "{value_ms in", "text: "),
        ("{value_ms} in", "{value_ms:.0f} in", "text: {value_ms}: expected the name alone"),
        (
            'severity = "critical"',
            'severity = "criticl"',
            "severity: expected 'warning' or 'critical', got 'criticl'",
        ),
        ("cooldown_s = 600", "cooldown_s = -1", "cooldown_s: expected a number of seconds, 0 or more, got -1"),
        (
            '= "salesforce_api"',
            '= "salesforce"',
            "match.operation_type: expected one of speech_to_text, text_to_speech, salesforce_api, rag_inference, "
            "got 'salesforce'; did you mean 'salesforce_api'?",
        ),
        ('= "salesforce_api"', "= 5", "match.operation_type: expected a string or a list of strings, got 5"),
        ('["gold", "platinum"]', "[[1]]", "match.metadata.tier: expected a table of strings"),
        ('["gold", "platinum"]', "[]", "match.metadata.tier: expected one or more, got an empty list"),
        (
            '"Europe/Paris"',
            '"Europe/Pariss"',
            "hours.time_zone: expected a time zone such as 'Europe/Paris', got 'Europe/Pariss'; "
            "did you mean 'Europe/Paris'?",
        ),
        (
            '"tue", ',
            '"tues", ',
            "hours.days: expected some of mon, tue, wed, thu, fri, sat, sun, got 'tues'; did you mean 'tue'?",
        ),
        ('"08:30"', '"8:30"', "hours.from: expected a time of day such as '09:00', at most '24:00', got '8:30'"),
        ('"19:00"', '"19:60"', "hours.to: expected a time of day"),
        ('"19:00"', '"08:30"', "hours.to: expected another time than from, got '08:30'"),
        (
            "burn_rate = 6",
            "burn_rate = 60",
            "condition.burn_rate: can never fire: 60 times the 5 % that may be slow are 300 %; expected at most 20",
        ),
        (
            "short_window_s = 300",
            "short_window_s = 3600",
            "condition.short_window_s: expected less than long_window_s, got 3600 and 3600",
        ),
        (
            "window_s = 900",
            f"window_s = {LONGEST_WINDOW_S + 1}",
            "condition.window_s: expected a number of seconds from 1 to ",
        ),
        ("count = 5\n", "count = 5.0\n", "condition.count: expected a whole number from 1 to 1000000, got 5.0"),
        (
            '"Speech-to-text slow on average"',
            '"Salesforce query hangs"',
            "name: 'Salesforce query hangs' is already the name of rule 1",
        ),
        (
            '["log", "slack"]',
            '[\n# who\n"log",\n5\n]',
            "channels: expected a string or a list of strings, such as ['log', 'slack'], got 5",
        ),
        ('name = "Salesforce query hangs"', "", "name: missing; expected a name of 1 to 100 characters"),
        (
            'operation_type = "speech_to_text"\n[rule.condition]\nkind = "no_',
            '[rule.condition]\nkind = "no_',
            "match.operation_type: a no_traffic rule names one operation type",
        ),
        (
            'operation_type = "salesforce_api"',
            'operation_type "salesforce"',
            "not TOML: Expected '=' after a key in a key/value pair (at line 12, column 16)",
        ),
    ],
)
def test_a_wrong_file_is_told_with_rule_and_key(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    """Whatever is wrong in it. A rule without a name of its own is named by its number."""
    text = EXAMPLE.read_text()
    before, found, _ = text.partition(right)
    assert found
    number = before.count("[[rule]]")
    named = f"rule {tomllib.loads(text)['rule'][number - 1]['name']!r}: "
    where = "" if message.startswith("not TOML") else f"rule {number}: " if message.startswith("name: ") else named
    file = tmp_path / "rules.toml"
    file.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(f'{file}: {where}{message}')}"):
        load_rules(file)


def test_a_whole_file_of_another_kind(tmp_path: Path) -> None:
    """Rules are a list of [[rule]]."""
    file = tmp_path / "rules.toml"
    for text, message in {
        "": ": rule: missing; expected one or more [[rule]]",
        "rule = []": ": rule: expected one or more, got an empty list",
        "\n[[rules]]\nname = 'x'": ": rules: unknown key; did you mean 'rule'?",
        "\n\nrule = 5": ": rule: expected one or more [[rule]], got 5",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"(?m){re.escape(message)}$"):
            load_rules(file)
    file.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not TOML: .utf-8. codec"):
        load_rules(file)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """A line for each."""
    file = tmp_path / "rules.toml"
    file.write_text("[[rule]]\nnam = 'x'\n[rule.condition]\nkind = 'latency'\nthreshold_ms = 'x'\n")
    with pytest.raises(ConfigError) as raised:
        load_rules(file)
    assert len(str(raised.value).splitlines()) == 3


GOOD = """[[rule]]
name = "a"
[rule.condition]
kind = "latency"
threshold_ms = 3000
"""


def test_of_many_faults_the_first_are_told(tmp_path: Path) -> None:
    """And how many more there are."""
    file = tmp_path / "rules.toml"
    file.write_text("".join(GOOD.replace("3000", "-1").replace('"a"', f'"{n}"') for n in range(1, 301)))
    with pytest.raises(ConfigError) as raised:
        load_rules(file)
    lines = str(raised.value).splitlines()
    assert len(lines) == MAX_FAULTS + 1
    assert f": rule '{MAX_FAULTS}': condition.threshold_ms: " in lines[-2]
    assert lines[-1] == f"{file}: {300 - MAX_FAULTS} more faults"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("3000", "9" * 5000), ": not TOML: "),
        (GOOD.replace("3000", "1_" * 4999 + "1"), ": not TOML: "),
    ],
    ids=["digits", "digits in groups"],
)
def test_what_python_s_parser_cannot_take_is_said_too(tmp_path: Path, text: str, message: str) -> None:
    """As one ConfigError."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file) + message)}"):
        load_rules(file)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors of Windows write one."""
    file = tmp_path / "rules.toml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert load_rules(file)[0].name == "a"


def test_a_file_that_is_not_there_stops_init_and_names_the_setting(isolated: Path) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match="^LATENCY_ALERT_RULES_FILE: cannot read 'nowhere.toml': No such file"):
        init(LatencyConfig(alert_rules_file=Path("nowhere.toml")))
    assert runtime_module._runtime is None


@pytest.mark.usefixtures("fresh_types")
def test_types_of_one_s_own_may_be_matched(tmp_path: Path) -> None:
    """Registered before `init()`, as for thresholds."""
    file = tmp_path / "rules.toml"
    file.write_text(
        "[[rule]]\nname='x'\nmatch={operation_type='crm_lookup'}\ncondition={kind='latency',threshold_ms=1}"
    )
    with pytest.raises(ConfigError, match="rule 'x': match.operation_type: expected one of "):
        load_rules(file)
    OperationType.register("crm_lookup", warning_ms=1, critical_ms=2)
    assert load_rules(file)[0].match.operation_type == ("crm_lookup",)
