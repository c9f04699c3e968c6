"""Rows whose dialogue is a list of plain strings that alternates between user and assistant."""

from typing import Any

from dataprep.stages.normalize.message import Message, checked_answer
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.tools import tools_text
from dataprep.stages.normalize.turns import LATER_LISTS, TURN_LISTS, Converted, Roles, with_system


def from_alternating(row: Any, roles: Roles) -> Converted:
    """Convert {"data": ["…", "…"]}, or a bare list, of strings: the user's first, then in turns."""
    texts = _strings(row)
    messages: list[Message] = []
    for number, text in enumerate(texts, 1):
        where = f"message {number}"
        if type(text) is not str:
            raise TurnedAway("bad-message", f"{where} is {kind_of(text)}, expected a string")
        messages.append(("user", text) if number % 2 else ("assistant", checked_answer(text, where)))
    return with_system(row, messages), tools_text(row.get("tools")) if isinstance(row, dict) else None


def holds_strings(value: object) -> bool:
    """Tell whether a value is a list whose first item is a string."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _strings(row: Any) -> list[Any]:
    if isinstance(row, list):
        if not row:
            raise TurnedAway("no-messages", "the row is an empty list")
        return row
    found = next((row[key] for key in (*TURN_LISTS, *LATER_LISTS) if holds_strings(row.get(key))), None)
    if found is None:
        raise TurnedAway("format-mismatch", "the row has no list of strings; alternating needs one")
    turns: list[Any] = found
    return turns
