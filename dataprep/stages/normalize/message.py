"""A message in its short form, and the checks that every format shares.

A message is the tuple (role, content, reasoning, tool_calls, name, tool_call_id, train) with trailing Nones left out,
so a plain one is ("user", "Hello"). A tool call is (id, name, arguments). The same form, as JSON, is what ids hash.
"""

import re
from hashlib import blake2b
from typing import Any

import orjson

from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown

Message = tuple[Any, ...]
ToolCall = tuple[str | None, str, str]

# A message that holds a call as its text; it becomes an assistant message with tool_calls.
CALL = "function_call"

# Only names that mean one thing everywhere; others are the user's to map.
ROLE_NAMES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    CALL: CALL,
    "tool_call": CALL,
}

ROW_BYTES_LIMIT = 1 << 30

# What a part that holds a text may call itself; none of these is a part of a bare {"text"}.
_TEXT_TYPES = ("text", "input_text", "output_text", None)

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def rich_message(
    role: str,
    content: str,
    *,
    reasoning: str | None = None,
    tool_calls: tuple[ToolCall, ...] | None = None,
    name: str | None = None,
    tool_call_id: str | None = None,
    train: bool | None = None,
) -> Message:
    """Build a message of any fields in its short form."""
    fields = (role, content, reasoning, tool_calls, name, tool_call_id, train)
    length = len(fields)
    while fields[length - 1] is None:
        length -= 1
    return fields[:length]


def as_json(messages: list[Message], tools: str | None) -> bytes:
    """Give the JSON of a conversation's messages and tools, which ids hash."""
    return orjson.dumps((messages, tools))


def identify(messages: list[Message], tools: str | None, canonical: bytes) -> str:
    """Give a conversation's id: the first 32 hex digits of BLAKE2b over its JSON, `canonical`.

    Turns away text that no later stage can hold: NUL characters, and more than 1 GiB.
    """
    if b"\\u0000" in canonical:
        _refuse_nul(canonical, messages, tools)
    if len(canonical) > ROW_BYTES_LIMIT:
        raise TurnedAway("too-large", f"the row holds {len(canonical):,} bytes of text")
    return blake2b(canonical).hexdigest()[:32]


def checked_text(value: object, where: str) -> str:
    """Give the text of a content: a string, an object that holds one, or a list of text parts joined.

    `where` begins the detail.
    """
    if type(value) is str:
        return value
    if value is None:
        raise TurnedAway("no-content", f"{where} has no content")
    if isinstance(value, dict):
        return _held_text(value, where)
    if not isinstance(value, list):
        raise TurnedAway("non-text-content", f"{where} has {kind_of(value)} for content")
    return "".join(_part_text(part, where) for part in value)


def checked_answer(value: object, where: str) -> str:
    """Give the text of an assistant turn; "" where there is none, which cleaning deals with."""
    return "" if value is None else checked_text(value, where)


def _held_text(content: dict[str, Any], where: str) -> str:
    """Give the text of an object: a text part, {"text"}, {"content"}, or {"parts"} as exports of chats have it."""
    if content.get("type") == "text" or content.get("text") is not None:
        return _part_text(content, where)
    for key in ("content", "parts"):
        inner = content.get(key)
        if type(inner) is str or isinstance(inner, list):
            return checked_text(inner, where)
    found = f"content of type {shown(content['type'])}" if "type" in content else "an object for content"
    raise TurnedAway("non-text-content", f"{where} has {found}")


def _part_text(part: object, where: str) -> str:
    if type(part) is str:
        return part
    if isinstance(part, dict) and part.get("type", "text") in _TEXT_TYPES:
        text = part.get("text") if part.get("text") is not None else part.get("value")
        if type(text) is str:
            return text
    found = f"that is {kind_of(part)}"
    if isinstance(part, dict) and (part.get("type") or part.get("content_type")):
        found = f"of type {shown(part.get('type') or part['content_type'])}"
    raise TurnedAway("non-text-content", f"{where} has a content part {found}")


def _refuse_nul(canonical: bytes, messages: list[Message], tools: str | None) -> None:
    nested = [call[2] for message in messages if len(message) > 3 for call in message[3] or ()]
    texts = [canonical, *(text.encode() for text in [*nested, tools or ""])]
    if any(_NUL.search(text) for text in texts):
        raise TurnedAway("nul-character", "the text holds a NUL character (\\u0000)")
