"""Rows that hold an ordinary row in another arrangement: each is given as the ordinary row or rows that it means.

These are looked at only where no ordinary format is found:

- text that writes out a list (cells of CSV), and an object of lists, in the place of a list of turns;
- a row wrapped once: {"row": {…}}, also data, json, item, record, conversation, body, request (WRAPPERS);
- what an OpenAI client logs: {"request": {"messages"}, "response": {"choices": [{"message"}]}}, batches too;
- turns that are [question, answer] or [role, text] lists, or objects of one exchange such as {"question", "answer"};
- `prompt` or another question as a list of messages, beside an answer;
- {"turns": […], "choices": [{"turns": […]}]}, and answers alone, which are turned away;
- {"instruction", "instances": [{"input", "output"}]}: one row an instance;
- answers that were compared (ranked.py);
- `history`, `utterances`, `chat` and other names for the whole dialogue (_PAST);
- turns that name no speaker (unnamed.py).
"""

from collections.abc import Iterator
from typing import Any

from dataprep.stages.normalize.formats.answers import ANSWER_KEYS
from dataprep.stages.normalize.formats.cells import as_list, parsed_cell
from dataprep.stages.normalize.formats.history import exchange_keys
from dataprep.stages.normalize.formats.lists import SPEAKER_KEYS, holds_strings, parallel_keys
from dataprep.stages.normalize.formats.preference import answer_turns, has_role
from dataprep.stages.normalize.formats.ranked import (
    COMPARED,
    LISTED,
    NAMED_SIDES,
    RATING_LISTS,
    WINNERS,
    compared,
    item_text,
)
from dataprep.stages.normalize.formats.turns import LATER_LISTS, SYSTEM_KEYS, TURN_LISTS, holds_turns, turn_keys
from dataprep.stages.normalize.formats.unnamed import PAST_TEXTS, continued, in_order, thought_through, unnamed_turns
from dataprep.stages.normalize.message import ROLE_NAMES
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.role_pairs import with_role_pair
from dataprep.stages.normalize.texts.media import MEDIA_KEYS
from dataprep.stages.normalize.texts.tools import TOOL_KEYS

WRAPPERS = ("row", "data", "json", "item", "record", "conversation", "dialogue", "dialog", "session", "body", "request")
_PAST = (
    *("history", "utterances", "chat", "chat_history", "chats", "chat_messages", "log", "transcript", "content"),
    *("rounds", "session", "dialogues", "msgs", "dialogue_history", "dialog_history"),
    *("对话", "对话内容", "对话记录", "对话历史", "聊天记录", "会话"),
)
# Where a list of strings is a dialogue, too.
_SAID = ("utterances", "chat", "content", "transcript", "对话", "对话内容", "对话记录")
# Where two columns of lists may stand: who speaks, and what is said; and what was replied in a tree.
_WHO = (*SPEAKER_KEYS, "role")
_WHAT = ("texts", "text", "utterances", "contents", "content", "sentences")
_REPLIES = ("replies", "children")
RESHAPED_KEYS = (
    *WRAPPERS,
    *("choices", "instances", "input", "response", "completion", *_PAST),
    *(key for pair in (*NAMED_SIDES, *COMPARED) for key in pair),
    *(*PAST_TEXTS, "reasoning_content", "target", "reply", "description", "Human", "Assistant"),
    *(*_REPLIES, *_WHO, *_WHAT),
    *(*LISTED, *RATING_LISTS, *WINNERS, "rejected", "rejected_messages", "label", "kto_tag"),
)

_LISTS = (*TURN_LISTS, *LATER_LISTS)
_ASKED = ("prompt", "question", "query", "input", "context", "history")
# What stands beside an arrangement and belongs to its dialogue.
_KEPT_OUTSIDE = (*SYSTEM_KEYS, *TOOL_KEYS, *MEDIA_KEYS)
# Whose objects may be rows of a whole file, so that they are no exchanges of one dialogue.
_MAY_HOLD_ROWS = ("data",)


def reshaped(row: Any) -> Iterator[list[Any]]:
    """Yield the ordinary rows that an unusual row may mean, the likeliest first: each time one, or its instances."""
    if isinstance(row, list):
        if row and isinstance(row[0], list) and _turns_of(row):
            yield [{"conversation": row}]
        return
    for reading in _READINGS:
        found = reading(row)
        if found is not None:
            yield [found]
    if instances := _instances(row):
        yield instances


def logged(row: dict[str, Any]) -> dict[str, Any] | None:
    """Join what an OpenAI client sent with what came back: a completion, or its text; None where there is no such.

    Messages that end in an answer already are joined with nothing.
    """
    answer = _first_message(row.get("response")) or _first_message(row) or _later_text(row)
    if answer is None:
        return None
    for key in ("request", "body", None):
        sent = row if key is None else row.get(key)
        sent = sent["body"] if isinstance(sent, dict) and isinstance(sent.get("body"), dict) else sent
        if isinstance(sent, dict) and holds_turns(sent.get("messages")):
            if not _waits(sent["messages"]):
                return None
            beside = row if key is None else sent
            kept = {name: value for name, value in beside.items() if name not in ("response", "completion", "choices")}
            return kept | {"messages": [*sent["messages"], answer]}
    return None


