"""`instrument()` and `uninstrument()`: what they say of a wrong call, and that importing costs nothing."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import openai.resources.chat.completions as completions
import pytest
from opentelemetry.instrumentation.dependencies import DependencyConflictError

from callbot_latency import instrument, uninstrument
from callbot_latency.instrumentation.openai import OpenAIInstrumentor
from tests.support.subprocesses import ROOT, clean_environment, facts_of, run_python, written

pytestmark = pytest.mark.real_time


def test_a_library_that_is_too_old_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the package, the version that is needed and the one that is there; nothing is wrapped."""
    monkeypatch.setattr(OpenAIInstrumentor, "requires", ("openai >= 99",))
    found = importlib.metadata.version("openai")
    before = vars(completions.Completions)["create"]
    with pytest.raises(ImportError, match=rf"openai >= 99 is needed, found openai {found}"):
        instrument("salesforce", "openai")
    assert vars(completions.Completions)["create"] is before


def test_a_library_that_is_missing_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the package and how to install it."""
    monkeypatch.setattr(OpenAIInstrumentor, "requires", ("no-such-client >= 1.2",))
    with pytest.raises(ImportError, match=r"no-such-client >= 1\.2 is needed.*pip install 'no-such-client>=1\.2'"):
        instrument("openai")
    with pytest.raises(DependencyConflictError):
        OpenAIInstrumentor().instrument(skip_dep_check=True)


@pytest.mark.parametrize("clients", [("opanai",), ("rag",)])
def test_an_unknown_client_is_an_error(clients: tuple[str, ...]) -> None:
    """Which lists the known ones."""
    with pytest.raises(ValueError, match="expected one of openai, google, salesforce"):
        instrument(*clients)


@pytest.mark.parametrize("rag_url", ["rag.internal", {}, 3, {"": "http://a"}, {"search": "a"}])
def test_a_rag_url_that_is_none_is_an_error(rag_url: object) -> None:
    """Said at once, without quoting it."""
    with pytest.raises(ValueError, match="rag_url: expected"):
        instrument(rag_url=rag_url)  # type: ignore[arg-type]


def test_importing_loads_no_client(tmp_path: Path) -> None:
    """Neither the clients nor OpenTelemetry's instrumentation, until something is instrumented."""
    code = """
from callbot_latency import instrument, uninstrument
uninstrument()
tell(loaded=[name for name in ("openai", "google.cloud", "simple_salesforce", "httpx", "wrapt",
                               "opentelemetry.instrumentation") if name in sys.modules])
"""
    assert facts_of(run_python(code, tmp_path)) == {"loaded": []}


def test_without_the_extra_the_error_says_so(tmp_path: Path) -> None:
    """One line that names the extra."""
    code = """
sys.modules["opentelemetry.instrumentation"] = None
from callbot_latency import instrument
try:
    instrument("openai")
except ImportError as error:
    tell(said=str(error))
"""
    assert "pip install 'callbot-latency[instrument]'" in facts_of(run_python(code, tmp_path))["said"]


def test_before_init_calls_pass_and_one_line_says_so(tmp_path: Path) -> None:
    """A wrapped client works as if bare."""
    code = """
from callbot_latency import instrument
import httpx
instrument(rag_url="http://rag.internal/")
transport = httpx.MockTransport(lambda request: httpx.Response(200, text="ok"))
with httpx.Client(transport=transport) as client:
    tell(said=[client.get("http://rag.internal/").text for _ in range(2)])
"""
    done = run_python(code, tmp_path)
    assert facts_of(done) == {"said": ["ok", "ok"]}
    assert done.stderr.count("measures nothing yet") == 1


APP = """
import httpx
transport = httpx.MockTransport(lambda request: httpx.Response(200, text="ok"))
with httpx.Client(transport=transport) as client:
    client.get("http://rag.internal/search")
import openai.resources.audio.speech as speech
print(type(vars(speech.Speech)["create"]).__name__)
"""


def test_opentelemetry_instrument_finds_them(tmp_path: Path) -> None:
    """By the entry points: openai without a setting, RAG by LATENCY_RAG_URL."""
    (tmp_path / "app.py").write_text(APP)
    # As an installer would have written them; what stands first on the path is the one that counts.
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "installed" / "callbot_latency-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: callbot-latency\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items())
    )
    path = os.pathsep.join([str(info.parent), str(ROOT)])
    quiet = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    done = subprocess.run(
        [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, "app.py"],
        cwd=tmp_path,
        env=clean_environment({**quiet, "LATENCY_RAG_URL": "http://rag.internal/", "PYTHONPATH": path}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "FunctionWrapper\n"), done.stderr
    assert [line["operation_name"] for line in written(tmp_path)] == ["request"]


def test_uninstrument_of_what_is_not_wrapped_does_nothing() -> None:
    """However often."""
    uninstrument()
    uninstrument("openai", "rag")
