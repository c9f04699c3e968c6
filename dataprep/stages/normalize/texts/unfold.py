"""Messages of any format in, the same with what stands between marks in its own field: reasoning, calls, tools.

Only assistant, tool and system texts are looked into. A user's text is touched in one case: it follows a call and holds
nothing but the results, as Hermes and Glaive write them.
"""

import re
from typing import Any

from dataprep.stages.normalize.message import Message, ToolCall, rich_message
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.texts.called_text import text_calls
from dataprep.stages.normalize.texts.react import react_call
from dataprep.stages.normalize.texts.system_tools import may_hold_tools, same_tools, split_tools
from dataprep.stages.normalize.texts.thinking import require_answer, split_thinking

_RESPONSE = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
_GLAIVE_RESPONSE = "FUNCTION RESPONSE:"


def may_hold_more(messages: list[Message], tools: str | None) -> bool:
    """Tell quickly whether a conversation may hold marks; those without a "<" count only where there are tools."""
    if tools is not None:
        return bool(messages)
    for message in messages:
        if message[0] != "user" and "<" in message[1]:
            return True
    if not messages:
        return False
    first = messages[0]
    return (first[0] == "system" and may_hold_tools(first[1])) or messages[-1][1].startswith("[TOOL_CALLS]")


def unfold(messages: list[Message], tools: str | None) -> tuple[list[Message], str | None]:
    """Give messages and tools with all marks read. Raises TurnedAway for marks that don't close or hold no JSON."""
    messages, tools = _without_tools(messages, tools)
    read: list[Message] = []
    called = False
    for number, message in enumerate(messages, 1):
        role = message[0]
        if role == "assistant":
            read.append(_answer(messages, number, tools is not None))
            called = _part(read[-1], 3) is not None
        elif role == "tool" or (role == "user" and called):
            read += _results(message)
            called = read[-1][0] == "tool"
        else:
            read.append(message)
    return read, tools


def _without_tools(messages: list[Message], tools: str | None) -> tuple[list[Message], str | None]:
    first = messages[0]
    split = split_tools(first[1]) if first[0] == "system" and may_hold_tools(first[1]) else None
    if split is None or (tools is not None and not same_tools(tools, split[1])):
        return messages, tools
    own = [("system", split[0], *first[2:])] if split[0] else []
    return [*own, *messages[1:]], tools if tools is not None else split[1]


def _answer(messages: list[Message], number: int, has_tools: bool) -> Message:
    message, where = messages[number - 1], f"message {number}"
    text = message[1]
    reasoning, calls = _part(message, 2), _part(message, 3)
    thought = split_thinking(text, where)
    if thought is not None:
        reasoning, text = _one_reasoning(reasoning, thought[0], where), thought[1]
    if calls is None:
        called = text_calls(text, where) or (react_call(text, messages, number) if has_tools else None)
        if called is not None:
            text, calls = called
    if reasoning is None and "</think>" in text:
        reasoning = ""  # templates split a text at this tag unless the reasoning is known
    if (text, reasoning, calls) == (message[1], _part(message, 2), _part(message, 3)):
        return message
    if reasoning and calls is None:
        require_answer(text, where)
    return _with(message, text, reasoning, calls)


def _one_reasoning(given: str | None, marked: str | None, where: str) -> str | None:
    if given is None or marked is None or given.strip() == marked.strip():
        return marked or given
    raise TurnedAway("bad-message", f"{where} has two reasonings: one in a field, another in its text")


def _results(message: Message) -> list[Message]:
    """Read a message that is nothing but results as one tool message for each; any other is given back."""
    text = message[1]
    if text.lstrip().startswith(_GLAIVE_RESPONSE):
        found = [text.lstrip().removeprefix(_GLAIVE_RESPONSE).strip()]
    else:
        found, end = [], 0
        while response := _RESPONSE.match(text, end):
            found.append(response[1])
            end = response.end()
        if not found or end < len(text):
            return [message]
    if len(found) == 1:
        return [("tool", found[0], *message[2:])]
    train = _part(message, 6)
    return [rich_message("tool", text, name=_part(message, 4), train=train) for text in found]


def _with(message: Message, text: str, reasoning: str | None, calls: tuple[ToolCall, ...] | None) -> Message:
    more = {"name": _part(message, 4), "tool_call_id": _part(message, 5), "train": _part(message, 6)}
    return rich_message("assistant", text, reasoning=reasoning, tool_calls=calls, **more)


def _part(message: Message, place: int) -> Any:
    return message[place] if len(message) > place else None
