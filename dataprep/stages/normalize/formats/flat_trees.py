"""Flat trees: rows of one file that are messages, each naming the one it replies to, into one nested tree a prompt.

All rows of the file are held until the last is read, because a reply may stand before what it replies to.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from dataprep.stages.normalize.formats.trees import PARENT_KEYS, is_flat_message

_KEPT = ("role", "rank", "deleted", "review_result")


def holds_flat_trees(row: Any) -> bool:
    """Tell whether a row is a message of a flat tree: has an id, its parent's (null at the first), a role, a text."""
    return isinstance(row, dict) and is_flat_message(row) and not isinstance(row.get("prompt"), dict)


def trees_of_rows(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Group (row number, row) into (row number of the first message, nested tree, rows joined into it).

    Each row counts once. A row whose parent is missing, or that only a circle of rows leads to, comes out as it is, and
    so does all that replies to it, and a row that is no message; each of these counts 1. The order is that of the
    numbers. Of several rows with one id, the first takes the replies.
    """
    held = list(rows)
    nodes = [_node(row) if holds_flat_trees(row) else None for _, row in held]
    places: dict[Any, int] = {}
    for place, (_, row) in enumerate(held):
        if nodes[place] is not None:
            places.setdefault(_id(row), place)
    roots: list[int] = []
    children: dict[int, list[int]] = {}
    for place, (_, row) in enumerate(held):
        if nodes[place] is None:
            continue
        parent = _parent(row)
        if parent is None:
            roots.append(place)
        elif parent in places:
            children.setdefault(places[parent], []).append(place)
    joined: set[int] = set()
    sizes = {root: _join(root, nodes, children, joined) for root in roots}
    for place, (number, row) in enumerate(held):
        if place in sizes:
            yield number, {"prompt": nodes[place]}, sizes[place]
        elif place not in joined:
            yield number, row, 1


def _join(root: int, nodes: list[Any], children: dict[int, list[int]], joined: set[int]) -> int:
    """Hang all messages below a root under it; returns how many rows it holds. No root leads into a circle."""
    waiting, size = [root], 0
    while waiting:
        place = waiting.pop()
        size += 1
        joined.add(place)
        below = children.get(place, [])
        nodes[place]["replies"] = [nodes[child] for child in below]
        waiting += below
    return size


def _node(row: dict[str, Any]) -> dict[str, Any]:
    text = row.get("text")
    kept = {key: row[key] for key in _KEPT if key in row}
    return {"text": text if text is not None else row.get("content"), **kept, "replies": []}


def _id(row: dict[str, Any]) -> Any:
    value = row.get("message_id")
    return comparable(value if value is not None else row.get("id"))


def _parent(row: dict[str, Any]) -> Any:
    value = next((row[key] for key in PARENT_KEYS if row.get(key) is not None), None)
    return None if value is None or value == "" or value != value else comparable(value)


def comparable(value: Any) -> Any:
    """Make ids comparable: pandas writes whole numbers beside nulls as 7.0; a list or an object is no id."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).removesuffix(".0")
    return (id(value),)
