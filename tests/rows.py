"""Reading one row in a test."""

from collections.abc import Mapping
from typing import Any

from dataprep.stages.normalize.convert import convert_as, format_of
from dataprep.stages.normalize.message import ROLE_NAMES, Message
from dataprep.stages.normalize.settings import Settings


def convert(
    row: Any, format_name: str | None = None, roles: Mapping[str, str] = ROLE_NAMES
) -> tuple[str, list[Message], str | None]:
    """Give a row's format, messages and tools, before cleaning; `roles` is the whole table of role names."""
    settings = Settings(format=format_name, roles=roles)
    name = format_of(row, settings)
    return name, *convert_as(row, name, settings)
