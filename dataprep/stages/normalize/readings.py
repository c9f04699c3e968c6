"""Rows that could be read in two ways: a sentence for the way that was taken, for the summary to count.

A sentence tells of a format and its keys, never of one row's text, so that rows of a kind share it. Formats that leave
no doubt are not in the table.
"""

from collections.abc import Callable
from typing import Any

from dataprep.stages.normalize.formats.answers import ANSWER_KEYS, QUESTION_GROUPS
from dataprep.stages.normalize.formats.choices import CHOICE_KEYS, choice_lines
from dataprep.stages.normalize.formats.lists import SPEAKER_KEYS
from dataprep.stages.normalize.formats.marked import find_marked

_ASKED = tuple(key for group in QUESTION_GROUPS for key in group if key != "context")
_HISTORY = "`history` read as the turns before the question; its answers are trained on, too"
_ALTERNATING = "a list of strings read as alternating, the user first"
_SPEAKERS = "a list of strings read by the list of speakers; of two unknown names the first to speak is the user"
_PARALLEL = "lists of inputs and outputs read as turns of one dialogue"


def reading_of(format_name: str, row: Any) -> str | None:
    """Say how a row was read that could be read in two ways; None where nothing is in doubt."""
    reading = _READINGS.get(format_name)
    return None if reading is None else reading(row if type(row) is dict else {})


def _question_answer(row: dict[str, Any]) -> str | None:
    if _several(row.get("answers")) and not any(row.get(key) for key in ANSWER_KEYS):
        return "`answers` holds several; the first read as the answer"
    asked = any(row.get(key) for key in _ASKED)
    if row.get("context") and asked:
        return "`context` read as part of the question"
    if row.get("question") and type(row.get("description")) is str:
        return "`description` read as part of the question"
    if any(row.get(key) for key in CHOICE_KEYS) and choice_lines(row):
        return "what there is to choose from read as part of the question"
    posted = [key for key in ("title", "ask", "body") if row.get(key)]
    if len(posted) > 1 and not asked:
        return f"{' and '.join(posted)} joined into the question"
    return _history(row)


def _several(answers: object) -> bool:
    texts = answers.get("text") if isinstance(answers, dict) else answers
    return isinstance(texts, list) and len(set(map(str, texts))) > 1


def _alternating(row: dict[str, Any]) -> str:
    return _SPEAKERS if any(row.get(key) for key in SPEAKER_KEYS) else _ALTERNATING


def _history(row: dict[str, Any]) -> str | None:
    return _HISTORY if row.get("history") else None


def _marked(row: dict[str, Any]) -> str | None:
    found = find_marked(row)
    if found is None:
        return None
    marks = f"`{found.key}` with speaker marks ({found.dialogue.family.label}) read as"
    if found.answer_key:
        return f"{marks} the turns before `{found.answer_key}`"
    return f"{marks} a dialogue, not as a document" if found.key in ("text", "content") else f"{marks} a dialogue"


_READINGS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "question-answer": _question_answer,
    "alpaca": _history,
    "prompt-response": _history,
    "marked": _marked,
    "alternating": _alternating,
    "parallel": lambda row: _PARALLEL,
}
