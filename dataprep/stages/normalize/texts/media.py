"""Rows with images, sound or video beside their text: a conversation without them would teach to answer blindly."""

from typing import Any

from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of

MEDIA_KEYS = ("image", "images", "video", "videos", "audio", "audios")

_PLACES = ("<image", "<video", "<audio", "<|image", "<|video", "<|audio", "<img>", "<vision")
_ANY = frozenset(MEDIA_KEYS)


def refuse_media(row: Any, messages: list[Message]) -> None:
    """Turn away a row whose media belong to its text.

    They do where a text has a place for them, such as `<image>`, and where they are files and not just names of some.
    """
    if type(row) is not dict or _ANY.isdisjoint(row):
        return
    for key in MEDIA_KEYS:
        value = row.get(key)
        if not value:
            continue
        first = value[0] if isinstance(value, list) else value
        if isinstance(first, dict | bytes):
            raise TurnedAway("non-text-content", f"{key} holds {kind_of(first)} beside the text")
        place = next((mark for mark in _PLACES if any(mark in message[1] for message in messages)), None)
        if place is not None:
            raise TurnedAway("non-text-content", f"{key} is not empty, and a text has {place}… for it")
