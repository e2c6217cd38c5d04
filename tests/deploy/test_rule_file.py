"""`python -m callbot_latency.deploy prometheus-rules`: the bot's thresholds become the rules of Prometheus."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbot_latency import OperationType, Thresholds, semconv
from callbot_latency.deploy import Options, rule_file
from callbot_latency.deploy.__main__ import main
from callbot_latency.deploy.alert_rules import tiers
from callbot_latency.deploy.recording_rules import edge
from callbot_latency.model import operation
from callbot_latency.model.operation import ThresholdsMs
from tests.support.subprocesses import ROOT, run_python

COMMITTED = ROOT / "deploy" / "prometheus" / "rules" / "callbot.yml"
COMMAND = "from callbot_latency.deploy.__main__ import main; import sys; sys.exit(main({}))"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither environment nor .env of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in semconv.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of the user's own, gone afterwards."""
    monkeypatch.setattr(operation, "_registered", {})
    OperationType.register("crm_lookup", warning_ms=800, critical_ms=1000)


def _rules(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in file["groups"] for rule in group["rules"]]


def _thresholds_s(file: dict[str, Any]) -> dict[tuple[str, str], float]:
    """What the rules hold to be the thresholds, in seconds."""
    return {
        (rule["labels"]["operation_type"], rule["labels"]["severity"]): float(rule["expr"][len("vector(") : -1])
        for rule in _rules(file)
        if rule.get("record", "").endswith("threshold_seconds:constant")
    }


def test_the_committed_rules_are_in_step_with_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever changes a default or a rule writes deploy/prometheus/rules/callbot.yml anew."""
    assert main(["prometheus-rules", "--check", str(COMMITTED)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_file_out_of_step_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the file is left as it is, and the message has the command's option that helps."""
    file = tmp_path / "rules.yml"
    file.write_text(COMMITTED.read_text().replace("2[.]0", "3[.]0"))
    before = file.read_bytes()
    assert main(["prometheus-rules", "--check", str(file)]) == 1
    assert f"--output {file}" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_output_writes_what_check_expects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in a folder that did not exist; without --output the same goes to standard output."""
    file = tmp_path / "new" / "rules.yml"
    assert main(["prometheus-rules", "--output", str(file)]) == 0
    assert main(["prometheus-rules", "--check", str(file)]) == 0
    assert main(["prometheus-rules"]) == 0
    assert capsys.readouterr().out == file.read_text() == COMMITTED.read_text()


def test_environment_and_dotenv_are_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one configuration: what the bot reads, the rules read."""
    (tmp_path / ".env").write_text("LATENCY_TTS_CRITICAL_MS=2500\nLATENCY_STT_WARNING_MS=1\n")
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "1250.5")
    file = tmp_path / "rules.yml"
    assert main(["prometheus-rules", "--output", str(file)]) == 0
    found = _thresholds_s(yaml.safe_load(file.read_text()))
    assert found["speech_to_text", "warning"] == 1.2505
    assert found["text_to_speech", "critical"] == 2.5
    assert 'le="1.2505"' in file.read_text()
    assert "took longer than 1250.5 ms" in file.read_text()


@pytest.mark.real_time
def test_registered_types_come_by_import(tmp_path: Path) -> None:
    """--import runs the user's module, as the bot does before init()."""
    (tmp_path / "our_types.py").write_text(
        "from callbot_latency import OperationType\n"
        "OperationType.register('crm_lookup', warning_ms=800, critical_ms=1000)\n"
    )
    done = run_python(COMMAND.format(["prometheus-rules", "--import", "our_types"]), tmp_path, timeout_s=100)
    assert done.returncode == 0, done.stderr
    found = _thresholds_s(yaml.safe_load(done.stdout))
    assert (found["crm_lookup", "warning"], found["crm_lookup", "critical"]) == (0.8, 1.0)
    assert len(found) == 10


@pytest.mark.usefixtures("registered")
def test_a_registered_type_has_every_kind_of_rule() -> None:
    """Shares, budget and both alerts, as the four have."""
    rules = _rules(rule_file(Thresholds()))
    for name in {rule.get("record", rule.get("alert")) for rule in rules}:
        types = [
            r["labels"]["operation_type"]
            for r in rules
            if name in r.values() and "operation_type" in r.get("labels", ())
        ]
        assert types.count("crm_lookup") == types.count("speech_to_text"), name


