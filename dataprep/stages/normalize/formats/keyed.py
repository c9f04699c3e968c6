"""Whole files that are one object: rows under their ids, {"PMUL1": {…}, "PMUL2": {…}}, into the rows."""

import re
from typing import Any

_ID = re.compile(r"(\D*)\d.*", re.DOTALL)
# Names that are numbered inside one row; objects under them are no rows.
_PARTS = re.compile(
    r".*(turn|round|message|msg|utterance|response|answer|completion|output|candidate|choice|option|step|part|row)s?"
    r"[ _-]?",
    re.IGNORECASE | re.DOTALL,
)


def keyed_rows(row: dict[str, Any]) -> list[Any]:
    """Give the rows of an object all whose keys are ids and whose values have keys in common; none where it is none."""
    values = list(row.values())
    if len(values) < 2 or not all(type(value) is dict for value in values):
        return []
    ids = [_ID.fullmatch(key) for key in row]
    if not all(found and not _PARTS.fullmatch(found[1]) for found in ids):
        return []
    return values if set(values[0]).intersection(*values[1:]) else []
