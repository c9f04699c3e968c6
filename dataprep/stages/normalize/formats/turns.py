"""Rows that list their turns as objects with a role and a text: OpenAI messages, ShareGPT, and other names for both.

The usual row (every turn just a known role and a text) takes a short path; all others are read field by field, which
is also what finds the words for a row that is turned away. Order of roles is kept as it is.
"""

from collections.abc import Mapping
from typing import Any

from dataprep.stages.normalize.message import (
    CALL,
    ROLE_NAMES,
    Message,
    ToolCall,
    checked_answer,
    checked_text,
    rich_message,
)
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.role_pairs import plain_name, with_role_pair
from dataprep.stages.normalize.texts.thinking import require_answer, split_thinking
from dataprep.stages.normalize.texts.tools import openai_calls, row_tools, text_calls, written_calls
from dataprep.stages.normalize.texts.typed_parts import AnswerParts, answer_parts, holds_typed, result_messages

# Where the list of turns may stand; the first that is not null counts.
TURN_LISTS = ("messages", "conversations", "conversation", "dialogue")
# Names that may stand for something else, too: they count where they hold a list, after all the others.
LATER_LISTS = ("dialog", "turns", "data", "contents")
ROLE_KEYS = ("from", "role", "speaker", "author", "sender", "agent", "角色", "说话人")
TEXT_KEYS = ("value", "content", "text", "utterance", "message", "parts", "sentence", "内容", "文本")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
SYSTEM_KEYS = ("system", "system_prompt", "system_message", "systemInstruction", "system_instruction")
TRAIN_FLAGS = ("train", "weight", "loss_weight", "loss", "training", "trainable", "train_on_turn")
_SYSTEM = frozenset(SYSTEM_KEYS)
# Keys of one who speaks, and who takes turns in dialogues between a user and a system that answers.
_SPEAKERS = ("speaker", "author", "sender")
_TALKERS = ("user", "system")
# Further names of what came back from a call.
_RESULTS = dict.fromkeys(("ipython", "tool_result", "function_response", "tool_output"), "tool")
_AS_LIST = "write the dialogue as a list of messages, or as one text of turns with User: or Assistant:"
_AS_STRINGS = "make each message an object; lists of texts, the user's first, are read with --format alternating"

Roles = Mapping[str, str]
Converted = tuple[list[Message], str | None]


def from_openai(row: Any, roles: Roles) -> Converted:
    """Convert {"messages": [{"role", "content", …}], "tools"} or a bare list of such messages."""
    return _from_turns(row, roles, "role", "content")


def from_sharegpt(row: Any, roles: Roles) -> Converted:
    """Convert {"conversations": [{"from", "value"}], "system", "tools"} or a bare list of such turns."""
    return _from_turns(row, roles, "from", "value")


def from_turns(row: Any, roles: Roles) -> Converted:
    """Convert a list of turns whose role and text stand under any of ROLE_KEYS and TEXT_KEYS; the first turn tells."""
    return _from_turns(row, roles, *turn_keys(turn_list(row)[0]))


def turn_keys(turn: object) -> tuple[str, str]:
    """Give the keys under which a turn has its role and its text; turn it away where it has no role."""
    if not isinstance(turn, dict):
        raise TurnedAway("bad-message", f"message 1 is {kind_of(turn)}, expected an object")
    role_key = next((key for key in ROLE_KEYS if turn.get(key) is not None), None)
    if role_key is None:
        detail = f"message 1 has no role under any of {', '.join(ROLE_KEYS)}; its keys are {_keys(turn)}"
        raise TurnedAway("bad-message", detail)
    usual = "value" if role_key == "from" else "content"
    text_keys = (usual, *TEXT_KEYS) if usual in turn else TEXT_KEYS
    return role_key, next((key for key in text_keys if key in turn), usual)


def turn_list(row: Any) -> list[Any]:
    """Give the list of turns of a row that is one or has one; turn the row away where there is none."""
    turns, where = row, "the row"
    if not isinstance(row, list):
        for where in TURN_LISTS:
            turns = row.get(where)
            if turns is not None:
                break
        else:
            turns = next((row[key] for key in LATER_LISTS if holds_turns(row.get(key))), None)
        if turns is None:
            raise TurnedAway("format-mismatch", f"the row has no list of turns; its keys are {_keys(row)}")
    if not isinstance(turns, list):
        raise TurnedAway("no-messages", f"{where} is {kind_of(turns)}, expected a list", _AS_LIST)
    if not turns:
        raise TurnedAway("no-messages", f"{where} is an empty list")
    return turns


