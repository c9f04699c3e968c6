"""Rows of one question and one answer, under the many names that datasets give to both."""

from typing import Any

from dataprep.stages.normalize.pairs import asked
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.turns import Converted, Roles

# Of each group the first that holds text counts; the question is those texts, in this order, joined by newlines.
QUESTION_GROUPS: tuple[tuple[str, ...], ...] = (
    ("instruction",),
    ("question", "query", "prompt"),
    ("input",),
    ("context",),
)
ANSWER_KEYS = ("response", "answer", "completion", "output", "chosen")

# Forum posts: what is asked where no key above but `context` holds text; the answer is then `answer`.
POST_KEYS = ("title", "ask")

_POST_GROUPS: tuple[tuple[str, ...], ...] = (("title",), ("ask",), ("context",))
_ASKING = ("instruction", "question", "query", "prompt", "input")


def from_question_answer(row: Any, roles: Roles) -> Converted:
    """Convert {"question", "context", "answer", "system", "history"} or {"title", "ask", "answer"}, by any names."""
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; question-answer needs an object")
    answer_key = next((key for key in ANSWER_KEYS if row.get(key) is not None), None)
    answer_key = answer_key or next((key for key in ANSWER_KEYS if key in row), None)
    if answer_key is None:
        detail = f"question-answer needs one of the keys {', '.join(ANSWER_KEYS)}"
        raise TurnedAway("format-mismatch", detail)
    question = question_text(row)
    if question is None:
        detail = f"question-answer needs one of the keys {', '.join((*_ASKING, *POST_KEYS))}"
        raise TurnedAway("format-mismatch", detail)
    return asked(row, question, _one_text(row[answer_key], answer_key), answer_key)


def question_text(row: dict[str, Any]) -> str | None:
    """Give what a row asks, joined from its keys by newlines; None where it has no such key."""
    if any(row.get(key) is not None for key in _ASKING):
        groups = QUESTION_GROUPS
    elif any(row.get(key) is not None for key in POST_KEYS):
        groups = _POST_GROUPS
    else:
        return None
    return "\n".join(text for text in (_first_text(row, keys) for keys in groups) if text)


def is_question_answer(row: dict[str, Any]) -> bool:
    """Tell whether a row has a question and an answer, null or not, under any of the names."""
    if any(row.get(key) is not None for key in _ASKING):
        return any(key in row for key in ANSWER_KEYS)
    return "answer" in row and any(row.get(key) is not None for key in POST_KEYS)


def _first_text(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    key = next((key for key in keys if row.get(key) is not None), None)
    return "" if key is None else _one_text(row[key], key) or ""


def _one_text(value: object, key: str) -> str | None:
    """Give a text; a list may be several answers to choose from, so it is not joined as a message's parts are."""
    if value is None or type(value) is str:
        return value
    raise TurnedAway("non-text-content", f"{key} is {kind_of(value)}, expected a string")
