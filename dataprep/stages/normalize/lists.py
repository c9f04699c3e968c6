"""Rows whose dialogue is lists of plain strings: one that alternates, or one of questions beside one of answers."""

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


def from_parallel(row: Any, roles: Roles) -> Converted:
    """Convert {"input": ["…"], "output": ["…"]}; the last input may lack its output, which ends the dialogue there."""
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; parallel needs an object")
    for key in ("input", "output"):
        if not isinstance(row.get(key), list):
            raise TurnedAway("format-mismatch", f"{key} is {kind_of(row.get(key))}; parallel needs a list")
    inputs, outputs = row["input"], row["output"]
    if len(inputs) - len(outputs) not in (0, 1):
        detail = f"input and output hold {len(inputs)} and {len(outputs)} texts; one output an input is expected"
        raise TurnedAway("uneven-lists", detail)
    messages: list[Message] = []
    for number, text in enumerate(inputs, 1):
        messages.append(("user", _string(text, f"input {number}")))
        if number <= len(outputs):
            where = f"output {number}"
            messages.append(("assistant", checked_answer(_string(outputs[number - 1], where), where)))
    if not messages:
        raise TurnedAway("no-messages", "input is an empty list")
    return with_system(row, messages), tools_text(row.get("tools"))


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


def _string(value: object, where: str) -> str:
    if type(value) is not str:
        raise TurnedAway("bad-message", f"{where} is {kind_of(value)}, expected a string")
    return value
