"""Addresses in settings: what an exporter takes for one, and how one is shown."""

import re
from collections.abc import Mapping
from typing import Final

from .scrubbing import scrub

__all__ = ["ENDPOINTS", "without_credentials"]

_HOST: Final = r"(?:[^\s/@:]+(?::[^\s/@]*)?@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s/@:]+)(?::\d{1,5})?"
ENDPOINTS: Final[Mapping[str, re.Pattern[str]]] = {
    "grpc": re.compile(rf"https?://{_HOST}(?:/\S*)?|(?:dns|unix|ipv4|ipv6):\S+|[^\s/@:]+:\d{{1,5}}", re.IGNORECASE),
    "http/protobuf": re.compile(rf"https?://{_HOST}(?:[/?]\S*)?", re.IGNORECASE),
}
"""What an OTLP exporter takes for an address: gRPC also a name with a port, or one of its own schemes."""


def without_credentials(url: str) -> str:
    """A URL with whatever stands before its host taken out, also where it is none for want of a scheme or port."""
    return scrub(re.sub(r"^([\w+.-]*://)?.*@", r"\1[credentials]@", url, flags=re.DOTALL))