@pytest.mark.parametrize(
    ("threshold_ms", "matcher"),
    [
        (2000, 'le=~"2|2[.]0"'),
        (1500, 'le="1.5"'),
        (1000, 'le=~"1|1[.]0"'),
        (1999.5, 'le="1.9995"'),
        (10_000, 'le=~"10|10[.]0"'),
        (0.01, 'le="1e-05"'),
        (100_000, 'le=~"100|100[.]0"'),
        (1_000_000_000, 'le="1e+06"'),
        (1_234_567_000, 'le="1.234567e+06"'),
    ],
)
def test_an_edge_is_matched_as_either_format_writes_it(threshold_ms: float, matcher: str) -> None:
    """OpenMetrics writes 2.0, the older text format 2; fractions and powers are the same in both."""
    assert edge(threshold_ms) == matcher


def test_a_tier_that_cannot_fire_is_left_out() -> None:
    """With an objective of 90 %, 14.4 times the budget is more than everything."""
    assert [tier.long for tier in tiers(0.95)] == ["1h", "6h", "1d", "3d"]
    assert [tier.long for tier in tiers(0.9)] == ["6h", "1d", "3d"]
    assert [tier.long for tier in tiers(0.5)] == ["3d"]
    windows = re.findall(
        r"bad:ratio_increase(\w+)$",
        "\n".join(r.get("record", "") for r in _rules(rule_file(Thresholds(), Options(0.5)))),
        re.MULTILINE,
    )
    assert sorted(windows) == ["3d", "6h"]


def test_options_stand_in_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """The objective as limits of the tiers, Grafana's address in every alert's link."""
    assert main(["prometheus-rules", "--objective", "99.9%", "--grafana-url", "https://grafana.example.com/"]) == 0
    rules = _rules(yaml.safe_load(capsys.readouterr().out))
    limits = [re.findall(r"> ([\d.]+)", r["expr"]) for r in rules if r.get("alert") == "CallbotErrorBudgetBurning"]
    assert limits == [["0.0144"] * 2, ["0.006"] * 2, ["0.003"] * 2, ["0.001"] * 2]
    links = [rule["annotations"]["dashboard"] for rule in rules if "alert" in rule]
    assert all(link.startswith("https://grafana.example.com/d/callbot-latency") for link in links)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (
            ["prometheus-rules", "--objective", "100"],
            "from 0.0001 to 99.9999, such as 95, got '100'",
        ),
        (["prometheus-rules", "--objective", "99.99999999"], "expected a percentage from 0.0001 to 99.9999"),
        (["prometheus-rules", "--grafana-url", "http://g/{{ x }}"], "without braces"),
        (["prometheus-rules", "--grafana-url", "http://"], "expected a URL"),
        (["prometheus-rules", "--objective", "many"], "expected a percentage"),
        (["prometheus-rules", "--grafana-url", "localhost:3000"], "expected a URL that starts with https://"),
        (["prometheus-rules", "--output", "a", "--check", "b"], "not allowed with"),
    ],
)
def test_wrong_use_is_one_clear_error(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with what was expected."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--check", "nowhere.yml"], "nowhere.yml: No such file or directory"),
        (["--output", "/proc/rules.yml"], "/proc/rules.yml: "),
        (
            ["--import", "no_such_module"],
            "--import no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the file or module and why; no traceback."""
    assert main(["prometheus-rules", *arguments]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_bad_setting_is_the_bots_own_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As init() would say it."""
    monkeypatch.setenv("LATENCY_STT_WARNING_MS", "two")
    assert main(["prometheus-rules"]) == 2
    assert capsys.readouterr().err == "LATENCY_STT_WARNING_MS: expected a number of milliseconds above 0, got 'two'\n"


@pytest.mark.real_time
def test_without_pyyaml_it_says_what_to_install(tmp_path: Path) -> None:
    """It is an extra, and loads on use."""
    code = "import sys; sys.modules['yaml'] = None; " + COMMAND.format(["prometheus-rules"])
    done = run_python(code, tmp_path, timeout_s=100)
    assert done.returncode == 2
    assert "pip install 'callbot-latency[deploy]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_tells_every_option_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Without reading the source."""
    with pytest.raises(SystemExit) as ended:
        main(["prometheus-rules", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for word in ("--output", "--check", "--import", "--objective", "--grafana-url", "Exit codes", "LATENCY_*_MS"):
        assert word in told


def test_thresholds_of_any_kind_make_readable_rules() -> None:
    """Whole milliseconds without a point, others as they were set."""
    thresholds = Thresholds({OperationType.STT.value: ThresholdsMs(0.5, 12345)})
    text = str(rule_file(thresholds))
    assert "longer than 0.5 ms" in text
    assert "took 12345 ms or longer" in text


def test_every_option_stands_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/configuration.md has a row for each."""
    with pytest.raises(SystemExit):
        main(["prometheus-rules", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("options:")[2])) - {"--help"}
    rows = set(re.findall(r"^\| `(--[a-z-]+) ", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))
    assert rows == options
