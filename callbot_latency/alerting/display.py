"""What of a measurement may stand in a message: one line, nothing invisible, no phone number, no secret."""

import re
from typing import Final
from urllib.parse import quote

from ..base.scrubbing import scrub
from ..base.text import one_line

__all__ = ["display_id", "display_text", "display_url", "neutralise_mentions"]

NAME_CHARS: Final = 120
ID_CHARS: Final = 120
URL_CHARS: Final = 1_000
UNNAMED: Final = "?"
"""Stands for a text in which nothing can be seen."""

_URL: Final = re.compile(r"https?://[^/\s]+", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"^(https?://)[^/?#]*@", re.IGNORECASE)
_ADDRESSED: Final = re.compile(r"@(?=(?:here|channel|everyone)\b)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[+@/]")
_SECRET: Final = re.compile(r"\[(?:secret|jwt)\]")
_AT: Final = "\uff20"
"""Looks like it, and calls nobody."""
_BRACKETS: Final = str.maketrans("<>", "\u2039\u203a")


def display_text(text: object, limit: int = NAME_CHARS) -> str:
    """A name or another text of the application's, phone numbers and secrets scrubbed."""
    return one_line(scrub(one_line(str(text), 4 * limit)), limit) or UNNAMED


def display_id(text: object) -> str:
    """An id as it is: what a person copies must be found again. One that holds an address, a number or a secret is
    scrubbed; digits alone may be a number or an id, and stay.
    """
    line = one_line(str(text), ID_CHARS)
    scrubbed = scrub(line)
    return scrubbed if _ADDRESS.search(line) or _SECRET.search(scrubbed) else line or UNNAMED


def display_url(url: str | None) -> str | None:
    """`url`, safe to stand in a link; None where it is none."""
    if url is None or len(url) > URL_CHARS or not _URL.match(url):
        return None
    return quote(_CREDENTIALS.sub(r"\1", one_line(url, URL_CHARS)), safe="%/:?#[]!$&'()*+,;=~")


def neutralise_mentions(text: str) -> str:
    """`text` in which no chat finds a command, a mention or a link: ``<!channel>``, ``<url|text>``, ``@here``.

    As long as it was, so that limits are kept.
    """
    return _ADDRESSED.sub(_AT, text.translate(_BRACKETS))
