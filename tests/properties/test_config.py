"""What holds for every setting."""

import os
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callbot_latency import ConfigError, LatencyConfig
from callbot_latency.config import load_config
from callbot_latency.semconv import ENVIRONMENT

SECRETS = ("SLACK_WEBHOOK_URL", "INFLUXDB_TOKEN", "LATENCY_TRACE_KEY")
MILLISECONDS = tuple(name for name in ENVIRONMENT if name.endswith("_MS"))

printable = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=30)
numbers = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10),
    st.text("0123456789.-+eE_ infna", max_size=8),
    st.integers().map(str),
    st.floats().map(str),
)


@pytest.fixture(autouse=True)
def _nothing_set(isolated: object) -> None:
    """No setting but those of the test."""


def loaded(settings: dict[str, str]) -> LatencyConfig | str:
    """The settings, or what was said of them."""
    with patch.dict(os.environ, settings):
        try:
            return load_config()
        except ConfigError as error:
            return str(error)


@given(st.sampled_from(MILLISECONDS), numbers)
@example("LATENCY_STT_WARNING_MS", "nan")
@example("LATENCY_STT_WARNING_MS", "1_000")
def test_any_threshold_is_a_positive_number_or_an_error_that_names_it(name: str, text: str) -> None:
    """Nothing in between."""
    config = loaded({name: text})
    if isinstance(config, str):
        assert name in config
        assert "expected" in config
        assert "got" in config
    else:
        for kind in ("stt", "tts", "salesforce", "rag"):
            assert 0 < getattr(config, f"{kind}_warning_ms") <= getattr(config, f"{kind}_critical_ms") < float("inf")


@pytest.mark.promise("wrong-settings")
@given(st.dictionaries(st.sampled_from(ENVIRONMENT), printable, max_size=5))
def test_any_environment_is_read_or_refused_by_name(settings: dict[str, str]) -> None:
    """Every line of the error begins with a variable that was set, or the one that it disagrees with."""
    config = loaded(settings)
    if isinstance(config, str):
        for line in config.splitlines():
            assert line.partition(":")[0] in settings or line.partition(":")[0] in MILLISECONDS


@pytest.mark.promise("wrong-settings")
@given(st.sampled_from(SECRETS), st.text("abcdefghijkXYZ0123456789-_/", min_size=6, max_size=30), st.booleans())
def test_a_secret_is_never_told(name: str, secret: str, valid: bool) -> None:
    """Neither in the error nor in the repr, whatever it looks like."""
    secret = f"s3cr3t{secret}"
    value = f"https://{secret}" if valid and name == "SLACK_WEBHOOK_URL" else secret
    config = loaded({name: value, **({} if valid else {"LATENCY_STT_WARNING_MS": "x"})})
    for text in (str(config), repr(config)):
        assert secret not in text
    if not valid:
        assert isinstance(config, str)


@pytest.mark.promise("wrong-settings")
@given(st.sampled_from(["INFLUXDB_URL", "PROMETHEUS_PUSHGATEWAY_URL"]), st.text("abcXYZ019", min_size=6, max_size=20))
def test_credentials_in_a_url_are_never_told(name: str, password: str) -> None:
    """Whether the URL is right or wrong."""
    password = f"s3cr3t{password}"
    right, wrong_port = f"http://user:{password}@host:1", f"http://user:{password}@host:port"
    for url in (right, wrong_port, f"//user:{password}@host", f"user:{password}@host", f"http://user:/{password}@h:x"):
        config = loaded({name: url})
        assert password not in str(config)
        assert password not in repr(config)
