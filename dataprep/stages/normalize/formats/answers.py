"""Rows of one question and one answer, under the many names that datasets give to both.

A list may be several answers to choose from, so it is not joined as a message's parts are: one of a single text is that
text, of `answers` the first counts, any other is turned away.
"""

from typing import Any

from dataprep.stages.normalize.formats.pairs import asked
from dataprep.stages.normalize.formats.turns import Converted, Roles
from dataprep.stages.normalize.message import checked_text
from dataprep.stages.normalize.reasons import TurnedAway, kind_of

# Of each group the first that holds text counts; the question is those texts, in this order, joined by newlines.
QUESTION_GROUPS: tuple[tuple[str, ...], ...] = (
    ("instruction",),
    ("question", "query", "prompt"),
    ("input",),
    ("context",),
)
ANSWER_KEYS = ("response", "answer", "completion", "output", "chosen")

# Forum posts: what is asked where no key above but `context` holds text; the answer is then `answer`.
POST_KEYS = ("title", "ask", "body")

# Further names, which count as a pair only: of each alone nobody knows what it means.
NAMED_PAIRS = (
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "gpt"),
    ("human", "bot"),
    ("human", "ai"),
    ("user", "bot"),
    ("user", "ai"),
    ("patient", "doctor"),
    ("question", "answers"),
    ("question", "best_answer"),
    ("context", "response"),
    ("input_text", "output_text"),
    ("input_text", "target_text"),
    ("inputs", "targets"),
    ("inputs", "outputs"),
    ("input", "target"),
    ("source", "target"),
    ("problem", "solution"),
    ("problem", "answer"),
    ("questiontext", "answertext"),
    ("user_message", "assistant_message"),
    ("message_1", "message_2"),
    ("q", "a"),
    ("问题", "回答"),
    ("问题", "答案"),
    ("问", "答"),
)

# The answers that may stand beside a `text` which is the same dialogue written out; a target may be that of anything.
SPOKEN_ANSWERS = frozenset((*ANSWER_KEYS, "assistant", "gpt", "bot", "ai", "doctor", "best_answer", "回答", "答"))

_POST_GROUPS: tuple[tuple[str, ...], ...] = (("title",), ("ask", "body"), ("context",))
_ASKING = ("instruction", "question", "query", "prompt", "input")
_ANSWERING = frozenset(ANSWER_KEYS)
_KNOWN = frozenset((*_ASKING, *POST_KEYS, *ANSWER_KEYS, *(key for pair in NAMED_PAIRS for key in pair)))


def _spellings(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form for key in keys for form in (key, key.capitalize(), key.title(), key.upper())))


# The spellings that a column may have. A row without any of those of an answer is none of question and answer.
ANSWER_SPELLINGS = (*_spellings((*ANSWER_KEYS, *(answer for _, answer in NAMED_PAIRS))), "answerText")
SPELLINGS = (
    *_spellings((*_ASKING, "context", *POST_KEYS, *(question for question, _ in NAMED_PAIRS), "system", "history")),
    *("questionText", *ANSWER_SPELLINGS),
)


def from_question_answer(row: Any, roles: Roles) -> Converted:
    """Convert {"question", "context", "answer", "system", "history"} or {"title", "ask", "answer"}, by any names."""
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; question-answer needs an object")
    if not is_question_answer(row):
        row = lowered(row) or row
    answer_key = _first_of(row, ANSWER_KEYS)
    pair = None if _is_asked(row) else named_pair(row)
    answer_key = pair[1] if pair else answer_key or next((key for key in ANSWER_KEYS if key in row), None)
    if answer_key is None:
        detail = f"question-answer needs one of the keys {', '.join(ANSWER_KEYS)}"
        raise TurnedAway("format-mismatch", detail)
    question = question_text(row)
    if pair and (question is None or pair[0] not in _ASKING):
        question = _one_text(row[pair[0]], pair[0])
    if question is None:
        detail = f"question-answer needs one of the keys {', '.join((*_ASKING, *POST_KEYS))}"
        raise TurnedAway("format-mismatch", detail)
    return asked(row, question, _one_answer(row[answer_key], answer_key), answer_key, roles)


def question_text(row: dict[str, Any]) -> str | None:
    """Give what a row asks, joined from its keys by newlines; None where it has no such key."""
    if _first_of(row, _ASKING) is not None:
        groups = QUESTION_GROUPS
    elif _first_of(row, POST_KEYS) is not None:
        groups = _POST_GROUPS
    else:
        return None
    return "\n".join(text for text in (_first_text(row, keys) for keys in groups) if text)


def is_question_answer(row: dict[str, Any]) -> bool:
    """Tell whether a row has a question and an answer under any of the names."""
    return _is_asked(row) or (not _KNOWN.isdisjoint(row) and named_pair(row) is not None)


def is_unanswered(row: dict[str, Any]) -> bool:
    """Tell whether a row has a question, and a key for its answer that may be null."""
    if _first_of(row, _ASKING) is not None:
        return not _ANSWERING.isdisjoint(row)
    return "answer" in row and _first_of(row, POST_KEYS) is not None


def named_pair(row: dict[str, Any]) -> tuple[str, str] | None:
    """Give the first of NAMED_PAIRS that a row has, neither of them null.

    A list of objects is no answer: it may be answers that were rated.
    """
    for question, answer in NAMED_PAIRS:
        value = row.get(answer)
        rated = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        if value is not None and not rated and row.get(question) is not None:
            return question, answer
    return None


def lowered(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give a row with its keys in lower case where that makes it one of question and answer; None where not."""
    if all(type(key) is str and key.islower() for key in row):
        return None
    small = {key.strip().lower(): value for key, value in row.items() if type(key) is str and value is not None}
    return small if is_question_answer(small) else None


def _is_asked(row: dict[str, Any]) -> bool:
    if _first_of(row, _ASKING) is not None:
        return not _ANSWERING.isdisjoint(row) and _first_of(row, ANSWER_KEYS) is not None
    return row.get("answer") is not None and _first_of(row, POST_KEYS) is not None


def _first_of(row: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        if row.get(key) is not None:
            return key
    return None


def _first_text(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    key = _first_of(row, keys)
    return "" if key is None else _one_text(row[key], key) or ""


def _one_answer(value: object, key: str) -> str | None:
    """Give the answer; `answers` may hold several, alone or as SQuAD's {"text": […]}, of which the first counts."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
        key = "answers"
    if key == "answers" and isinstance(value, list):
        return _one_text(value[0], key) if value else None
    return _one_text(value, key)


def _one_text(value: object, key: str) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return checked_text(value, key)
    if isinstance(value, list) and len(value) == 1 and type(value[0]) is str:
        return value[0]
    if isinstance(value, dict) and value.get("type") == "text":
        return checked_text(value, key)
    raise TurnedAway("non-text-content", f"{key} is {kind_of(value)}, expected a string")
