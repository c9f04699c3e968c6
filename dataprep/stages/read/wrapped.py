"""The beginning of a JSON object in; which of its lists hold rows, if it isn't a row itself, out.

Lists hold rows where their keys are those of splits and of wrappers ({"train": […], "test": […]}, {"data": […]}), or
where their first item is of a known format. The hub's viewer gives {"rows": [{"row": {…}}]}.
"""

import re
from typing import Any

import orjson

from dataprep.stages.normalize.convert import detect_format
from dataprep.stages.normalize.formats.turns import LATER_LISTS, ROLE_KEYS, TEXT_KEYS, TURN_LISTS
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.elements import value_places

VIEWER_KEY = "row"
MEMBER = re.compile(rb'\s*("(?:[^"\\]|\\.){0,1000}")\s*:\s*(\S)', re.DOTALL)

_WRAPPERS = re.compile(
    r"(train|test|valid|validation|val|dev|eval)([_.\d]\w*)?|rows|data|dataset|examples|instances|items|records|samples|"
    r"dialogs|dialogues|conversations"
)


def is_message(value: object) -> bool:
    """Tell whether an array's items are messages, so that the array is one row and not many."""
    if not isinstance(value, dict):
        return False
    return any(key in value for key in ROLE_KEYS) and any(key in value for key in TEXT_KEYS)


def shape_of(begun: bytes) -> dict[str, Any]:
    """Parse an object; of one that isn't whole, its whole members, and the first item of a list that it ends in."""
    try:
        whole = orjson.loads(begun)
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        return whole
    shape: dict[str, Any] = {}
    inside = begun[begun.find(b"{") + 1 :]
    for begin, end in value_places(inside, len(inside)):
        member = inside[begin:end]
        try:
            shape |= orjson.loads(b"{" + member + b"}")
        except ValueError:
            shape |= _first_item(member)
    return shape


def lists_of_rows(shape: dict[str, Any]) -> tuple[frozenset[str], bool]:
    """Give the keys of an object's lists of rows, none if it is a row itself, and whether they are the viewer's."""
    lists = {key: value[0] for key, value in shape.items() if isinstance(value, list) and value}
    first = lists.get("rows")
    if isinstance(first, dict) and isinstance(first.get(VIEWER_KEY), dict):
        return frozenset(["rows"]), True
    if _is_row(shape, lists):
        return frozenset(), False
    return frozenset(key for key, item in lists.items() if _are_rows(key, item)), False


def _is_row(shape: dict[str, Any], lists: dict[str, Any]) -> bool:
    """Tell whether an object is a row; not where the list that it would be read from holds rows in turn."""
    if _format_of(shape) is None:
        return False
    for key in (*TURN_LISTS, *LATER_LISTS):
        item = lists.get(key)
        if isinstance(item, dict) and (
            "instruction" in item or any(isinstance(item.get(name), list) for name in (*TURN_LISTS, *LATER_LISTS))
        ):
            return False
    return True


def _are_rows(key: str, first: object) -> bool:
    if isinstance(first, list):
        return bool(first) and is_message(first[0])
    if not isinstance(first, dict):
        return False
    return _WRAPPERS.fullmatch(key) is not None or _format_of(first) not in (None, "text")


def _format_of(value: dict[str, Any]) -> str | None:
    try:
        return detect_format(value)
    except TurnedAway:
        return None


def _first_item(member: bytes) -> dict[str, Any]:
    found = MEMBER.match(member)
    if found is None or found[2] != b"[":
        return {}
    items = member[found.end() :]
    begin, end = next(value_places(items, len(items)))
    try:
        return {orjson.loads(found[1]): [orjson.loads(items[begin:end])]}
    except ValueError:
        return {}
