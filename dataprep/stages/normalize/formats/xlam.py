"""Rows of a question, its tools and the calls that answer it, as xLAM has them."""

from typing import Any

from dataprep.stages.normalize.formats.turns import Converted, Roles, with_system
from dataprep.stages.normalize.message import checked_text, rich_message
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.texts.calls import written_calls
from dataprep.stages.normalize.texts.tools import row_tools


def from_xlam(row: Any, roles: Roles) -> Converted:
    """Convert {"query", "tools", "answers"}, where answers is a list of {"name", "arguments"} or its JSON text."""
    if not isinstance(row, dict) or not is_xlam(row):
        raise TurnedAway("format-mismatch", "xlam needs an object with the keys query, tools and answers")
    calls = written_calls(row["answers"], "answers")
    messages = [("user", checked_text(row["query"], "query")), rich_message("assistant", "", tool_calls=calls)]
    return with_system(row, messages), row_tools(row)


def is_xlam(row: dict[str, Any]) -> bool:
    """Tell whether a row has a question, tools and calls."""
    return all(row.get(key) is not None for key in ("query", "tools", "answers"))
