"""Contents that are lists of typed parts and hold more than text: reasoning, tool calls, results of tools.

Anthropic's parts (`thinking`, `tool_use`, `tool_result`), Gemini's (`functionCall`, `functionResponse`, `thought`) and
those of training kits (`reasoning`, `tool_call` with a `value`). A result becomes a tool message of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from dataprep.stages.normalize.message import Message, ToolCall, checked_text, rich_message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.texts.calls import json_text, read_call, written_calls

_THOUGHT_KEYS = ("thinking", "reasoning", "text", "value")
_CALL_TYPES = ("tool_use", "tool_call", "function_call")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerParts:
    """What an assistant's parts hold, each kind in its order."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)


def holds_typed(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a content is a list with a part that is more than text."""
    return isinstance(value, list) and any(isinstance(part, dict) and _kind(part) for part in value)


def answer_parts(parts: list[Any], where: str) -> AnswerParts:
    """Sort an assistant's parts. Raises TurnedAway for a part of another kind, and for text after a call."""
    sorted_parts = AnswerParts()
    for part in parts:
        kind = _kind(part) if isinstance(part, dict) else ""
        if kind == "thought":
            sorted_parts.reasoning.append(_thought(part, where))
        elif kind == "call":
            sorted_parts.calls.extend(_part_calls(part, where))
        else:
            text = checked_text([part], where)
            if text.strip() and sorted_parts.calls:
                raise TurnedAway("bad-tool-call", f"{where}: after a call stands {shown(text.strip())}")
            sorted_parts.texts.append(text)
    return sorted_parts


def result_messages(role: str, parts: list[Any], where: str, train: bool | None) -> list[Message]:
    """Give a user's or a tool's parts as messages in their order: one for each result, one for texts in a row."""
    messages: list[Message] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, dict) and _kind(part) == "result":
            _add_texts(messages, role, texts, train)
            messages.append(_result(part, where))
        else:
            texts.append(checked_text([part], where))
    _add_texts(messages, role, texts, train)
    return messages


def _add_texts(messages: list[Message], role: str, texts: list[str], train: bool | None) -> None:
    text = "".join(texts)
    if text.strip():
        messages.append(rich_message(role, text, train=train))
    texts.clear()


def _kind(part: Mapping[str, Any]) -> str:
    """Name a part's kind: thought, call, result, or nothing for text and what is not known."""
    named = part.get("type")
    if named in ("thinking", "reasoning") or part.get("thought") is True:
        return "thought"
    if named in _CALL_TYPES or _one(part, "functionCall", "function_call") is not None:
        return "call"
    if named == "tool_result" or _one(part, "functionResponse", "function_response") is not None:
        return "result"
    return ""


def _one(part: Mapping[str, Any], *keys: str) -> Any:
    return next((part[key] for key in keys if part.get(key) is not None), None)


def _thought(part: Mapping[str, Any], where: str) -> str:
    text = _one(part, *_THOUGHT_KEYS)
    if type(text) is not str:
        raise TurnedAway("non-text-content", f"{where} has a reasoning part that holds {kind_of(text)}")
    return text


def _part_calls(part: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    if part.get("type") in _CALL_TYPES:
        return (read_call(part, where),) if part.get("value") is None else written_calls(part["value"], where)
    call = _one(part, "functionCall", "function_call")
    if isinstance(call, dict) and call.get("args") is None:
        call = {**call, "args": {}}  # Gemini leaves out empty ones
    return (read_call(call, where),)


def _result(part: Mapping[str, Any], where: str) -> Message:
    response = _one(part, "functionResponse", "function_response")
    if part.get("type") != "tool_result" and isinstance(response, dict):
        name = response.get("name")
        text = json_text(response.get("response"), "non-text-content", f"{where}: a tool's response")
        return rich_message("tool", text, name=name if isinstance(name, str) else None)
    content = part.get("content")
    text = "" if content is None else checked_text(content, f"{where}: a tool's result")
    call_id = part.get("tool_use_id")
    return rich_message("tool", text, tool_call_id=call_id if isinstance(call_id, str) else None)
