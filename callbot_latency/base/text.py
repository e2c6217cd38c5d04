"""Text that may leave the process: of any object, well-formed, on one line."""

from typing import Final

__all__ = ["one_line", "text_of_any", "well_formed"]

_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Control characters, those that turn the direction of writing or have no width, and what is no character."""


def well_formed(text: str) -> str:
    """`text` with each half of a surrogate pair replaced by U+FFFD.

    Such a half, from a broken decoder, has no UTF-8: OTLP would refuse the whole batch that it stands in.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of_any(value: object) -> str:
    """``str(value)``, well-formed; empty where it cannot be had, since a user's ``__str__`` may raise anything."""
    try:
        text = str(value)
        return well_formed(text) if type(text) is str else ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - see above
        return ""


def one_line(text: str, limit: int) -> str:
    """`text` without control, bidi and invisible characters, white space as single blanks, cut to `limit`."""
    # What is looked at is bounded too: a megabyte of name costs no more than a line.
    text = text[: 4 * limit]
    if not text.isascii() or not text.isprintable():
        import unicodedata  # here, since importing us is to cost little

        spaced = " ".join(text.split())
        text = "".join(char for char in spaced if unicodedata.category(char) not in _INVISIBLE)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
