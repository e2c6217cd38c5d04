"""Twilio's webhook and TwiML: pure functions, for whatever web framework runs them."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import quoteattr  # nosec B406 # it writes, and parses nothing

__all__ = ["MAX_PARAMETER_CHARACTERS", "call_sid_of", "custom_parameters", "stream_parameters"]

MAX_PARAMETER_CHARACTERS = 499
"""How long name and value of a TwiML ``<Parameter>`` may be together; Twilio wants them under 500."""


def call_sid_of(form: Mapping[str, Any] | str | bytes) -> str | None:
    """The call's id in what Twilio posts to a webhook, or None where there is none.

    Args:
        form: the fields of the form, each a string or a list of them (as `parse_qs` gives), or the body as it came.

    """
    if isinstance(form, bytes):
        form = form.decode("utf-8", "replace")
    if isinstance(form, str):
        form = parse_qs(form)
    if not isinstance(form, Mapping):
        return None
    value = form.get("CallSid")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = value[0] if value else None
    return value if isinstance(value, str) and value else None


def stream_parameters(parameters: Mapping[str, str]) -> str:
    """`parameters` as TwiML, to stand inside ``<Stream>``; they come back in the message ``start``.

    Raises:
        ValueError: name and value are longer than Twilio takes.

    """
    for name, value in parameters.items():
        if len(name) + len(value) > MAX_PARAMETER_CHARACTERS:
            raise ValueError(f"{name}: expected at most {MAX_PARAMETER_CHARACTERS} characters of name and value")
    return "".join(
        f"<Parameter name={quoteattr(name)} value={quoteattr(value)} />" for name, value in parameters.items()
    )


def custom_parameters(message: Mapping[str, Any]) -> dict[str, str]:
    """What `stream_parameters` put into the TwiML, out of the message ``start``; empty for any other message."""
    start = message.get("start") if isinstance(message, Mapping) else None
    parameters = start.get("customParameters") if isinstance(start, Mapping) else None
    if not isinstance(parameters, Mapping):
        return {}
    return {name: value for name, value in parameters.items() if isinstance(name, str) and isinstance(value, str)}
