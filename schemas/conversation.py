"""A conversation: one dialogue or document in canonical form, whatever its row looked like. Spec: conversation.md."""

import json
from typing import Any

import pyarrow as pa

CONVERSATIONS_FORMAT = "sftpack.conversations"
CONVERSATIONS_VERSION = 2

# A conversation holds turns of the first four, or is one document: a single message of role `text`.
ROLES = ("system", "user", "assistant", "tool", "text")

TOOL_CALL = pa.struct(
    [
        pa.field("id", pa.string()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("arguments", pa.string(), nullable=False),  # a JSON object, as the source wrote it
    ]
)

MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),  # "" where there is none
        pa.field("reasoning", pa.string()),
        pa.field("tool_calls", pa.list_(TOOL_CALL)),  # null where there are none
        pa.field("name", pa.string()),
        pa.field("tool_call_id", pa.string()),
        pa.field("train", pa.bool_()),  # null: the default, assistant turns and documents are trained on
    ]
)

CONVERSATION = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # hash of messages and tools: equal content, equal id
        pa.field("source", pa.string(), nullable=False),
        pa.field(
            "origin",
            pa.struct([pa.field("file", pa.string(), nullable=False), pa.field("row", pa.int64(), nullable=False)]),
            nullable=False,
        ),
        pa.field("messages", pa.list_(MESSAGE), nullable=False),
        pa.field("tools", pa.string()),  # a JSON array of tool definitions, or null
    ]
)


def chat_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn stored messages into what `apply_chat_template` is given: nulls left out, arguments as objects.

    `reasoning` is passed as `reasoning_content`, tool calls as `{"type": "function", "function": {name, arguments}}`.
    """
    return [_chat_message(message) for message in messages]


def _chat_message(message: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if message.get("reasoning") is not None:
        chat["reasoning_content"] = message["reasoning"]
    if message.get("tool_calls"):
        chat["tool_calls"] = [_chat_tool_call(call) for call in message["tool_calls"]]
    for key in ("name", "tool_call_id"):
        if message.get(key) is not None:
            chat[key] = message[key]
    return chat


def _chat_tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": json.loads(call["arguments"])}
    return {"type": "function", "function": function} | ({"id": call["id"]} if call["id"] is not None else {})


def chat_tools(tools: str | None) -> list[dict[str, Any]] | None:
    """Turn the stored tools column into the `tools` argument of `apply_chat_template`."""
    return json.loads(tools) if tools is not None else None
