"""Rows whose dialogue is one string with speaker marks, whole or up to an answer that stands under another key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataprep.stages.normalize.formats.turns import Converted, Roles
from dataprep.stages.normalize.message import Message, checked_text, rich_message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.role_pairs import plain_name
from dataprep.stages.normalize.texts.marks import (
    WHITE,
    Dialogue,
    Turn,
    read_as_dialogue,
    read_dialogue,
    read_prompt,
    without_ends,
)
from dataprep.stages.normalize.texts.tools import row_tools

# Where a dialogue may stand as one string; the first that holds one counts.
WHOLE_KEYS = (
    *("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "plain_text", "sample"),
    *("text", "content", "chosen", "prompt", "input"),
)
# Where a dialogue may stand that waits for its answer, and where that answer may be.
PROMPT_KEYS = ("prompt", "instruction", "query", "question", "input")
ANSWER_KEYS = ("response", "answer", "completion", "output", "chosen")
# Names of the system text beside such a string; the last two are MOSS's.
SYSTEM_KEYS = ("system", "meta_instruction", "prefix")

_NOTHING = ("none", "none.", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The dialogue of a row, the key it stands under, and the key of its last answer where that stands apart."""

    key: str
    dialogue: Dialogue
    answer_key: str | None = None


def from_marked(row: Any, roles: Roles) -> Converted:
    """Convert {"text": "User: …"} by any of WHOLE_KEYS, or {"prompt": "User: … Assistant:", "response"}, and `system`.

    The answer to a prompt that ends in the assistant's mark loses the white space around it, as a turn does.
    """
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; marked needs an object")
    found = find_marked(row) or find_whole(row, read_as_dialogue)
    if found is None:
        detail = "no text of the row begins with a speaker's mark and has one of both speakers"
        raise TurnedAway("bad-marks", detail, "begin the text with a mark such as User:, and each turn with one")
    dialogue = found.dialogue
    if found.answer_key is None:
        messages = _messages(dialogue.turns, roles)
    else:
        answer, turns = row[found.answer_key], dialogue.turns
        if dialogue.is_open:
            answer, turns = without_ends(answer, dialogue.family), turns[:-1]
        messages = [*_messages(turns, roles), ("assistant", answer)]
    return _with_system(row, messages, dialogue), row_tools(row)


def find_marked(row: dict[str, Any]) -> Found | None:
    """Find the marked dialogue of a row: one that `chosen` holds, one that waits for its answer, or any whole one."""
    return find_marked_pair(row) or find_whole(row)


def find_marked_pair(row: dict[str, Any]) -> Found | None:
    """Find the marked dialogue of a row that has a question and an answer under keys of their own."""
    question: Any = None
    for key in PROMPT_KEYS:
        question = row.get(key)
        if question is not None:
            break
    waits = type(question) is str and _may_hold_turns(question) and not (key == "instruction" and row.get("input"))
    if not waits and type(row.get("chosen")) is not str:
        return None
    answer_key = next((name for name in ANSWER_KEYS if type(row.get(name)) is str), None)
    if answer_key == "chosen" and _may_hold_turns(row["chosen"]) and (dialogue := read_dialogue(row["chosen"])):
        return Found(key="chosen", dialogue=dialogue)
    dialogue = read_prompt(question) if waits and answer_key else None
    if dialogue is None or not (dialogue.is_open or key == "prompt"):
        return None
    return Found(key=key, dialogue=dialogue, answer_key=answer_key)


def find_whole(row: dict[str, Any], read: Callable[[str], Dialogue | None] = read_dialogue) -> Found | None:
    """Find the first key of a row under which a whole dialogue stands as one string."""
    for key in WHOLE_KEYS:
        text = _text(row[key]) if key in row else None
        if text is not None and (dialogue := read(text)):
            return Found(key=key, dialogue=dialogue)
    return None


def holds_dialogue(value: object) -> bool:
    """Tell whether a value is a string that is a whole marked dialogue, or MOSS's object of such pieces."""
    text = _text(value)
    return text is not None and read_dialogue(text) is not None


def _text(value: object) -> str | None:
    if type(value) is not dict:
        return value if type(value) is str else None
    pieces = [piece for turn in value.values() if type(turn) is dict for piece in turn.values()]
    return "".join(pieces) if pieces and all(type(piece) is str for piece in pieces) else None


def _may_hold_turns(text: str) -> bool:
    return "\n" in text or text[:1] in ("<", "[", "#") or "ASSISTANT:" in text


def _messages(turns: tuple[Turn, ...], roles: Roles) -> list[Message]:
    messages: list[Message] = []
    thoughts: str | None = None
    for number, turn in enumerate(turns, 1):
        where = f"turn {number}"
        if turn.part == "more" or (turn.part == "user" and number > 1 and turns[number - 2].part == "more"):
            _add_to_question(messages, turn)
            continue
        if turn.part in ("thoughts", "commands", "tool", "system") and turn.text.lower() in _NOTHING:
            continue
        if turn.part == "commands":
            detail = f"{where}: the command {shown(turn.text)} is not JSON"
            raise TurnedAway("bad-tool-call", detail, "write the dialogue as messages with tool_calls")
        if turn.part == "thoughts":
            thoughts = turn.text
            continue
        role = _role(turn, roles, where)
        if role == "assistant":
            messages.append(rich_message(role, turn.text, reasoning=thoughts))
            thoughts = None
        else:
            messages.append((role, turn.text))
    return messages


def _add_to_question(messages: list[Message], turn: Turn) -> None:
    if messages and messages[-1][0] == "user":
        before = messages.pop()[1]
        messages.append(("user", "\n".join(text for text in (before, turn.text) if text)))
    elif turn.text:
        messages.append(("user", turn.text))


def _role(turn: Turn, roles: Roles, where: str) -> str:
    role = roles.get(turn.name) or roles.get(plain_name(turn.name)) or turn.part
    if role not in ("user", "assistant", "system", "tool"):
        detail = f"{where} has the mark of {shown(turn.name)}; expected one of {', '.join(roles)}"
        raise TurnedAway("unknown-role", detail, f"map it with --role {turn.name}=assistant, or =user, =system, =tool")
    return role


def _with_system(row: dict[str, Any], messages: list[Message], dialogue: Dialogue) -> list[Message]:
    keys = SYSTEM_KEYS if "MOSS" in dialogue.family.label else SYSTEM_KEYS[:1]
    key = next((key for key in keys if row.get(key)), None)
    if key is None:
        return messages
    text = checked_text(row[key], key)
    first = ("system", text.removeprefix("SYSTEM:").strip(WHITE) if text.startswith("SYSTEM:") else text)
    return messages if messages and messages[0][:2] == first else [first, *messages]
