"""Turn rows: rows of one file that are turns, each naming its dialogue, who speaks and what is said, into dialogues.

Databases and tables of utterances are written so. All rows of the file are held until the last is read, because a turn
may stand before those it follows.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from dataprep.stages.normalize.formats.flat_trees import comparable
from dataprep.stages.normalize.formats.turns import ROLE_KEYS, SYSTEM_KEYS, TEXT_KEYS
from dataprep.stages.normalize.role_pairs import may_speak

# Names of columns, word by word: (conversation, id) is conversation_id, conversationId, ConversationId.
_WHOLES = ("conversation", "dialogue", "dialog", "conv", "session", "chat", "thread")
_IDS = tuple((whole, what) for whole in _WHOLES for what in ("id", "hash"))
_ROLES = tuple((key,) for key in ROLE_KEYS)
_TEXTS = (*((key,) for key in TEXT_KEYS), ("turn", "text"), ("body",), ("utterances",))
_PLACES = (
    ("turn",),
    *(("turn", what) for what in ("id", "index", "idx", "number", "no")),
    *(("utterance", what) for what in ("id", "idx")),
    *(("message", what) for what in ("index", "idx", "order")),
    *((word,) for word in ("index", "idx", "position", "order", "step", "seq", "sequence", "round")),
)
_TIMES = (("timestamp",), ("created", "at"), ("created",), ("time",), ("date",), ("datetime",))
_OF_ALL = (*SYSTEM_KEYS, "tools", "functions")  # what each turn may repeat of its dialogue


def _spellings(words: tuple[str, ...]) -> tuple[str, ...]:
    titles = [word.title() for word in words]
    return "_".join(words), "".join([words[0], *titles[1:]]), "".join(titles)


# The columns of a table by which its rows are seen to be turns.
TURN_ROW_KEYS = tuple(
    dict.fromkeys(spelled for words in (*_IDS, *_ROLES, *_TEXTS, *_PLACES, *_TIMES) for spelled in _spellings(words))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """What stands where in rows of these keys."""

    dialogue: str
    role: str
    text: str
    order: tuple[tuple[str, Callable[[Any], float | None]], ...]  # what may tell a turn's place, and how it is read
    rest: tuple[str, ...]  # what stays in the message, a call for instance


def holds_turn_rows(row: Any, roles: Mapping[str, str]) -> bool:
    """Tell whether a row is one turn: has its dialogue's id, a speaker whose name is known, and a text.

    `roles` are names of roles, those of the user and those built in.
    """
    columns = _columns_of(row)
    if columns is None:
        return False
    role, text = row[columns.role], row[columns.text]
    return isinstance(role, str) and may_speak(role, roles) and (text is None or isinstance(text, str))


def is_one_turn(row: dict[str, Any]) -> bool:
    """Tell whether a row is one turn of a dialogue whose id it gives, whoever speaks."""
    named = _named(tuple(row))
    return all(any(_found(named, names)) for names in (_IDS, _TEXTS))


def dialogues_of_rows(rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any, int]]:
    """Group (row number, row) into (row number of the first turn, {"messages": turns}, rows joined into it).

    Each row counts once; one that is no turn comes out as it is, in its place. Turns stand in the order of their
    numbers where all of a dialogue have one, else of their times, else of the file.
    """
    held: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
    others: list[tuple[int, Any, int]] = []
    for number, row in rows:
        if (columns := _columns_of(row)) is None:
            others.append((number, row, 1))
        else:
            held.setdefault(comparable(row[columns.dialogue]), []).append((number, row))
    joined = [(turns[0][0], _dialogue([row for _, row in turns]), len(turns)) for turns in held.values()]
    yield from sorted([*joined, *others], key=lambda one: one[0])


def _dialogue(rows: list[dict[str, Any]]) -> dict[str, Any]:
    of_all = {key: rows[0][key] for key in _OF_ALL if rows[0].get(key) is not None}
    return {**of_all, "messages": [_turn(row) for row in _in_order(rows)]}


def _turn(row: dict[str, Any]) -> dict[str, Any]:
    columns = _columns(tuple(row))
    assert columns is not None
    return {"role": row[columns.role], "content": row[columns.text], **{key: row[key] for key in columns.rest}}


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = _columns(tuple(rows[0]))
    for key, read in columns.order if columns is not None else ():
        places = [place for row in rows if (place := read(row.get(key))) is not None]
        if len(set(places)) == len(rows):
            return [rows[index] for index in sorted(range(len(rows)), key=places.__getitem__)]
    return rows


def _columns_of(row: Any) -> _Columns | None:
    """Where a turn has what; None for a row that is none, or names no dialogue."""
    columns = _columns(tuple(row)) if isinstance(row, dict) else None
    return columns if columns is not None and _is_id(row[columns.dialogue]) else None


@lru_cache(maxsize=1024)
def _columns(keys: tuple[str, ...]) -> _Columns | None:
    """Where rows of these keys have what: found once, for the rows of a table have the same."""
    named = _named(keys)
    one, role, text = (next(_found(named, names), None) for names in (_IDS, _ROLES, _TEXTS))
    if one is None or role is None or text is None:
        return None
    order = [(key, read) for names, read in ((_PLACES, _number), (_TIMES, _time)) for key in _found(named, names)]
    left = {one, role, text, named.get("id"), *_OF_ALL, *(key for key, _ in order)}
    rest = tuple(key for key in keys if key not in left)
    return _Columns(dialogue=one, role=role, text=text, order=tuple(order), rest=rest)


def _named(keys: tuple[str, ...]) -> dict[str, str]:
    """Keys by their names however these are spelled: Conversation_ID is conversationid."""
    plain = str.maketrans("", "", "_ -")
    return {key.lower().translate(plain): key for key in reversed(keys) if isinstance(key, str)}


def _found(named: dict[str, str], names: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Those of the names that are there, as they are spelled, in the names' order."""
    return (named[name] for name in map("".join, names) if name in named)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _time(value: Any) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    if (number := _number(value)) is not None:
        return number
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value == value and value != ""
