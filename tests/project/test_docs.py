"""What the documentation says is complete, and its code runs."""

import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest

import callbot_latency
from callbot_latency import semconv, testing
from callbot_latency.model.metric import LatencyMetric
from tests.support.promises import PAGE, held_promises, rows_of, with_tests
from tests.support.scripted_http import webhook
from tests.support.subprocesses import ROOT, clean_environment, run_python

DOCS = ROOT / "docs"
NEVER_SLOW = {
    f"LATENCY_{kind}_{severity}_MS": "600000"
    for kind in ("STT", "TTS", "RAG", "SALESFORCE")
    for severity in ("WARNING", "CRITICAL")
}
"""Settings with which no machine is so busy that an operation becomes an alert."""
PAGES = [ROOT / "README.md", ROOT / "README.fr.md", *sorted(DOCS.glob("*.md")), ROOT / "examples/callbot/README.md"]
REPORTERS_LOGGERS = "callbot_latency.reporters.slack"
"""An example of the logger of a reporter, which has the reporter's name."""
_IMPORT = re.compile(r"from (callbot_latency(?:\.\w+)*) import (\([^)]*\)|[^\n;`]+)")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in _BLOCK.findall(page.read_text()) if kind == language]


@cache
def words(page: Path) -> set[str]:
    return set(re.findall(r"[\w.<>{}-]+", page.read_text()))


@pytest.mark.parametrize("name", semconv.ENVIRONMENT)
def test_every_setting_stands_in_the_docs(name: str) -> None:
    """docs/configuration.md names each environment variable that this package reads."""
    assert name in words(DOCS / "configuration.md")


def test_every_setting_of_the_servers_stands_in_the_docs() -> None:
    """What otel-collector.yaml takes from its environment is documented too."""
    names = set(re.findall(r"\$\{env:(\w+)", (ROOT / "otel-collector.yaml").read_text()))
    assert names
    assert names <= words(DOCS / "configuration.md")


@pytest.mark.parametrize("name", [*semconv.METRICS, *semconv.METRIC_LABELS, *semconv.SPAN_ATTRIBUTES])
def test_every_metric_label_and_attribute_stands_in_the_docs(name: str) -> None:
    """docs/metrics.md names each instrument, label and span attribute."""
    assert name in words(DOCS / "metrics.md")


@pytest.mark.parametrize("key", LatencyMetric.__dataclass_fields__)
def test_every_key_of_a_line_stands_in_the_docs(key: str) -> None:
    """docs/metrics.md names each key of the JSON format."""
    assert f"`{key}`" in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("reason", [v for k, v in vars(semconv).items() if k.startswith("DROPPED_")])
def test_every_reason_of_a_drop_stands_in_the_docs(reason: str) -> None:
    """docs/metrics.md explains each value of the label `reason`."""
    assert f"{reason}`" in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("name", semconv.ENVIRONMENT)
def test_an_example_of_each_setting_of_ours_stands_in_the_env_file(name: str) -> None:
    """.env.example has what is not a threshold, a switch or OpenTelemetry's own, each with a line that says what."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    if not re.search(r"_(WARNING|CRITICAL)_MS$|_ENABLED$|^OTEL_|_FILE_PATH$", name):
        assert any(line.startswith(f"{name}=") for line in lines), name


@pytest.mark.parametrize("name", ["on_deadline", "send_test", "AlertEvent", *testing.__all__])
def test_what_is_public_beside_the_package_itself_is_explained_too(name: str) -> None:
    """Names of `callbot_latency.alerting` and `callbot_latency.testing`, and what the decorator can do."""
    assert any(name in words(page) for page in sorted(DOCS.glob("*.md"))), name


@pytest.mark.real_time
def test_the_test_of_the_channels_in_the_readme_runs(tmp_path: Path) -> None:
    """As it stands there, but for the address."""
    [command] = re.findall(r"^\$ (python -c .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    with webhook() as slack:
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=tmp_path,
            env=clean_environment({"SLACK_WEBHOOK_URL": slack.url}),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert f"\n{done.stdout}" in (ROOT / "README.md").read_text()
    assert len(slack.requests) == 1


@pytest.mark.parametrize("name", callbot_latency.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    """A docstring for whoever asks help(), and a place in the documentation."""
    value = getattr(callbot_latency, name)
    assert inspect.getdoc(type(value) if name.startswith("latency_") else value)
    assert any(name in words(page) for page in PAGES), name


@pytest.mark.parametrize("header", [v for k, v in vars(semconv).items() if k.startswith("HEADER_")])
def test_every_header_stands_in_the_docs(header: str) -> None:
    """docs/one-trace.md names what goes to the team's own services."""
    assert f"`{header}`" in (DOCS / "one-trace.md").read_text()


def mentioned_paths() -> set[str]:
    """The dotted path of each name that the pages import from the package or name, loggers excepted."""
    loggers = {value for name, value in vars(semconv).items() if name.startswith("LOGGER_")}
    paths = set()
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(r"callbot_latency(?:\.[A-Za-z]\w*)+", text))
        paths |= {path for path in named if path not in loggers and not path.startswith(REPORTERS_LOGGERS)}
        for module, names in _IMPORT.findall(text):
            words_of_line = re.sub(r"#.*", "", names).replace("(", " ").replace(")", " ").split(",")
            paths |= {f"{module}.{word.split()[0]}" for word in words_of_line if word.strip()}
    return paths


@pytest.mark.parametrize("path", sorted(mentioned_paths()))
def test_every_path_that_the_pages_mention_can_be_imported(path: str) -> None:
    """A reader may type each import and each dotted name of the documentation."""
    assert pkgutil.resolve_name(path) is not None


