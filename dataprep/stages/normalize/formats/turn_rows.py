"""Turn rows: rows of one file that are turns, each naming its dialogue, who speaks and what is said, into dialogues.

Databases and tables of utterances are written so. All rows of the file are held until the last is read, because a turn
may stand before those it follows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from dataprep.stages.normalize.formats.turns import ROLE_KEYS, SYSTEM_KEYS, TEXT_KEYS
from dataprep.stages.normalize.role_pairs import may_speak

_WHOLES = ("conversation", "dialogue", "dialog", "conv", "session", "chat", "thread")
_IDS = frozenset(f"{whole}{what}" for whole in _WHOLES for what in ("id", "hash"))
_PLACES = (
    *("turn", "turnid", "turnindex", "turnidx", "turnnumber", "turnno", "utteranceid", "utteranceidx", "messageindex"),
    *("messageidx", "messageorder", "index", "idx", "position", "order", "step", "seq", "sequence", "round"),
)
_TIMES = ("timestamp", "createdat", "created", "time", "date", "datetime")
_SPOKEN = (*TEXT_KEYS, "turntext", "body", "utterances")
_OF_ALL = (*SYSTEM_KEYS, "tools", "functions")  # what each turn may repeat of its dialogue

# The columns of a table by which its rows are seen to be turns.
TURN_ROW_KEYS = tuple(
    dict.fromkeys(
        spelled
        for words in (
            *((whole, what) for whole in _WHOLES for what in ("id", "hash")),
            *(("turn", what) for what in ("id", "index", "idx", "number", "no", "text")),
            *(("utterance", what) for what in ("id", "idx")),
            *(("message", what) for what in ("index", "idx", "order")),
            ("created", "at"),
            *((one,) for one in ("turn", "index", "idx", "position", "order", "step", "seq", "sequence", "round")),
            *((one,) for one in ("timestamp", "created", "time", "date", "datetime", "body", *ROLE_KEYS, *TEXT_KEYS)),
        )
        for spelled in (
            "_".join(words),
            words[0] + "".join(word.title() for word in words[1:]),
            "".join(word.title() for word in words),
        )
    )
)


def holds_turn_rows(row: Any, roles: Mapping[str, str]) -> bool:
    """Tell whether a row is one turn: has its dialogue's id, a speaker whose name is known, and a text.

    `roles` are names of roles, those of the user and those built in.
    """
    if not isinstance(row, dict):
        return False
    found = _named(row)
    if found is None:
        return False
    one, role, text = (row[key] for key in found)
    return _is_id(one) and isinstance(role, str) and may_speak(role, roles) and (text is None or isinstance(text, str))


def dialogues_of_rows(rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any, int]]:
    """Group (row number, row) into (row number of the first turn, {"messages": turns}, rows joined into it).

    Each row counts once; one that is no turn comes out as it is, in its place. Turns stand in the order of their
    numbers where all of a dialogue have one, else of their times, else of the file.
    """
    held: dict[Any, list[tuple[int, dict[str, Any], tuple[str, str, str]]]] = {}
    others: list[tuple[int, Any, int]] = []
    for number, row in rows:
        found = _named(row) if isinstance(row, dict) else None
        if found is None or not _is_id(row[found[0]]):
            others.append((number, row, 1))
        else:
            held.setdefault(str(row[found[0]]), []).append((number, row, found))
    joined = [(turns[0][0], _dialogue(turns), len(turns)) for turns in held.values()]
    yield from sorted([*joined, *others], key=lambda one: one[0])


def _dialogue(turns: list[tuple[int, dict[str, Any], tuple[str, str, str]]]) -> dict[str, Any]:
    rows = _in_order([row for _, row, _ in turns])
    _, first, _ = turns[0]
    found = turns[0][2]
    of_all = {key: first[key] for key in _OF_ALL if first.get(key) is not None}
    return {**of_all, "messages": [_turn(row, _named(row) or found) for row in rows]}


def _turn(row: dict[str, Any], found: tuple[str, str, str]) -> dict[str, Any]:
    """The row as a message: what else it holds, a call for instance, stays in it."""
    one, role, text = found
    rest = {
        key: value
        for key, value in row.items()
        if key not in (one, role, text, *_OF_ALL) and _plain(key) not in (*_PLACES, *_TIMES, "id")
    }
    return {"role": row.get(role), "content": row.get(text), **rest}


def _named(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """The keys under which a row has its dialogue's id, who speaks, and what is said."""
    plain = {_plain(key): key for key in reversed(row) if isinstance(key, str)}
    one = next((plain[name] for name in plain if name in _IDS), None)
    role = next((plain[name] for name in ROLE_KEYS if name in plain), None)
    text = next((plain[name] for name in _SPOKEN if name in plain and plain[name] not in (one, role)), None)
    return None if one is None or role is None or text is None else (one, role, text)


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for names, read in ((_PLACES, _number), (_TIMES, _time)):
        for name in names:
            places = [next((read(row[key]) for key in row if _plain(key) == name), None) for row in rows]
            known = [place for place in places if place is not None]
            if len(set(known)) == len(rows):
                order = sorted(range(len(rows)), key=lambda index: known[index])
                return [rows[index] for index in order]
    return rows


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


def _plain(key: Any) -> str:
    """The key's name however it is spelled: Conversation_ID as conversationid."""
    return key.lower().replace("_", "").replace(" ", "").replace("-", "") if isinstance(key, str) else ""
