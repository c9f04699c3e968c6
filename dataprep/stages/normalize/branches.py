"""One row in, the rows that it stands for out: a preference pair or a tree may hold several conversations."""

from typing import Any

from dataprep.stages.normalize.settings import Settings


def branches(row: Any, format_name: str, settings: Settings) -> list[Any]:
    """Give the rows, each of the same format, that a row is read as: nearly always itself alone."""
    return [row]
