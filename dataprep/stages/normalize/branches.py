"""One row in, the rows that it stands for out: a preference pair or a tree may hold several conversations."""

from typing import Any

from dataprep.stages.normalize.convert import checked_row, detect_format, named_rows
from dataprep.stages.normalize.formats.preference import SIDE_KEYS, sides_of
from dataprep.stages.normalize.formats.reshape import logged
from dataprep.stages.normalize.formats.trees import paths_of
from dataprep.stages.normalize.mapping import renamed, shape_of
from dataprep.stages.normalize.settings import Settings

# Messages beside one of these may wait for the answer that it holds.
_ANSWERED = frozenset(("choices", "response", "completion"))


def parts_of(row: Any, settings: Settings) -> tuple[str, list[Any]]:
    """Give the format that a row is read as, and the rows of that format that it is read as: nearly always itself.

    Raises TurnedAway for a row that has no format, or nothing on the side of a preference that was asked for.
    """
    checked_row(row)
    shape = shape_of(row, settings.shapes) if settings.shapes else None
    if shape is None:
        return _parts_as(row, settings.format, settings)
    return shape.name, [row] if shape.format is None else _parts_as(renamed(row, shape), shape.format, settings)[1]


def _parts_as(row: Any, wanted: str | None, settings: Settings) -> tuple[str, list[Any]]:
    name, rows = named_rows(row)
    if wanted is not None and name != wanted:
        name, rows = wanted, [row]
    if name is None:
        name = detect_format(row)
    if len(rows) == 1:
        return name, _parts(rows[0], name, settings)
    return name, [part for one in rows for part in _parts(one, name, settings)]


def _parts(row: Any, name: str, settings: Settings) -> list[Any]:
    if type(row) is not dict:
        return [row]
    if name == "openai" and not _ANSWERED.isdisjoint(row):
        row = logged(row) or row
    if name == "oasst":
        return paths_of(row, settings.paths, settings.roles)
    return [row] if SIDE_KEYS.isdisjoint(row) else sides_of(row, name, settings.preference, settings.roles)
