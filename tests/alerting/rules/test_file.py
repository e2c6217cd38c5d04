"""What is said of a file of rules that is wrong: one error, with the file, the line and the key."""

import re
from pathlib import Path
from typing import Any

import pytest

from callbot_latency import ConfigError, LatencyConfig, OperationType, init
from callbot_latency.alerting.rules import file as rules_file
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
    ("right", "wrong", "line", "message"),
    [
        (
            "threshold_ms = 4000 ",
            "treshold_ms = 4000",
            16,
            "condition.treshold_ms: unknown key; did you mean 'threshold_ms'?",
        ),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = '4000'",
            16,
            "condition.threshold_ms: expected a number of milliseconds above 0, got '4000'",
        ),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = 0",
            16,
            "condition.threshold_ms: expected a number of milliseconds above 0, got 0",
        ),
        ("threshold_ms = 4000 ", "threshold_ms = nan", 16, "condition.threshold_ms: expected a finite number, got nan"),
        (
            "threshold_ms = 4000 ",
            "threshold_ms = true",
            16,
            "condition.threshold_ms: expected a number of milliseconds above 0, got True",
        ),
        ("threshold_ms = 4000 ", "", 14, "condition.threshold_ms: missing; expected a number of milliseconds above 0"),
        (
            'kind = "p95"',
            'kind = "p59"',
            26,
            "condition.kind: expected one of latency, p50, p95, p99, mean, error_rate, "
            "timeouts_in_a_row, no_traffic, burn_rate, got 'p59'; did you mean 'p99'?",
        ),
        ('kind = "p95"', "", 25, "condition.kind: missing; expected one of latency, "),
        (
            "{value_ms} in",
            "{valu_ms} in",
            10,
            "text: unknown field {valu_ms}; did you mean 'value_ms'? This kind of rule has {rule}, ",
        ),
        ("{value_ms} in", "{count} in", 10, "text: unknown field {count}. This kind of rule has {rule}, "),
        ("{value_ms} in", "{metadata.} in", 10, "text: unknown field {metadata.}"),
        ("{value_ms} in", "{} in", 10, "text: unknown field {}"),
        ("{value_ms} in", "{value_ms in", 10, "text: "),
        ("{value_ms} in", "{value_ms:.0f} in", 10, "text: {value_ms}: expected the name alone"),
        (
            'severity = "critical"',
            'severity = "criticl"',
            7,
            "severity: expected 'warning' or 'critical', got 'criticl'",
        ),
        ("cooldown_s = 600", "cooldown_s = -1", 9, "cooldown_s: expected a number of seconds, 0 or more, got -1"),
        (
            '= "salesforce_api"',
            '= "salesforce"',
            12,
            "match.operation_type: expected one of speech_to_text, text_to_speech, salesforce_api, rag_inference, "
            "got 'salesforce'; did you mean 'salesforce_api'?",
        ),
        ('= "salesforce_api"', "= 5", 12, "match.operation_type: expected a string or a list of strings, got 5"),
        ('["gold", "platinum"]', "[[1]]", 24, "match.metadata.tier: expected a table of strings"),
        ('["gold", "platinum"]', "[]", 24, "match.metadata.tier: expected one or more, got an empty list"),
        (
            '"Europe/Paris"',
            '"Europe/Pariss"',
            31,
            "hours.time_zone: expected a time zone such as 'Europe/Paris', got 'Europe/Pariss'; "
            "did you mean 'Europe/Paris'?",
        ),
        (
            '"tue", ',
            '"tues", ',
            32,
            "hours.days: expected some of mon, tue, wed, thu, fri, sat, sun, got 'tues'; did you mean 'tue'?",
        ),
        ('"08:30"', '"8:30"', 33, "hours.from: expected a time of day such as '09:00', at most '24:00', got '8:30'"),
        ('"19:00"', '"19:60"', 34, "hours.to: expected a time of day"),
        ('"19:00"', '"08:30"', 34, "hours.to: expected another time than from, got '08:30'"),
        (
            "burn_rate = 6",
            "burn_rate = 60",
            104,
            "condition.burn_rate: can never fire: 60 times the 5 % that may be slow are 300 %; expected at most 20",
        ),
        (
            "short_window_s = 300",
            "short_window_s = 3600",
            106,
            "condition.short_window_s: expected less than long_window_s, got 3600 and 3600",
        ),
        (
            "window_s = 900",
            f"window_s = {LONGEST_WINDOW_S + 1}",
            79,
            "condition.window_s: expected a number of seconds from 1 to ",
        ),
        ("count = 5\n", "count = 5.0\n", 67, "condition.count: expected a whole number from 1 to 1000000, got 5.0"),
        (
            '"Speech-to-text slow on average"',
            '"Salesforce query hangs"',
            37,
            "name: 'Salesforce query hangs' is already the rule of line 6",
        ),
        (
            '["log", "slack"]',
            '[\n# who\n"log",\n5\n]',
            8,
            "channels: expected a string or a list of strings, such as ['log', 'slack'], got 5",
        ),
        ('name = "Salesforce query hangs"', "", 5, "name: missing; expected a name of 1 to 100 characters"),
        (
            'operation_type = "speech_to_text"\n[rule.condition]\nkind = "no_',
            '[rule.condition]\nkind = "no_',
            75,
            "match.operation_type: a no_traffic rule names one operation type",
        ),
        ('operation_type = "salesforce_api"', 'operation_type "salesforce"', 12, "not TOML: "),
    ],
)
def test_a_wrong_file_is_told_with_line_and_key(
    tmp_path: Path, right: str, wrong: str, line: int, message: str
) -> None:
    """Whatever is wrong in it."""
    text = EXAMPLE.read_text()
    assert right in text
    file = tmp_path / "rules.toml"
    file.write_text(text.replace(right, wrong, 1))
    with pytest.raises(
        ConfigError, match=rf"(?m)^{re.escape(str(file))}, line {line}: (rule '.+': )?{re.escape(message)}"
    ):
        load_rules(file)