def holds_turns(value: object) -> bool:
    """Tell whether a value is a list whose first item is an object."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def with_system(row: Any, messages: list[Message]) -> list[Message]:
    """Put the row's own `system` text first, unless it is empty or the first message says the same."""
    if not isinstance(row, dict) or _SYSTEM.isdisjoint(row):
        return messages
    key = next((key for key in SYSTEM_KEYS if row.get(key) not in (None, "")), None)
    if key is None:
        return messages
    first = ("system", checked_text(row[key], key))
    return messages if messages and messages[0][:2] == first else [first, *messages]


def read_turns(turns: list[Any], roles: Roles) -> list[Message]:
    """Convert turns whose first tells under which keys all have their role and their text."""
    return _messages(turns, roles, *turn_keys(turns[0]))


def _from_turns(row: Any, roles: Roles, role_key: str, text_key: str) -> Converted:
    turns = turn_list(row)
    messages = _messages(turns, roles, role_key, text_key)
    tools = row_tools(row)
    if tools is None and len(turns[0]) > 2:
        tools = row_tools(turns[0])  # a system message may bring its tools along
    return with_system(row, messages), tools


def _messages(turns: list[Any], roles: Roles, role_key: str, text_key: str) -> list[Message]:
    messages = _plain_turns(turns, roles, role_key, text_key)
    if messages is not None:
        return messages
    names = [turn.get(role_key) for turn in turns if isinstance(turn, dict)]
    paired = with_role_pair({name for name in names if isinstance(name, str)}, roles)
    if paired is roles and role_key in _SPEAKERS:
        paired = _with_answering_system(names, roles)
    if paired is not roles:
        messages = _plain_turns(turns, paired, role_key, text_key)
    if messages is None:
        messages = []
        for number, turn in enumerate(turns, 1):
            messages += _observed(turn, number, messages) or _turn(turn, number, paired, role_key, text_key)
    return messages


def _with_answering_system(names: list[Any], roles: Roles) -> Roles:
    """Take SYSTEM as the assistant where USER and SYSTEM, said to be speakers, take turns and nobody else speaks."""
    plain = [plain_name(name) if isinstance(name, str) else "" for name in names]
    if len(plain) < 2 or any(name != _TALKERS[place % 2] for place, name in enumerate(plain)):
        return roles
    if any(name in roles and name not in ROLE_NAMES for name in names):
        return roles  # someone has said who they are
    return {**roles, **{name: ("user", "assistant")[place % 2] for place, name in enumerate(names)}}


def _plain_turns(turns: list[Any], roles: Roles, role_key: str, text_key: str) -> list[Message] | None:
    try:
        messages = [(roles[turn[role_key]], turn[text_key]) for turn in turns]
    except (KeyError, TypeError, IndexError):
        return None
    names, texts = zip(*messages, strict=True)
    is_plain = set(map(type, texts)) == {str} and set(map(len, turns)) == {2} and CALL not in names
    return messages if is_plain else None


def _turn(turn: Any, number: int, roles: Roles, role_key: str, text_key: str) -> list[Message]:
    """Read a turn: one message, or several where its parts are results of tools."""
    where = f"message {number}"
    if not isinstance(turn, dict):
        fix = _AS_STRINGS if isinstance(turn, str) else None
        raise TurnedAway("bad-message", f"{where} is {kind_of(turn)}, expected an object", fix)
    role = _role(turn, where, roles, role_key)
    train = _train_flag(turn, where)
    value = turn.get(text_key)
    if value is None:
        value = next((turn[key] for key in TEXT_KEYS if turn.get(key) is not None), None)
    if role == CALL:
        return [_call_message(turn, value, where, train)]
    name, call_id = _text_or_none(turn, "name", where), _text_or_none(turn, "tool_call_id", where)
    if role == "assistant":
        return [_answer(turn, value, where, name=name, tool_call_id=call_id, train=train)]
    if holds_typed(value):
        return result_messages(role, value, where, train)
    return [rich_message(role, checked_text(value, where), name=name, tool_call_id=call_id, train=train)]


