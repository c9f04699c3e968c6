"""Rows that are OASST trees of messages: which ways from the prompt to a last answer are read.

A reply's `rank` counts from 0, the best; it is missing or null where nobody compared: then the first reply is the
best. Messages that were deleted or failed review are left out, with all that follows them. Which paths there are:

- best: one, always by the best-ranked reply;
- top: to each question only its best-ranked answer, but to each answer every follow-up;
- all: every one.

For top and all a path ends in an answer: a follow-up that nobody answered adds nothing to train on.
"""

from collections.abc import Mapping
from typing import Any

from dataprep.stages.normalize.formats.turns import Converted, Roles
from dataprep.stages.normalize.message import Message, checked_answer, checked_text
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown

PARENT_KEYS = ("parent_id", "parent", "reply_to", "parent_message_id")

_PROMPTER = {"prompter": "user"}


def from_oasst(row: Any, roles: Roles) -> Converted:
    """Convert the best path of {"prompt": {"text", "role": "prompter", "replies": [{"text", "role", "rank", …}]}}.

    A row that is one message of a flat file alone is turned away: what it answers is not there.
    """
    if not isinstance(row, dict) or not is_tree(row.get("prompt")):
        if isinstance(row, dict) and is_flat_message(row):
            raise TurnedAway("missing-parent", _missing(row))
        raise TurnedAway("format-mismatch", "oasst needs the key 'prompt' with an object that has text and replies")
    known = _PROMPTER | dict(roles)
    messages: list[Message] = []
    node: Any = row["prompt"]
    if not _stands(node):
        raise TurnedAway("deleted-message", "the first message was deleted or failed review")
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
        node = _best_reply(_replies(node, where))
    return messages, None


def paths_of(row: dict[str, Any], paths: str, roles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give a tree as trees of one path each; where it has no answer, or is read along the best path, as it is."""
    if paths == "best" or not is_tree(row.get("prompt")) or not _stands(row["prompt"]):
        return [row]
    known = _PROMPTER | dict(roles)
    walked = _walked(row["prompt"], paths, known)
    below = [False] * len(walked)  # whether an answer stands below a message
    for place in range(len(walked) - 1, 0, -1):
        node, parent = walked[place]
        if below[place] or _is_answer(node, known):
            below[parent] = True
    ends = [place for place, (node, _) in enumerate(walked) if _is_answer(node, known) and not below[place]]
    return [row | {"prompt": _chained(walked, end)} for end in ends] or [row]


def is_tree(value: object) -> bool:
    """Tell whether a value is a message that has replies."""
    return isinstance(value, dict) and "text" in value and "replies" in value


def is_flat_message(row: dict[str, Any]) -> bool:
    """Tell whether a row is one message of a tree, which names the message that it replies to by its id."""
    if not any(key in row for key in PARENT_KEYS) or row.get("role") is None:
        return False
    return ("message_id" in row or "id" in row) and ("text" in row or "content" in row)


def _missing(row: dict[str, Any]) -> str:
    parent = next((row[key] for key in PARENT_KEYS if row.get(key) is not None), None)
    if parent is None or parent == "":
        return "the row is one message of a tree; the rows that reply to it are not beside it"
    return f"the row replies to {shown(parent)}; no row of this file leads there from a first message"


def _stands(node: object) -> bool:
    """Tell whether a message was neither deleted nor found wanting in review."""
    return not isinstance(node, dict) or not (
        _says(node.get("deleted"), True) or _says(node.get("review_result"), False)
    )


def _says(value: object, expected: bool) -> bool:
    """Compare a flag, which CSV gives as a text."""
    return value is expected or (type(value) is str and value.lower() == str(expected).lower())


def _replies(node: dict[str, Any], where: str) -> list[Any]:
    replies = node.get("replies")
    if replies is None:
        return []
    if not isinstance(replies, list):
        raise TurnedAway("bad-message", f"{where}: replies is {kind_of(replies)}, expected a list")
    return [reply for reply in replies if _stands(reply)]


def _best_reply(replies: list[Any]) -> Any:
    """Give the reply of the lowest rank, the first where none has one; None at a leaf."""
    ranked = [(_rank(reply), place) for place, reply in enumerate(replies) if _rank(reply) is not None]
    if ranked:
        return replies[min(ranked)[1]]
    return replies[0] if replies else None


def _rank(reply: object) -> float | None:
    """Give a reply's rank; pandas writes whole numbers beside nulls as 0.0, CSV writes texts."""
    rank = reply.get("rank") if isinstance(reply, dict) else None
    if type(rank) is str:
        try:
            rank = float(rank)
        except ValueError:
            return None
    if isinstance(rank, bool) or not isinstance(rank, int | float) or rank != rank:
        return None
    return rank


def _is_answer(node: object, known: Mapping[str, str]) -> bool:
    name = node.get("role") if isinstance(node, dict) else None
    return isinstance(name, str) and known.get(name) == "assistant"


def _walked(root: dict[str, Any], paths: str, known: Mapping[str, str]) -> list[tuple[dict[str, Any], int]]:
    """List a tree's messages, those before that come first, each with the place of the one it replies to."""
    walked: list[tuple[dict[str, Any], int]] = []
    waiting = [(root, -1)]
    while waiting:
        node, parent = waiting.pop()
        walked.append((node, parent))
        replies = _replies(node, f"message {len(walked)}")
        if paths == "top" and not _is_answer(node, known):
            best = _best_reply([reply for reply in replies if _is_answer(reply, known)])
            replies = [reply for reply in replies if reply is best or not _is_answer(reply, known)]
        here = len(walked) - 1
        waiting += [(reply, here) for reply in reversed(replies) if isinstance(reply, dict)]
    return walked


def _chained(walked: list[tuple[dict[str, Any], int]], end: int) -> dict[str, Any]:
    """Copy the messages up to an end so that each has only the next one for its reply."""
    chain: list[dict[str, Any]] = []
    while end >= 0:
        node, end = walked[end]
        chain = [{key: node.get(key) for key in ("role", "text")} | {"replies": chain}]
    return chain[0]