@pytest.mark.parametrize("entry_point", distribution("callbot_latency").entry_points, ids=lambda each: each.name)
def test_every_entry_point_can_be_loaded(entry_point: EntryPoint) -> None:
    """OpenTelemetry's auto-instrumentation finds what pyproject.toml announces."""
    assert callable(entry_point.load())


def test_every_logger_is_documented_and_has_a_constant() -> None:
    """The table of docs/operations.md, `semconv` and the code agree: no logger has the name of a module by chance."""
    constants = {value for name, value in vars(semconv).items() if name.startswith("LOGGER_")}
    rows = re.findall(r"^\| (`callbot_latency\.\S+`.*?) \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(callbot_latency\.[\w.]+)", row)}
    assert documented - {"callbot_latency.reporters.slack"} == constants
    sources = {path: path.read_text() for path in Path(callbot_latency.__file__).parent.rglob("*.py")}
    assert [path for path, source in sources.items() if "getLogger(__name__)" in source] == []


def test_every_module_is_in_the_architecture() -> None:
    """docs/architecture.md names each module of each folder, and none that does not exist."""
    package = Path(callbot_latency.__file__).parent
    files = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    modules = {str(path) for path in files if len(path.parts) > 1 and not path.name.startswith("__")}
    text = (DOCS / "architecture.md").read_text().partition("### Modules")[2].partition("\n## ")[0]
    folders = "|".join(sorted(path.name for path in package.iterdir() if path.is_dir()))
    named = set(re.findall(rf"`((?:{folders})/[a-z_/]*[a-z_])`", text))
    assert named == modules


def test_every_command_stands_in_the_readme() -> None:
    """README.md tells each target of the Makefile."""
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "demo" in targets
    said = (ROOT / "README.md").read_text()
    assert [target for target in targets if f"make {target}" not in said] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page: Path) -> None:
    """Each relative link names a file of this repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()) + re.findall(r'src="([^"]+)"', page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tests_of_each_promise_are_those_that_are_marked() -> None:
    """docs/reliability.md: `python -m tests.support.promises` writes its test column from the tests' marks."""
    page, held = PAGE.read_text(), held_promises()
    assert set(held) == set(rows_of(page))
    assert len(held) >= 38
    assert page == with_tests(page, held)


@pytest.mark.real_time
def test_the_page_about_turns_runs(tmp_path: Path) -> None:
    """docs/turns.md: its example is right, and measures a response."""
    done = run_python("\n".join(blocks(DOCS / "turns.md", "python")), tmp_path, NEVER_SLOW, timeout_s=100)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.real_time
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Its Python blocks, one after the other, as a reader would type them."""
    code = "\n".join(blocks(DOCS / "tutorial.md", "python")).replace("shutdown()", "shutdown(60)")
    # The query is slow by the default of one second, and never critical.
    done = run_python(code, tmp_path, {**NEVER_SLOW, "LATENCY_SALESFORCE_WARNING_MS": "1000"}, timeout_s=100)
    assert done.returncode == 0, done.stderr
    mean_ms, first, audio, called, *_ = done.stdout.splitlines()
    assert float(mean_ms) >= 20
    assert first.endswith(" 4")
    size, duration_ms, real_time_factor = map(float, audio.split())
    assert (size, duration_ms) == (6400, 800)
    assert real_time_factor >= 20 / 800
    assert called == "['CA2', 'CA2']"
    [latency_ms] = re.findall(r"^warning query (\S+) >= 1000", done.stdout, re.MULTILINE)
    assert float(latency_ms) >= 1010
    # While find_order() hangs, and when it has ended: by a thread that prints in the middle of others' lines.
    assert done.stdout.count("critical") == done.stdout.count("find_order") == 2
    assert "['One moment please.']" in done.stdout
    assert "{'log': None}" in done.stdout
    assert (tmp_path / "outputs" / "today.csv").exists()


@pytest.mark.real_time
def test_the_reporters_of_the_docs_run(tmp_path: Path) -> None:
    """The one that posts does, to a real server; the one that is proven is right."""
    posting, proven = blocks(DOCS / "reporters.md", "python")
    done = run_python(
        f"""
import requests
from tests.support.scripted_http import Answer, scripted
taken = []
serving = scripted(lambda request: taken.extend(request.json) or Answer(204))
server = serving.__enter__()
{posting.replace("localhost:8000", "{server.where}").replace('"http', 'f"http')}
init()
for _ in range(10): listen()
assert shutdown(60)
assert report_manager.status()["posting"].delivered == len(taken) == 10
{proven}
""",
        tmp_path,
        timeout_s=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.real_time
def test_the_first_lines_of_the_readme_run(tmp_path: Path) -> None:
    """Ten lines of use: they measure what they say."""
    code, *_ = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    done = run_python(code, tmp_path, timeout_s=100)
    assert done.returncode == 0, done.stderr
    assert "speech_to_text/transcribe" in done.stdout


def test_both_readmes_are_in_step() -> None:
    """The French page has the same code, headings and links as the English one."""
    english, french = ROOT / "README.md", ROOT / "README.fr.md"
    for language in ("python", "console"):
        assert blocks(english, language) == blocks(french, language)
    for pattern in (r"^(#+) ", r"`make [a-z-]+`", r"\]\(([^)]+)\)"):
        of_english, of_french = (
            re.findall(pattern, page.read_text().replace("README.fr.md", "README.md"), re.MULTILINE)
            for page in (english, french)
        )
        assert sorted(of_english) == sorted(of_french), pattern
