"""Text that may leave the process: of any object, and well-formed."""

__all__ = ["text_of_any", "well_formed"]


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
