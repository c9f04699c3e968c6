"""What was said before a row's own question: its `history`, in any of the shapes that datasets give it."""

from typing import Any

from dataprep.stages.normalize.formats.cells import as_list
from dataprep.stages.normalize.formats.turns import ROLE_KEYS, Roles, read_turns
from dataprep.stages.normalize.message import Message, checked_answer, checked_text
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.role_pairs import pair_of
from dataprep.stages.normalize.texts.marks import read_dialogue

# The keys of an object that is one exchange: who asks, who answers.
EXCHANGE_KEYS = (
    ("human", "assistant"),
    ("user", "assistant"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("user", "bot"),
    ("user", "ai"),
    ("human", "bot"),
    ("human", "ai"),
    ("human", "gpt"),
    ("prompt", "completion"),
    ("问题", "回答"),
    ("问", "答"),
    ("q", "a"),
)


def history_messages(value: object, roles: Roles) -> list[Message]:
    """Read [[question, answer]], [{"role", "content"}], [{"prompt", "response"}] or [question, answer, …]; or its JSON.

    Strings must come in pairs: what follows the history is a question.
    """
    if value is None or value == "":
        return []
    items = as_list(value)
    if isinstance(items, str) and (marked := _marked(items)):
        return marked
    if not isinstance(items, list):
        raise TurnedAway("bad-history", f"history is {kind_of(items)}, expected a list")
    if not items:
        return []
    first = items[0]
    if isinstance(first, str):
        if len(items) % 2:
            raise TurnedAway("bad-history", f"history holds {len(items)} texts; each question needs its answer")
        return _exchanges(list(zip(items[::2], items[1::2], strict=True)))
    if isinstance(first, dict):
        if any(first.get(key) is not None for key in ROLE_KEYS):
            return read_turns(items, roles)
        if exchange_keys(first):
            items = [_opened(item, number) for number, item in enumerate(items, 1)]
    return _exchanges(items)


def _marked(text: str) -> list[Message] | None:
    """Read a history that is one string with speaker marks and ends in an answer."""
    dialogue = read_dialogue(text)
    turns = dialogue.turns if dialogue else ()
    plain = all(turn.part in ("user", "assistant", "system") and turn.text for turn in turns)
    return [(turn.part, turn.text) for turn in turns] if turns and plain and turns[-1].part == "assistant" else None


def exchange_keys(item: Any) -> tuple[str, str] | None:
    """Give the keys of the question and the answer of an object that is one exchange; None where it is none."""
    if not isinstance(item, dict):
        return None
    found = next((keys for keys in EXCHANGE_KEYS if item.get(keys[0]) is not None and keys[1] in item), None)
    return found or _speakers_of(item)


def _speakers_of(item: dict[str, Any]) -> tuple[str, str] | None:
    """Give the keys of an exchange that name its speakers, the user's first, as in {"patient", "doctor"}."""
    pair = pair_of(item)
    if pair is None or not all(type(item[key]) is str for key in pair):
        return None
    keys = list(item)
    return pair if keys.index(pair[0]) < keys.index(pair[1]) else None


def _opened(item: object, number: int) -> list[Any]:
    keys = exchange_keys(item)
    if keys is None or not isinstance(item, dict):
        raise TurnedAway("bad-history", f"pair {number} of history has no question and answer")
    return [item[keys[0]], item[keys[1]]]


def _exchanges(items: list[Any]) -> list[Message]:
    messages: list[Message] = []
    for number, pair in enumerate(items, 1):
        where = f"pair {number} of history"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TurnedAway("bad-history", f"{where} is not a [question, answer] pair")
        messages += (("user", checked_text(pair[0], where)), ("assistant", checked_answer(pair[1], where)))
    return messages
