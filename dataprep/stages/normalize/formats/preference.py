"""Preference rows: a dialogue, the answer that was chosen, and the one that was rejected.

Which side is read is the user's to settle (`sides_of`); each side is then a row whose `chosen` is that side's answer,
and `from_preference` reads the dialogue before it, then `chosen`.
"""

from typing import Any

from dataprep.stages.normalize.formats.answers import ANSWER_KEYS, question_text
from dataprep.stages.normalize.formats.cells import as_list, parsed_cell
from dataprep.stages.normalize.formats.turns import (
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
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.texts.tools import row_tools

# Only a row with one of these has sides.
SIDE_KEYS = frozenset(("chosen", "rejected", "rejected_response", "rejected_messages", "label", "kto_tag"))

# Where the dialogue before an answer may stand, if it is a list of turns.
_BEFORE = (*TURN_LISTS, *LATER_LISTS, "prompt", "question", "query", "input", "context", "history")
_TEXTS = ("content", "value", "text", "response", "answer")


def from_preference(row: Any, roles: Roles) -> Converted:
    """Convert {"conversations" or "prompt", "chosen": {"from", "value"}, [{"role", "content"}] or a text}.

    A `chosen` that begins with another role than the assistant's is the whole dialogue, after a system text that stands
    alone before it. A dialogue that already ends in an answer is kept as it is, without `chosen`.
    """
    if not isinstance(row, dict) or row.get("chosen") is None:
        raise TurnedAway("format-mismatch", "preference needs an object with the key 'chosen'")
    chosen = answer_turns(row["chosen"], "chosen")
    before = _turns_before(row)
    if before is None:
        question = question_text({key: value for key, value in row.items() if not isinstance(value, list | dict)})
        messages = _joined([] if question is None else [("user", question)], read_turns(chosen, roles))
    elif before and turn_keys(before[0]) == turn_keys(chosen[0]):
        both = read_turns([*before, *chosen], roles)
        messages = _joined(both[: len(before)], both[len(before) :])
    else:
        messages = _joined(read_turns(before, roles) if before else [], read_turns(chosen, roles))
    return with_system(row, messages), row_tools(row)


def is_preference(row: dict[str, Any]) -> bool:
    """Tell whether `chosen` is a message, a list that begins with one, or a text that answers a list of turns."""
    chosen = parsed_cell(row["chosen"])
    first = chosen[0] if isinstance(chosen, list) and chosen else chosen
    if isinstance(first, dict):
        return has_role(first) or (first is chosen and any(type(first.get(key)) is str for key in _TEXTS))
    return type(first) is str and _turns_before(row) is not None


def answer_turns(value: object, where: str) -> list[Any]:
    """Give an answer as a list of turns: it is one already, or one message, or a text alone or in an object."""
    parsed = parsed_cell(value)
    turns = as_list(parsed)
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return turns
    if isinstance(parsed, dict) and has_role(parsed):
        return [parsed]
    text = value
    if isinstance(parsed, dict):
        text = next((parsed[key] for key in _TEXTS if type(parsed.get(key)) is str), parsed)
    elif isinstance(parsed, list) and len(parsed) == 1:
        text = parsed[0]
    if type(text) is str:
        return [{"role": "assistant", "content": text}]
    found = "an empty list" if text == [] else f"{kind_of(text)}, expected a message or a list of messages"
    raise TurnedAway("no-messages", f"{where} is {found}")


def has_role(turn: object) -> bool:
    """Tell whether a value is an object that says who speaks."""
    return isinstance(turn, dict) and any(type(turn.get(key)) is str for key in ROLE_KEYS)


def sides_of(row: dict[str, Any], name: str, preference: str, roles: Roles) -> list[Any]:
    """Give a row as the rows, of the same format, of the side or sides that were asked for.

    Rows that compare nothing stay what they are. Turns away a row that has nothing on the side asked for.
    """
    label = _label(row)
    if label is not None:
        if preference == "both" or label == (preference == "chosen"):
            return [row]
        if label:
            raise TurnedAway("no-rejected-answer", "the row's label is true: its answer is the desired one")
        raise TurnedAway("undesired-answer", "the row's label is false: its answer is the undesired one")
    rejected = _rejected(row, name, roles)
    if rejected is None and preference == "rejected" and row.get("chosen") is not None and _compares(row, name):
        raise TurnedAway("no-rejected-answer", "the row has a chosen answer and no rejected one")
    if rejected is None or preference == "chosen":
        return [row]
    return [rejected] if preference == "rejected" else [row, rejected]


def _label(row: dict[str, Any]) -> bool | None:
    """Give whether an answer is desired, where a row says so of one: `label` or `kto_tag`, true or false."""
    tag = row.get("kto_tag")
    if type(tag) is str and tag.lower() in ("true", "false"):
        return tag.lower() == "true"
    if type(tag) is bool:
        return tag
    label = row.get("label")
    beside = "messages" in row or "conversations" in row or ("prompt" in row and "completion" in row)
    return label if type(label) is bool and beside else None


def _compares(row: dict[str, Any], name: str) -> bool:
    return name == "preference" or (name not in ("openai", "sharegpt", "turns") and type(row["chosen"]) is str)


def _rejected(row: dict[str, Any], name: str, roles: Roles) -> dict[str, Any] | None:
    """Give the row that a row's rejected side is; None where it has none."""
    rejected = row.get("rejected")
    if rejected is not None and row.get("chosen") is not None and _compares(row, name):
        if name == "preference":
            return _without_answer(row, roles) | {"chosen": rejected}
        answers = {key: rejected for key in ANSWER_KEYS if row.get(key) is not None}
        return row | answers | {"chosen": rejected}
    messages = as_list(row.get("messages"))
    if not holds_turns(messages):
        return None
    if holds_turns(as_list(row.get("rejected_messages"))):
        return row | {"messages": as_list(row["rejected_messages"])}
    if type(row.get("rejected_response")) is str and has_role(messages[0]):
        role_key, text_key = turn_keys(messages[0])
        before = _without_answer({"messages": messages}, roles)["messages"]
        return row | {"messages": [*before, {role_key: "assistant", text_key: row["rejected_response"]}]}
    return None


def _without_answer(row: dict[str, Any], roles: Roles) -> dict[str, Any]:
    """Give a row whose dialogue before the chosen answer ends before any answer that it ends in."""
    key = next((key for key in _BEFORE if holds_turns(row.get(key))), None)
    if key is None or not has_role(row[key][0]):
        return row
    turns = row[key]
    role_key = turn_keys(turns[0])[0]
    end = len(turns)
    while end and isinstance(turns[end - 1], dict) and _is_assistant(turns[end - 1].get(role_key), roles):
        end -= 1
    return row | {key: turns[:end]}


def _is_assistant(name: object, roles: Roles) -> bool:
    return isinstance(name, str) and roles.get(name) == "assistant"


def _turns_before(row: dict[str, Any]) -> list[Any] | None:
    found = (row[key] for key in _BEFORE if holds_turns(row.get(key)))
    return next((turns for turns in found if has_role(turns[0])), None)


def _joined(before: list[Message], chosen: list[Message]) -> list[Message]:
    if chosen[0][0] != "assistant":
        alone = all(message[0] == "system" for message in before) and before != chosen[: len(before)]
        return [*before, *chosen] if alone else chosen
    return before if before and before[-1][0] == "assistant" else [*before, *chosen]
