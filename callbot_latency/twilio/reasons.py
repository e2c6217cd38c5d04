"""Why something of a call is not measured: the values of `reason` that a media stream gives."""

from typing import Final

from .. import semconv

NO_ANCHOR: Final = semconv.UNMEASURED_NO_ANCHOR
"""The end of speech was told by a word's end, without saying where that is in the audio."""
UNKNOWN_ANCHOR: Final = semconv.UNMEASURED_UNKNOWN_ANCHOR
"""The end of speech was told with a source that is none."""
IMPOSSIBLE_ANCHOR: Final = semconv.UNMEASURED_IMPOSSIBLE_ANCHOR
"""The caller's speech ended in the future, before it began, before the stream did, or a duration is negative."""
STALE_ANCHOR: Final = semconv.UNMEASURED_STALE_ANCHOR
"""The end of speech is that of an earlier turn, or more than a minute old."""
IMPOSSIBLE_ONSET: Final = "impossible_onset"
"""The caller's speech began before it ended the last time, or only after the bot had reacted to it."""
NO_MARK: Final = "no_mark"
"""The bot said something and sent no mark: when that was played is not known."""
NO_END_MARK: Final = "no_end_mark"
"""No mark was sent after the last audio: when that was played is not known."""
LOST_MARK: Final = "lost_mark"
"""A mark did not come back."""
MARK_OUT_OF_ORDER: Final = "mark_out_of_order"
"""A later mark came back before this one."""
UNKNOWN_MARK: Final = "unknown_mark"
"""A mark came back that was not sent, or came back twice."""
IMPOSSIBLE_MARK: Final = "impossible_mark"
"""A mark came back sooner than the audio before it can be played."""
CLEARED_BEFORE_MARK: Final = "cleared_before_mark"
"""The audio was taken back before its first mark: whether it was played is not known."""
HUNG_UP_BEFORE_MARK: Final = "hung_up_before_mark"
"""The call ended before the first mark of what the bot was saying."""
OTHER_STREAM: Final = "other_stream"
"""A message belongs to another stream than the one that began here."""

REASONS: Final = frozenset(value for name, value in list(globals().items()) if name.isupper())