def _later_text(row: dict[str, Any]) -> dict[str, Any] | None:
    text = next((row[key] for key in ("response", "completion") if row.get(key) is not None), None)
    waits = type(text) is str and bool(text.strip()) and holds_turns(row.get("messages"))
    return {"role": "assistant", "content": text} if waits else None


def _waits(messages: list[Any]) -> bool:
    """Tell whether messages, by OpenAI's names, end before an answer."""
    last = messages[-1]
    return isinstance(last, dict) and "content" in last and last.get("role") in ("user", "tool", "human")


def _listed(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give the row with its turns as a list of objects, where they stand as text, as columns or as lists."""
    for key in _LISTS:
        value = row.get(key)
        if value is None:
            continue
        turns = in_order(as_list(value))
        if not isinstance(turns, list) or not turns:
            continue
        items = None if key in _MAY_HOLD_ROWS and isinstance(turns[0], dict) else _turns_of(turns)
        written_out = type(value) is str and isinstance(turns[0], str) and key != "turns"
        if items is None and turns is not value and (written_out or has_role(turns[0])):
            items = turns
        if items is not None:
            return {name: value for name, value in row.items() if name != key} | {_home(key, items): items}
    return None


def _home(key: str, items: list[Any]) -> str:
    return "conversation" if key in LATER_LISTS and ("human" in items[0] or type(items[0]) is str) else key


def _turns_of(turns: list[Any]) -> list[Any] | None:
    """Give turns that are [question, answer] or [role, text] lists, or exchanges by other names, as objects."""
    first = turns[0]
    if isinstance(first, list):
        if not all(isinstance(turn, list) and _is_pair(turn, last=turn is turns[-1]) for turn in turns):
            return None
        names = {turn[0] for turn in turns}
        known = with_role_pair(names, ROLE_NAMES)
        if all(name in known for name in names) and all(len(turn) == 2 for turn in turns):
            return [{"role": role, "content": text} for role, text in turns]
        return [{"human": turn[0], "assistant": turn[1] if len(turn) == 2 else None} for turn in turns]
    if has_role(first) or exchange_keys(first) is None:
        return unnamed_turns(turns)
    return [_exchange(turn) for turn in turns]


def _is_pair(turn: list[Any], *, last: bool) -> bool:
    if len(turn) == 2:
        return type(turn[0]) is str and (type(turn[1]) is str or (last and turn[1] is None))
    return last and len(turn) == 1 and type(turn[0]) is str


def _exchange(turn: Any) -> Any:
    keys = exchange_keys(turn)
    if keys is None:
        return turn
    asked = [turn["instruction"]] if keys[0] != "instruction" and type(turn.get("instruction")) is str else []
    asked += [turn[keys[0]]]
    asked += [turn["input"]] if keys[0] == "instruction" and type(turn.get("input")) is str else []
    question = "\n".join(text for text in asked if text) if all(type(text) is str for text in asked) else asked[-1]
    system = {"system": turn["system"]} if turn.get("system") is not None else {}
    return system | {"human": question, "assistant": turn[keys[1]]}


def _unwrapped(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give the one object under a wrapper's key, with the system text and the tools that stand outside."""
    inner = [row[key] for key in WRAPPERS if isinstance(row.get(key), dict)]
    if len(inner) != 1:
        return None
    kept = {key: row[key] for key in _KEPT_OUTSIDE if row.get(key) is not None and inner[0].get(key) is None}
    return inner[0] | kept


def _answered(row: dict[str, Any]) -> dict[str, Any] | None:
    """Join a question that is a list of messages, or a text, with an answer that is messages, or a text."""
    answer = next((row[key] for key in ANSWER_KEYS if row.get(key) is not None and key != "chosen"), None)
    asked = next((row[key] for key in _ASKED if row.get(key) is not None), None)
    asked = parsed_cell(asked)
    if answer is None or asked is None or row.get("chosen") is not None:
        return None
    talks = [holds_turns(value) and has_role(value[0]) for value in (asked, parsed_cell(answer))]
    if not any(talks) or not (talks[0] or type(asked) is str):
        return None
    if not (talks[1] or type(answer) is str or has_role(answer)):
        return None
    after = answer_turns(answer, "the answer")
    before = asked if talks[0] else [{"role": "user", "content": asked}]
    kept = {key: row[key] for key in (*_KEPT_OUTSIDE, "label", "kto_tag") if row.get(key) is not None}
    return kept | {"messages": [*before, *_like(before[0], after)]}


def _like(first: dict[str, Any], turns: list[Any]) -> list[Any]:
    """Give turns the keys that another turn has for role and text."""
    role_key, text_key = turn_keys(first)
    own_role, own_text = turn_keys(turns[0])
    if (role_key, text_key) == (own_role, own_text):
        return turns
    return [
        {key: value for key, value in turn.items() if key not in (own_role, own_text)}
        | {role_key: turn.get(own_role), text_key: turn.get(own_text)}
        if isinstance(turn, dict)
        else turn
        for turn in turns
    ]


def _preferred(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give OpenAI's preference rows, whose `input` holds the messages, as a dialogue with `chosen` and `rejected`."""
    sent = row.get("input")
    if not isinstance(sent, dict) or row.get("preferred_output") is None:
        return None
    return sent | {"chosen": row["preferred_output"], "rejected": row.get("non_preferred_output")}


def _question_set(row: dict[str, Any]) -> dict[str, Any] | None:
    """Join the questions of a benchmark with the first of the dialogues that answer them."""
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and isinstance(first.get("turns"), list):
        if isinstance(row.get("turns"), list):
            return {"input": row["turns"], "output": first["turns"], "system": row.get("system")}
        raise TurnedAway("no-question", "the row holds the answers to questions that stand elsewhere")
    if _first_message(row.get("response")) or _first_message(row):
        raise TurnedAway("no-question", "the row holds what came back, not what was sent")
    return None


def _past(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give the dialogue under a name that other formats have for something else, such as a history."""
    for key in _PAST:
        said = as_list(row.get(key))
        if not isinstance(said, list) or not said:
            continue
        turns = (
            said if has_role(said[0]) or (key in _SAID and len(said) > 1 and type(said[0]) is str) else _turns_of(said)
        )
        if turns is not None:
            kept = {name: row[name] for name in (*_KEPT_OUTSIDE, *SPEAKER_KEYS) if row.get(name) is not None}
            return kept | {"conversation": turns}
    return None


def _first_answer(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give answers that are objects with a text, and that nobody rated, as their texts."""
    answers = row.get("answers")
    texts = [item_text(item) for item in answers] if isinstance(answers, list) and holds_turns(answers) else []
    asked = any(type(row.get(key)) is str for key in ("question", "title"))
    return row | {"answers": texts} if asked and texts and None not in texts else None


def _opened(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give lists of questions and of answers, each a list of one text, as lists of those texts."""
    lists = [row[key] for key in ("questions", "answers") if isinstance(row.get(key), list)]
    if len(lists) < 2 or not any(map(_is_nested, lists)):
        return None
    opened = [[item[0] if isinstance(item, list) and len(item) == 1 else item for item in items] for items in lists]
    return None if any(map(_is_nested, opened)) else row | {"questions": opened[0], "answers": opened[1]}


def _columns(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give a list of speakers and one of what they say, under two keys of the row."""
    speakers = next((row[key] for key in _WHO if holds_strings(row.get(key))), None)
    texts = next((row[key] for key in _WHAT if holds_strings(row.get(key))), None)
    if speakers is None or texts is None or len(speakers) != len(texts):
        return None
    kept = {key: row[key] for key in _KEPT_OUTSIDE if row.get(key) is not None}
    return kept | {"conversation": texts, "speakers": speakers}


def _rooted(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give a tree of replies whose first message is the row itself, not under `prompt`; `children` are replies, too."""
    if not has_role(row) or not any(holds_turns(row.get(key)) for key in _REPLIES):
        return None
    return {"prompt": _replied(row)}


def _replied(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    replies: list[Any] = next((message[key] for key in _REPLIES if isinstance(message.get(key), list)), [])
    text = {"text": message["content"]} if type(message.get("content")) is str else {}
    return (
        text
        | {key: value for key, value in message.items() if key not in _REPLIES}
        | {"replies": [_replied(reply) for reply in replies]}
    )


def _small(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give lists of questions and of answers whose keys begin in capitals by the keys in lower case."""
    small = {key.lower(): value for key, value in row.items() if type(key) is str and value is not None}
    return small if parallel_keys(small) and not parallel_keys(row) else None


def _is_nested(items: list[Any]) -> bool:
    return any(type(item) is not str for item in items)


def _instances(row: dict[str, Any]) -> list[Any]:
    instances = row.get("instances")
    if row.get("instruction") is None or not isinstance(instances, list):
        return []
    rest = {key: value for key, value in row.items() if key != "instances"}
    return [rest | instance for instance in instances if isinstance(instance, dict) and "output" in instance]


_READINGS = (
    *(logged, _listed, _unwrapped, _answered, _preferred, compared, _question_set, _past),
    *(continued, thought_through, _first_answer, _opened, _columns, _rooted, _small),
)


def _first_message(value: object) -> dict[str, Any] | None:
    """Give the first choice's message of a chat completion, with or without its HTTP body around it."""
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        value = value["body"]
    choices = value.get("choices") if isinstance(value, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) and has_role(message) else None
