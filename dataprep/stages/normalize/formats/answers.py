"""Rows of one question and one answer, under the many names that datasets give to both.

A list may be several answers to choose from, so it is not joined as a message's parts are: one of a single text is that
text, of `answers` the first counts, any other is turned away.
"""

from typing import Any

from dataprep.stages.normalize.formats.choices import CHOICE_COLUMNS, choice_lines
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
    ("inputs_pretokenized", "targets_pretokenized"),
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
    ("text", "output"),  # of these three the text may be a marked dialogue, so convert.py looks for that first
    ("text", "response"),
    ("text", "answer"),
    ("query", "reply"),
    ("question", "reply"),
    ("utterance", "response"),
    ("message", "response"),
    ("message", "reply"),
    ("post", "response"),
    ("post", "reply"),
    ("request", "response"),
    ("src", "tgt"),
    ("prompt_text", "response_text"),
    ("user_prompt", "model_response"),
    ("user_prompt", "assistant_response"),
    ("user_input", "model_response"),
    ("user_input", "assistant_response"),
    ("user_input", "bot_response"),
    ("user_message", "bot_message"),
    ("user_message", "ai_message"),
    ("human_message", "ai_message"),
    ("instruction_zh", "output_zh"),
    ("instruction_en", "output_en"),
    ("指令", "输出"),
    ("输入", "输出"),
    ("用户", "助理"),
    ("用户", "机器人"),
    ("client", "counselor"),
    ("client", "therapist"),
    ("seeker", "supporter"),
    ("问题", "回答"),
    ("问题", "答案"),
    ("问", "答"),
    ("提问", "回答"),
    ("题目", "答案"),
    ("用户", "助手"),
    ("患者", "医生"),
    ("来访者", "咨询师"),
    ("来访者", "心理咨询师"),
    ("問題", "回答"),
    ("問題", "答案"),
    ("質問", "回答"),
    ("질문", "답변"),
    ("pregunta", "respuesta"),
    ("pergunta", "resposta"),
    ("domanda", "risposta"),
    ("frage", "antwort"),
    ("question", "réponse"),
    ("question", "reponse"),
    ("вопрос", "ответ"),
)

# The answers that may stand beside a `text` which is the same dialogue written out; a target may be that of anything.
SPOKEN_ANSWERS = frozenset((*ANSWER_KEYS, "assistant", "gpt", "bot", "ai", "doctor", "best_answer", "回答", "答"))

_POST_GROUPS: tuple[tuple[str, ...], ...] = (("title",), ("ask", "body", "description", "content"), ("context",))
_ASKING = ("instruction", "question", "query", "prompt", "input")
# What may stand before the question of a named pair.
_TASK = ("instruction",)
_TASKS = {"questiontext": ("questiontitle",), "inputs": ("definition", "instruction")}
_MORE = {"指令": ("输入",), "instruction_zh": ("input_zh",), "instruction_en": ("input_en",)}  # and after it
_TEXT_ANSWERS = tuple(answer for question, answer in NAMED_PAIRS if question == "text")
_CHOICES = frozenset((*CHOICE_COLUMNS, "a"))
_ANSWERING = frozenset(ANSWER_KEYS)
_KNOWN = frozenset((*_ASKING, *POST_KEYS, *ANSWER_KEYS, *(key for pair in NAMED_PAIRS for key in pair)))


def _spellings(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form for key in keys for form in (key, key.capitalize(), key.title(), key.upper())))


# The spellings that a column may have. A row without any of those of an answer is none of question and answer.
ANSWER_SPELLINGS = (*_spellings((*ANSWER_KEYS, *(answer for _, answer in NAMED_PAIRS))), "answerText")
SPELLINGS = (
    *_spellings((*_ASKING, "context", *POST_KEYS, *(question for question, _ in NAMED_PAIRS), "system", "history")),
    *(
        "questionText",
        "questionTitle",
        "definition",
        *CHOICE_COLUMNS,
        "输入",
        "input_zh",
        "input_en",
        *ANSWER_SPELLINGS,
    ),
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
        question = _with_task(row, _one_text(row[pair[0]], pair[0]), pair[0])
    if question is None:
        detail = f"question-answer needs one of the keys {', '.join((*_ASKING, *POST_KEYS))}"
        raise TurnedAway("format-mismatch", detail)
    if not _CHOICES.isdisjoint(row):
        lines = [line for line in choice_lines(row) if line not in question]
        question = "\n".join((question, *lines))
    return asked(row, question, _one_answer(row[answer_key], answer_key), answer_key, roles)


def question_text(row: dict[str, Any]) -> str | None:
    """Give what a row asks, joined from its keys by newlines; None where it has no such key."""
    if _first_of(row, _ASKING) is not None:
        groups = QUESTION_GROUPS
    elif _first_of(row, POST_KEYS) is not None:
        groups = _POST_GROUPS
    else:
        return None
    texts = [_first_text(row, keys) for keys in groups]
    if groups is QUESTION_GROUPS and row.get("question") is not None and type(row.get("description")) is str:
        texts.insert(2, row["description"])  # a post: its title, then what it says
    return "\n".join(text for text in texts if text)


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
        value, asked = row.get(answer), row.get(question)
        if value is None or asked is None:
            continue
        rated = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        turns = question == "message_1" and (isinstance(value, dict) or row.get("message_3") is not None)
        turns = turns or (question in ("context", "request") and isinstance(asked, list | dict))
        if not rated and not turns:
            return question, answer
    return None


def asks_by_text(row: dict[str, Any]) -> bool:
    """Tell whether what a row asks stands under `text`, beside an answer that is a text and no other question."""
    if type(row["text"]) is not str or not any(type(row.get(key)) is str for key in _TEXT_ANSWERS):
        return False
    pair = None if _is_asked(row) else named_pair(row)
    return pair is not None and pair[0] == "text"


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


def _with_task(row: dict[str, Any], question: str | None, key: str) -> str | None:
    """Put what is to be done with an input, or the title of a post, on a line of its own before it."""
    task = next((row[name] for name in _TASKS.get(key, _TASK) if type(row.get(name)) is str and row[name]), None)
    more = next((row[name] for name in _MORE.get(key, ()) if type(row.get(name)) is str), None)
    if task and question and question.startswith(task):
        task = None
    return "\n".join(text for text in (task, question, more) if text)


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
    if key in _ANSWERING and isinstance(value, list) and value and all(type(part) is str for part in value):
        detail, fix = f"{key} is a list of {len(value)} texts, expected one", "keep the text that is meant"
        raise TurnedAway("non-text-content", detail, f"{fix}; of two, name the better one chosen, the other rejected")
    if isinstance(value, dict):
        held = next((value[name] for name in ("text", "value") if type(value.get(name)) is str), None)
        if held is not None:
            return held
    raise TurnedAway("non-text-content", f"{key} is {kind_of(value)}, expected a string")
