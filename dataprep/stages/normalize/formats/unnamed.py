"""Dialogues that say who speaks in another way than by a name in each turn; into turns with names.

- turns whose `type` or `name` is the speaker: {"type": "human", "content": "Hello"}, as LangChain has them;
- turns with a flag such as `is_human`: {"message": "Hello", "is_human": true};
- turns that hold a text and no speaker at all: they alternate, the user first, as lists of strings do;
- turns in numbered columns: {"user_1", "bot_1", "user_2", "bot_2"}, {"message_1": {"role", "content"}, …};
- a list of what was said, as strings, beside the answer to it: {"history": ["…"], "response"}, counted back from there;
- a question, `reasoning_content`, and the answer under `content`.
"""

import re
from typing import Any

from dataprep.stages.normalize.formats.cells import as_list
from dataprep.stages.normalize.formats.history import exchange_keys
from dataprep.stages.normalize.formats.lists import holds_strings
from dataprep.stages.normalize.formats.preference import has_role
from dataprep.stages.normalize.formats.turns import ROLE_KEYS, TEXT_KEYS
from dataprep.stages.normalize.role_pairs import pair_of

PAST_TEXTS = ("history", "context", "dialogue_history", "dialog_history", "chat_history")

# Whether the flag, if true, tells of the user.
_FLAGS = {"is_human": True, "is_user": True, "isUser": True, "from_user": True, "is_bot": False, "isBot": False}
# Keys of other things that hold the speaker where all they hold are speakers.
_NAMES = ("type", "name")
_SPEAKERS = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system"}
# A turn that lacks its speaker under the keys of OpenAI and ShareGPT is a damaged one.
_LONE_TEXTS = tuple(key for key in TEXT_KEYS if key not in ("content", "value", "parts"))
_NUMBERED = re.compile(r"(.*?[^\W\d])[ _-]?(\d{1,3})")
_PLACE = re.compile(r"(\D*)(\d{1,3})")
_TURNS = ("message", "turn", "round", "utterance", "msg")
_ANSWERS = ("response", "answer", "output", "target", "reply", "completion")
_QUESTIONS = ("instruction", "question", "query", "prompt", "input", "problem")


def unnamed_turns(turns: list[Any]) -> list[Any] | None:
    """Give turns that have a flag for who speaks as messages, turns that have nothing as texts; None for others."""
    if not all(isinstance(turn, dict) for turn in turns):
        return None
    first = turns[0]
    key = next((key for key in TEXT_KEYS if first.get(key) is not None), None)
    if any(turn.get(name) is not None for turn in turns for name in ROLE_KEYS):
        return None
    named = next((name for name in _NAMES if all(_is_speaker(turn.get(name)) for turn in turns)), None)
    if named is not None:
        return [{"role": _SPEAKERS[turn[named].lower()], "content": _text_of(turn)} for turn in turns]
    if key is None or not all(type(turn.get(key)) is str for turn in turns):
        return None
    flag = next((name for name in _FLAGS if type(first.get(name)) is bool), None)
    if flag is not None:
        if not all(type(turn.get(flag)) is bool for turn in turns):
            return None
        return [{"role": "user" if turn[flag] is _FLAGS[flag] else "assistant", "content": turn[key]} for turn in turns]
    if key not in _LONE_TEXTS or len(turns) < 2:
        return None
    return [turn[key] for turn in turns]


def in_order(value: object) -> object:
    """Give what an object holds under numbers, {"0": {…}, "1": {…}} or {"turn_1": …}, as a list; else the value."""
    if not isinstance(value, dict) or len(value) < 2:
        return value
    found = [_PLACE.fullmatch(key) if type(key) is str else None for key in value]
    places = {int(place[2]): item for place, item in zip(found, value.values(), strict=True) if place}
    names = {place[1] for place in found if place}
    return (_in_order(places) or value) if len(places) == len(value) and len(names) == 1 else value


def numbered(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give a row whose turns stand in numbered columns with a list of them; None where it has no such columns."""
    columns: dict[str, dict[int, Any]] = {}
    rest = {}
    for key, value in row.items():
        found = _NUMBERED.fullmatch(key) if type(key) is str else None
        if found is None:
            rest[key] = value
        elif value is not None and value != "":
            columns.setdefault(found[1], {})[int(found[2])] = value
    names = [name for name in columns if name.lower() in _TURNS]
    if len(names) == 1:
        turns = _in_order(columns[names[0]])
        if len(turns) > 1 and any(all(map(fits, turns)) for fits in (has_role, exchange_keys, _is_text)):
            return rest | {"conversation": turns}
    pair = pair_of(columns)
    if pair is None:
        return None
    asked, answered = (_in_order(columns[name]) for name in pair)
    texts = [text for texts in zip(asked, answered, strict=False) for text in texts]
    if len(asked) - len(answered) not in (0, 1) or not texts or not all(type(text) is str for text in texts):
        return None
    return rest | {"conversation": _alternating([*texts, *asked[len(answered) :]])}


def continued(row: dict[str, Any]) -> dict[str, Any] | None:
    """Join what was said, a list of strings, with the answer to it; None where a question stands elsewhere."""
    answer = next((row[key] for key in _ANSWERS if row.get(key) is not None), None)
    if type(answer) is not str or any(row.get(key) is not None for key in _QUESTIONS):
        return None
    for key in PAST_TEXTS:
        said = as_list(row.get(key))
        if holds_strings(said) and all(type(text) is str for text in said):
            roles = ("assistant", "user")
            turns = [{"role": roles[(len(said) - place) % 2], "content": text} for place, text in enumerate(said)]
            rest = {name: value for name, value in row.items() if name not in (key, *_ANSWERS)}
            return rest | {"conversation": [*turns, {"role": "assistant", "content": answer}]}
    return None


def thought_through(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give `content`, beside a question and the `reasoning_content` that led to it, as the answer."""
    if type(row.get("content")) is not str or type(row.get("reasoning_content")) is not str:
        return None
    if not any(type(row.get(key)) is str for key in _QUESTIONS) or any(row.get(key) is not None for key in _ANSWERS):
        return None
    return {key: value for key, value in row.items() if key != "content"} | {"response": row["content"]}


def _is_speaker(name: object) -> bool:
    return type(name) is str and name.lower() in _SPEAKERS


def _text_of(turn: dict[str, Any]) -> Any:
    """Give the text of a turn; LangChain has it one level down, under `data`."""
    inner = turn["data"] if isinstance(turn.get("data"), dict) else turn
    return next((inner[key] for key in TEXT_KEYS if inner.get(key) is not None), None)


def _is_text(value: object) -> bool:
    return type(value) is str


def _in_order(column: dict[int, Any]) -> list[Any]:
    """Give the values of a column numbered from 0 or 1; none where a number is left out."""
    first = min(column)
    whole = first in (0, 1) and sorted(column) == list(range(first, first + len(column)))
    return [column[number] for number in sorted(column)] if whole else []


def _alternating(texts: list[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
