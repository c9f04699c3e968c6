"""Conversations as ChatGPT exports them (`conversations.json`): a tree of nodes, read along the branch last looked at.

Left out are nodes without words: the root, hidden and empty messages, the user's standing instructions, and how long
the model thought. Thoughts are the reasoning of the answer after them; a message to a tool is a call of it.
"""

from typing import Any

import orjson

from dataprep.stages.normalize.formats.turns import Converted, Roles
from dataprep.stages.normalize.message import Message, checked_answer, checked_text, rich_message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown

# Kinds of content that are no part of what was said.
_SILENT = ("user_editable_context", "model_editable_context", "reasoning_recap")
# Kinds whose words stand under `text` or `result`, not under `parts`.
_WORDS = ("text", "result")


def from_chatgpt_export(row: Any, roles: Roles) -> Converted:
    """Convert {"mapping": {id: {"message", "parent"}}, "current_node"}; each message has an author and a content."""
    if not isinstance(row, dict) or not is_chatgpt_export(row):
        raise TurnedAway("format-mismatch", "chatgpt needs an object with the key 'mapping' that holds nodes")
    messages: list[Message] = []
    thoughts: list[str] = []
    for message in _branch(row["mapping"], row.get("current_node")):
        content = message.get("content")
        kind = content.get("content_type") if isinstance(content, dict) else None
        if kind in _SILENT or _is_hidden(message):
            continue
        where = f"message {len(messages) + 1}"
        if kind == "thoughts":
            thoughts += _thoughts(content, where)
            continue
        role = _role(message, where, roles)
        text = _text(content, where)
        if role in ("system", "assistant") and not text.strip() and not _recipient(message):
            continue
        if role == "assistant":
            messages.append(_answer(message, kind, text, "\n\n".join(thoughts) or None, where))
        else:
            name = message["author"].get("name") if role == "tool" else None
            messages.append(rich_message(role, text, name=name if isinstance(name, str) else None))
        thoughts = []
    if not messages:
        raise TurnedAway("no-messages", "no node of the branch holds words")
    return messages, None


def is_chatgpt_export(row: dict[str, Any]) -> bool:
    """Tell whether a row has a mapping of nodes."""
    nodes = row.get("mapping")
    first = next(iter(nodes.values()), None) if isinstance(nodes, dict) else None
    return isinstance(first, dict) and "message" in first


def _names_parent(node: dict[str, Any]) -> bool:
    return isinstance(node.get("parent"), str)


def _branch(nodes: dict[str, Any], current: object) -> list[dict[str, Any]]:
    """Give the messages from the root to `current`; without it, to the node that was written last."""
    if current is None:
        parents = {node["parent"] for node in nodes.values() if isinstance(node, dict) and _names_parent(node)}
        current = next((name for name in reversed(nodes) if name not in parents), None)
    found: list[dict[str, Any]] = []
    seen: set[object] = set()
    while current is not None:
        node = nodes.get(current) if isinstance(current, str) else None
        if not isinstance(node, dict) or current in seen:
            raise TurnedAway("bad-message", f"the node {shown(current)} is missing, or its own ancestor")
        seen.add(current)
        if isinstance(node.get("message"), dict):
            found.append(node["message"])
        current = node.get("parent")
    return found[::-1]


def _is_hidden(message: dict[str, Any]) -> bool:
    metadata = message.get("metadata")
    return isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True


def _role(message: dict[str, Any], where: str, roles: Roles) -> str:
    author = message.get("author")
    name = author.get("role") if isinstance(author, dict) else None
    role = roles.get(name) if isinstance(name, str) else None
    if role not in ("user", "assistant", "system", "tool"):
        raise TurnedAway("bad-message", f"{where} has author {shown(name)}; expected user, assistant, system or tool")
    return role


def _text(content: Any, where: str) -> str:
    if not isinstance(content, dict):
        raise TurnedAway("bad-message", f"{where}: content is {kind_of(content)}, expected an object")
    if isinstance(content.get("parts"), list):
        return checked_text(content["parts"], where)
    text = next((content[key] for key in _WORDS if type(content.get(key)) is str), None)
    if text is None:
        raise TurnedAway("non-text-content", f"{where} has content of type {shown(content.get('content_type'))}")
    return text


def _thoughts(content: Any, where: str) -> list[str]:
    items = content.get("thoughts")
    if not isinstance(items, list):
        raise TurnedAway("bad-message", f"{where}: thoughts is {kind_of(items)}, expected a list")
    texts = [item.get("content") for item in items if isinstance(item, dict)]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _answer(message: dict[str, Any], kind: object, text: str, reasoning: str | None, where: str) -> Message:
    recipient = _recipient(message)
    if recipient is None:
        return rich_message("assistant", checked_answer(text, where), reasoning=reasoning)
    call = (None, recipient, _arguments(kind, text))
    return rich_message("assistant", "", reasoning=reasoning, tool_calls=(call,))


def _recipient(message: dict[str, Any]) -> str | None:
    """Give the tool that a message is for; None where it is for all to read."""
    recipient = message.get("recipient")
    return recipient if isinstance(recipient, str) and recipient not in ("", "all") else None


def _arguments(kind: object, text: str) -> str:
    """Give a JSON object as it stands; code and other words become the one argument of the call."""
    try:
        if isinstance(orjson.loads(text), dict):
            return text
    except ValueError:
        pass
    return orjson.dumps({"code" if kind == "code" else "text": text}).decode()
