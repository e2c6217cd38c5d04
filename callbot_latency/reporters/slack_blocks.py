"""An alert as Slack's Block Kit, with a plain text for whatever shows no blocks."""

from typing import Any, Final

from slack_sdk.models.blocks import (
    Block,
    HeaderBlock,
    PlainTextObject,
    RichTextBlock,
    RichTextElement,
    RichTextElementParts,
    RichTextSectionElement,
)

from ..alerting.display import display_url, neutralise_mentions
from ..alerting.message import Field, message_fields, one_line_message, title_of
from ..alerting.translations import say
from ..base.text import one_line
from ..model.alert import Alert, Language

__all__ = ["slack_message"]

TEXT_CHARS: Final = 3_000
"""Longest plain text."""
TITLE_CHARS: Final = HeaderBlock.text_max_length
FACT_CHARS: Final = 1_000

_Text = RichTextElementParts.Text
_Style = RichTextElementParts.TextStyle


def slack_message(alert: Alert, language: Language = "en") -> dict[str, Any]:
    """What is posted: ``text`` for notifications, ``blocks`` for the channel.

    Values stand in plain text and rich text objects, which Slack does not search for mentions, links or marks;
    the one link is an object of its own. Besides, nothing in them could be one.

    Raises:
        slack_sdk.errors.SlackObjectFormationError: a limit of Block Kit is exceeded; a fault of ours.

    """
    title = one_line(neutralise_mentions(title_of(alert, language)), TITLE_CHARS)
    blocks: list[Block] = [HeaderBlock(text=PlainTextObject(text=title, emoji=False)), *_facts(alert, language)]
    return {
        "text": _plain(one_line_message(alert, language)),
        "blocks": [block.to_dict() for block in blocks],
        # The plain text is what it is: no bold from an asterisk, no mention from a name, no preview of the trace.
        "mrkdwn": False,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _facts(alert: Alert, language: Language) -> list[Block]:
    """One section, a line a fact: Slack keeps the order and the line breaks on every device."""
    lines = [_line(fact) for fact in message_fields(alert, language)]
    url = display_url(alert.trace_url)
    if url:
        lines.append([RichTextElementParts.Link(url=url, text=say(language, "open the trace"))])
    elements = [element for line in lines for element in (_Text(text="\n"), *line)][1:]
    return [RichTextBlock(elements=[RichTextSectionElement(elements=elements)])] if elements else []


def _line(fact: Field) -> list[RichTextElement]:
    value = one_line(neutralise_mentions(fact.value), FACT_CHARS)
    style = _Style(code=True) if fact.is_id else None
    return [_Text(text=f"{fact.label}  ", style=_Style(bold=True)), _Text(text=value, style=style)]


def _plain(text: str) -> str:
    """`text` as the field ``text`` wants it, where three characters are written as entities."""
    text = neutralise_mentions(text)
    longest = text.replace("&", "&amp;")
    return longest if len(longest) <= TEXT_CHARS else one_line(text, TEXT_CHARS // 5).replace("&", "&amp;")
