"""Tool calls and tool definitions of a row: its `tool_calls` lists, its `tools`, calls written in a text.

Text that was JSON in the source is kept as it stands; what was an object is written as JSON, numbers intact.
"""

from typing import Any

import orjson

from dataprep.stages.normalize.message import ToolCall
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.texts.called_text import text_calls as text_calls
from dataprep.stages.normalize.texts.calls import is_literal, json_text, literal_json, read_call
from dataprep.stages.normalize.texts.calls import written_calls as written_calls

# Where a row may have its tool definitions; the first that is not null counts.
TOOL_KEYS = ("tools", "functions", "available_tools")

_TOOLS = frozenset(TOOL_KEYS)


def openai_calls(value: object, where: str) -> tuple[ToolCall, ...] | None:
    """Read a `tool_calls` list: {"id", "function": {"name", "arguments"}} or flat {"name", "arguments"} items."""
    if value is None or value == [] or value == "":
        return None
    if isinstance(value, str):
        return written_calls(value, where) if value.strip() not in ("[]", "null") else None
    if not isinstance(value, list):
        raise TurnedAway("bad-tool-call", f"{where}: tool_calls is {kind_of(value)}, expected a list")
    return tuple(read_call(item, where) for item in value)


def row_tools(row: Any) -> str | None:
    """Give the tool definitions that a row has under any of TOOL_KEYS as the text of a JSON array."""
    if not isinstance(row, dict) or _TOOLS.isdisjoint(row):
        return None
    for key in TOOL_KEYS:
        value = row.get(key)
        if value is not None and not (key == "available_tools" and _is_names(value)):
            return tools_text(value)
    return None


def tools_text(value: object) -> str | None:
    """Give tool definitions as the text of a JSON array; None where there are none."""
    if value is None or value == [] or value == "":
        return None
    if isinstance(value, list) and all(isinstance(tool, str) for tool in value):
        value = _joined(value)
    parsed = value
    if isinstance(value, str):
        try:
            if is_literal(value):
                value = literal_json(value)
            parsed = orjson.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise TurnedAway("bad-tools", f"tools is not JSON: {error}") from error
    if parsed is None:
        return None
    if not isinstance(parsed, list):
        raise TurnedAway("bad-tools", f"tools is {kind_of(parsed)}, expected a JSON array")
    for tool in parsed:
        if not isinstance(tool, dict):
            raise TurnedAway("bad-tools", f"tools holds {kind_of(tool)}, expected objects")
    if not parsed:
        return None
    return value if isinstance(value, str) else json_text(value, "bad-tools", "tools")


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(tool, str) and not tool.lstrip().startswith("{") for tool in value
    )


def _joined(texts: list[str]) -> str | list[str]:
    """Give a list of JSON texts as the text of one array; names of tools are no definitions and stay as they are."""
    return f"[{', '.join(texts)}]" if all(text.lstrip().startswith("{") for text in texts) else texts
