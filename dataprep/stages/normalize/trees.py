"""Rows that are OASST trees of messages: from the prompt to a leaf, always by the best-ranked reply.

The other branches are not read: one row gives one conversation. A reply's `rank` counts from 0, the best; it is missing
or null where nobody compared.
"""

from typing import Any

from dataprep.stages.normalize.message import Message, checked_answer, checked_text
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.turns import Converted, Roles


def from_oasst(row: Any, roles: Roles) -> Converted:
    """Convert {"prompt": {"text", "role": "prompter", "replies": [{"text", "role", "rank", "replies"}]}}."""
    if not isinstance(row, dict) or not is_tree(row.get("prompt")):
        raise TurnedAway("format-mismatch", "oasst needs the key 'prompt' with an object that has text and replies")
    known = {"prompter": "user", **roles}
    messages: list[Message] = []
    node: Any = row["prompt"]
    while node is not None:
        where = f"message {len(messages) + 1}"
        if not isinstance(node, dict):
            raise TurnedAway("bad-message", f"{where} is {kind_of(node)}, expected an object")
        name = node.get("role")
        role = known.get(name) if isinstance(name, str) else None
        if role not in ("user", "assistant", "system"):
            raise TurnedAway("bad-message", f"{where} has role {shown(name)}; expected prompter or assistant")
        text = node.get("text")
        content = checked_answer(text, where) if role == "assistant" else checked_text(text, where)
        messages.append((role, content))
        node = _best_reply(node.get("replies"), where)
    return messages, None


def is_tree(value: object) -> bool:
    """Tell whether a value is a message that has replies."""
    return isinstance(value, dict) and "text" in value and "replies" in value


def _best_reply(replies: object, where: str) -> object:
    """Give the reply of the lowest rank, the first where none has one; None at a leaf."""
    if replies is None or replies == []:
        return None
    if not isinstance(replies, list):
        raise TurnedAway("bad-message", f"{where}: replies is {kind_of(replies)}, expected a list")
    ranked = [reply for reply in replies if isinstance(reply, dict) and type(reply.get("rank")) is int]
    return min(ranked, key=lambda reply: reply["rank"]) if ranked else replies[0]