def test_a_whole_file_of_another_kind(tmp_path: Path) -> None:
    """Rules are a list of [[rule]]."""
    file = tmp_path / "rules.toml"
    for text, message in {
        "": ", line 1: rule: missing; expected one or more [[rule]]",
        "rule = []": ", line 1: rule: expected one or more, got an empty list",
        "\n[[rules]]\nname = 'x'": ", line 2: rules: unknown key; did you mean 'rule'?",
        "\n\nrule = 5": ", line 3: rule: expected one or more [[rule]], got 5",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"(?m){re.escape(message)}$"):
            load_rules(file)
    file.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="expected UTF-8$"):
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


def test_of_many_faults_the_first_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how many more there are: a file of wrong rules does not keep `init()` busy."""
    file = tmp_path / "rules.toml"
    file.write_text(GOOD.replace("3000", "-1") * 300)
    looked_for, line_of = 0, rules_file._line_of

    def counted(*given: Any) -> Any:
        nonlocal looked_for
        looked_for += 1
        return line_of(*given)

    monkeypatch.setattr(rules_file, "_line_of", counted)
    with pytest.raises(ConfigError) as raised:
        load_rules(file)
    lines = str(raised.value).splitlines()
    assert len(lines) == MAX_FAULTS + 1
    assert f"line {5 * MAX_FAULTS}: rule 'a': condition.threshold_ms: " in lines[-2]
    assert lines[-1] == f"{file}: {300 - MAX_FAULTS} more faults"
    assert looked_for == MAX_FAULTS  # to find the line of one takes a while


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("3000", "9" * 5000), ", line 5: not TOML: a number of more than 4300 digits"),
        (GOOD.replace("3000", "1_" * 4999 + "1"), ", line 5: not TOML: a number of more than 4300 digits"),
        ("x = " + "[" * 900 + "]" * 900, ": lists or tables are nested too deeply"),
        (GOOD + "x = " + "[" * 20_000, ": lists or tables are nested too deeply"),
        ("x = " + "{a=" * 900 + "1" + "}" * 900, ": lists or tables are nested too deeply"),
    ],
    ids=["digits", "digits in groups", "brackets", "open brackets", "tables"],
)
def test_what_python_s_parser_cannot_take_is_said_too(tmp_path: Path, text: str, message: str) -> None:
    """As one ConfigError."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file) + message)}$"):
        load_rules(file)


def test_what_can_be_read_and_not_be_shown_is_one_error_too(tmp_path: Path) -> None:
    """At whatever depth that is with this Python."""
    file = tmp_path / "rules.toml"
    for depth in range(310, 345):
        file.write_text("x = " + "{a=" * depth + "1" + "}" * depth)
        with pytest.raises(ConfigError):
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
    with pytest.raises(ConfigError, match="line 3"):
        load_rules(file)
    OperationType.register("crm_lookup", warning_ms=1, critical_ms=2)
    assert load_rules(file)[0].match.operation_type == ("crm_lookup",)