def _observed(turn: Any, number: int, before: list[Message]) -> list[Message] | None:
    """Read ChatGLM3's turn of a tool, which holds the call and what came back; None for any other turn.

    The call belongs to the assistant's turn before it.
    """
    if type(turn) is not dict or turn.get("role") != "tool" or type(turn.get("observation")) is not str:
        return None
    if turn.get("content") is not None or not isinstance(turn.get("parameters"), dict):
        return None
    where = f"message {number}"
    calls = openai_calls([{"name": turn.get("name"), "arguments": turn["parameters"]}], where)
    said = before.pop()[1] if before and before[-1][0] == "assistant" and len(before[-1]) == 2 else ""
    return [
        rich_message("assistant", said, tool_calls=calls),
        rich_message("tool", turn["observation"], name=_text_or_none(turn, "name", where)),
    ]


def _answer(turn: dict[str, Any], value: Any, where: str, **more: Any) -> Message:
    parts = answer_parts(value, where) if holds_typed(value) else AnswerParts()
    reasoning = _reasoning(turn, where) or "\n\n".join(parts.reasoning) or None
    calls = _calls(turn, where) or tuple(parts.calls) or None
    if holds_typed(value):
        value = "".join(parts.texts)
    content = checked_answer(value, where)
    if reasoning is not None and calls is None:
        require_answer(content, where)
    return rich_message("assistant", content, reasoning=reasoning, tool_calls=calls, **more)


def _call_message(turn: dict[str, Any], value: Any, where: str, train: bool | None) -> Message:
    """Read a message that is a call: JSON, alone or after reasoning, or text with a mark."""
    reasoning, marked = _reasoning(turn, where), None
    if isinstance(value, str):
        thought = split_thinking(value, where)
        if thought is not None:
            reasoning, value = thought[0] or reasoning, thought[1]
        marked = text_calls(value, where)
    content, calls = marked or ("", written_calls(value, where))
    return rich_message("assistant", content, reasoning=reasoning, tool_calls=calls, train=train)


def _reasoning(turn: dict[str, Any], where: str) -> str | None:
    for key in REASONING_KEYS:
        if not isinstance(turn.get(key), bool) and (text := _text_or_none(turn, key, where)):
            return text
    return None


def _role(turn: dict[str, Any], where: str, roles: Roles, role_key: str) -> str:
    if role_key not in turn:
        raise TurnedAway("bad-message", f"{where} has no {role_key!r}; its keys are {_keys(turn)}")
    name = turn[role_key]
    if type(name) is dict and type(name.get("role")) is str:
        name = name["role"]
    if type(name) is not str:
        raise TurnedAway("bad-message", f"{where}: {role_key} is {kind_of(name)}, expected a string")
    role = roles.get(name) or _RESULTS.get(name)
    if role is None:
        detail = f"{where} has role {shown(name)}; expected one of {', '.join(roles)}"
        raise TurnedAway(
            "unknown-role", detail, f"map it with --role {shown(name)[1:-1]}=assistant, or =user, =system, =tool"
        )
    return role


def _calls(turn: dict[str, Any], where: str) -> tuple[ToolCall, ...] | None:
    if turn.get("tool_calls") is not None:
        return openai_calls(turn["tool_calls"], where)
    single = turn.get("function_call")
    return None if single is None else openai_calls([single], where)


def _text_or_none(turn: dict[str, Any], key: str, where: str) -> str | None:
    value = turn.get(key)
    if value is not None and type(value) is not str:
        raise TurnedAway("bad-message", f"{where}: {key} is {kind_of(value)}, expected a string")
    return value


def _train_flag(turn: dict[str, Any], where: str) -> bool | None:
    for key in TRAIN_FLAGS:
        value = turn.get(key)
        if value is None:
            continue
        if isinstance(value, bool | int | float) and value in (0, 1):
            return bool(value)
        raise TurnedAway("bad-train-flag", f"{where}: {key} is {shown(value)}")
    return None


def _keys(row: dict[str, Any]) -> str:
    return shown(", ".join(map(str, row)))[1:-1]
