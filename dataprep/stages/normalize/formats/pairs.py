"""Rows of questions and answers: turn pairs, Alpaca, prompt/response, marked text, and plain text."""

import re
from typing import Any

from dataprep.stages.normalize.formats.history import history_messages
from dataprep.stages.normalize.formats.turns import Converted, Roles, turn_list, with_system
from dataprep.stages.normalize.message import Message, checked_answer, checked_text
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.texts.tools import row_tools

# Which keys a pair may carry, and the role of each, in the order of speaking.
PAIR_KEYS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "input": "user",
    "assistant": "assistant",
    "output": "assistant",
}

# The reasoning of a row's one answer; the first that holds words counts.
REASONING_COLUMNS = (
    *("reasoning_content", "reasoning", "thinking", "think", "thought"),
    *("cot", "Complex_CoT", "complex_cot", "chain_of_thought"),
)
# What such a column may say instead: whether there is reasoning, not which.
_SWITCHES = ("on", "off", "yes", "no", "true", "false", "none", "low", "medium", "high")
_REASONING = frozenset(REASONING_COLUMNS)

_MARK = re.compile(r"\n\n(Human|Assistant):")
_MARK_ROLES = {"Human": "user", "Assistant": "assistant"}


def from_turn_pairs(row: Any, roles: Roles) -> Converted:
    """Convert {"conversation": [{"human", "assistant"}]} or [{"system", "input", "output"}] items.

    A dialogue that ends with the user has a last pair without an answer; that pair is its question only.
    """
    items = turn_list(row)
    messages: list[Message] = []
    try:
        for item in items:
            question, answer = item["human"], item["assistant"]
            if len(item) != 2 or type(question) is not str or type(answer) is not str or not answer or answer.isspace():
                raise KeyError
            messages += (("user", question), ("assistant", answer))
    except (KeyError, TypeError):
        messages = [message for number, item in enumerate(items, 1) for message in _pair(item, number, len(items))]
    return with_system(row, messages), row_tools(row)


def from_alpaca(row: Any, roles: Roles) -> Converted:
    """Convert {"instruction", "input", "output", "system", "history"}.

    The question is instruction and input, joined by a newline where both hold text.
    """
    _require(row, "alpaca", ("instruction", "output"))
    instruction = checked_text(row["instruction"], "instruction")
    extra = checked_text(row["input"], "input") if row.get("input") is not None else ""
    question = f"{instruction}\n{extra}" if instruction and extra else instruction or extra
    return asked(row, question, row["output"], "output", roles)


def from_prompt_response(row: Any, roles: Roles) -> Converted:
    """Convert {"prompt" or "query", "response", "system", "history"}."""
    key = "prompt" if isinstance(row, dict) and row.get("prompt") is not None else "query"
    _require(row, "prompt-response", (key, "response"))
    return asked(row, checked_text(row[key], key), row["response"], "response", roles)


def from_marked_text(row: Any, roles: Roles) -> Converted:
    r"""Convert {"prompt", "chosen"}, or {"chosen"} alone, whose text carries \n\nHuman: and \n\nAssistant: marks.

    The one space after a mark belongs to the mark. A `chosen` that begins with a mark is the whole dialogue.
    """
    _require(row, "hh", ("chosen",))
    text = checked_text(row["chosen"], "chosen")
    if not _MARK.match(text) and row.get("prompt") is not None:
        text = checked_text(row["prompt"], "prompt") + text
    pieces = _MARK.split(text)
    if len(pieces) == 1 or pieces[0]:
        raise TurnedAway("bad-marks", r"the text does not begin with \n\nHuman: or \n\nAssistant:")
    messages: list[Message] = []
    for number, (mark, piece) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True), 1):
        content = piece.removeprefix(" ")
        role = _MARK_ROLES[mark]
        messages.append((role, checked_answer(content, f"message {number}") if role == "assistant" else content))
    return messages, None


def has_marks(row: dict[str, Any]) -> bool:
    """Tell whether `chosen`, or `prompt` before it, begins with a mark."""
    texts = (row.get("chosen"), row.get("prompt"))
    return isinstance(texts[0], str) and any(isinstance(text, str) and _MARK.match(text) for text in texts)


def asked(row: dict[str, Any], question: str, answer: object, answer_key: str, roles: Roles) -> Converted:
    """Give the conversation of a row's `history`, then a question and its answer, under the row's `system`.

    A column of reasoning beside them is that of the answer.
    """
    messages = history_messages(row.get("history"), roles)
    text = checked_answer(answer, answer_key)
    reasoning = None if _REASONING.isdisjoint(row) else _reasoning(row)
    messages += (("user", question), ("assistant", text) if reasoning is None else ("assistant", text, reasoning))
    return with_system(row, messages), row_tools(row)


def from_text(row: Any, roles: Roles) -> Converted:
    """Convert {"text"}: a document, whole."""
    _require(row, "text", ("text",))
    text = checked_text(row["text"], "text")
    if not text or text.isspace():
        raise TurnedAway("no-content", "text is empty")
    return [("text", text)], None


def _reasoning(row: dict[str, Any]) -> str | None:
    texts = (row.get(key) for key in REASONING_COLUMNS)
    return next(
        (text for text in texts if type(text) is str and text.strip() and text.strip().lower() not in _SWITCHES), None
    )


def _pair(item: Any, number: int, num_pairs: int) -> list[Message]:
    where = f"turn {number}"
    if not isinstance(item, dict):
        raise TurnedAway("bad-message", f"{where} is {kind_of(item)}, expected an object")
    messages: list[Message] = []
    for key, role in PAIR_KEYS.items():
        value = item.get(key)
        absent = value is None or value == ""
        if key not in item or (absent and (role == "system" or (role == "assistant" and number == num_pairs))):
            continue
        if role == "assistant":
            messages.append((role, checked_answer(value, where)))
        elif value is not None:
            messages.append((role, checked_text(value, f"{where}: {key}")))
    if not messages:
        raise TurnedAway("bad-message", f"{where} has no text under any of the keys {', '.join(PAIR_KEYS)}")
    return messages


def _require(row: Any, format_name: str, keys: tuple[str, ...]) -> None:
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; {format_name} needs an object")
    missing = [key for key in keys if key not in row]
    if missing:
        raise TurnedAway("format-mismatch", f"{format_name} needs the key {missing[0]!r}, which the row lacks")
