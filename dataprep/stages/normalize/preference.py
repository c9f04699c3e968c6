"""Preference rows whose `chosen` is a message or a list of messages: the dialogue before it, then `chosen`.

What was rejected is not read.
"""

from typing import Any

from dataprep.stages.normalize.answers import question_text
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.tools import tools_text
from dataprep.stages.normalize.turns import (
    LATER_LISTS,
    ROLE_KEYS,
    TURN_LISTS,
    Converted,
    Roles,
    holds_turns,
    read_turns,
    turn_keys,
    with_system,
)


def from_preference(row: Any, roles: Roles) -> Converted:
    """Convert {"conversations" or "prompt", "chosen": {"from", "value"} or [{"role", "content"}]}.

    A `chosen` that begins with another role than the assistant's is the whole dialogue, after a system text that stands
    alone before it. A dialogue that already ends in an answer is kept as it is, without `chosen`.
    """
    if not isinstance(row, dict) or row.get("chosen") is None:
        raise TurnedAway("format-mismatch", "preference needs an object with the key 'chosen'")
    chosen = [row["chosen"]] if isinstance(row["chosen"], dict) else row["chosen"]
    if not isinstance(chosen, list) or not chosen:
        found = "an empty list" if chosen == [] else f"{kind_of(chosen)}, expected a message or a list of messages"
        raise TurnedAway("no-messages", f"chosen is {found}")
    before = _turns_before(row)
    if before is None:
        question = question_text(row)
        messages = _joined([] if question is None else [("user", question)], read_turns(chosen, roles))
    elif before and turn_keys(before[0]) == turn_keys(chosen[0]):
        both = read_turns([*before, *chosen], roles)
        messages = _joined(both[: len(before)], both[len(before) :])
    else:
        messages = _joined(read_turns(before, roles) if before else [], read_turns(chosen, roles))
    return with_system(row, messages), tools_text(row.get("tools"))


def is_preference(row: dict[str, Any]) -> bool:
    """Tell whether `chosen` is a message, or a list that begins with one."""
    chosen = row["chosen"]
    first = chosen[0] if isinstance(chosen, list) and chosen else chosen
    return isinstance(first, dict) and any(first.get(key) is not None for key in ROLE_KEYS)


def _turns_before(row: dict[str, Any]) -> list[Any] | None:
    keys = (*TURN_LISTS, *LATER_LISTS, "prompt")
    return next((row[key] for key in keys if holds_turns(row.get(key))), None)


def _joined(before: list[Message], chosen: list[Message]) -> list[Message]:
    if chosen[0][0] != "assistant":
        alone = all(message[0] == "system" for message in before) and before != chosen[: len(before)]
        return [*before, *chosen] if alone else chosen
    return before if before and before[-1][0] == "assistant" else [*before, *chosen]
