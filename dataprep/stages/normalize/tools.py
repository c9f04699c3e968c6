"""Tool calls and tool definitions, from the shapes that datasets give them, checked to be JSON.

Text that was JSON in the source is kept as it stands; what was an object is written as JSON, numbers intact.
"""

import json
import re
from typing import Any

import orjson

from dataprep.stages.normalize.message import ToolCall
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown

_LONG_NUMBER = re.compile(r"\d{19}")


def openai_calls(value: object, where: str) -> tuple[ToolCall, ...] | None:
    """Read a `tool_calls` list: {"id", "function": {"name", "arguments"}} or flat {"name", "arguments"} items."""
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise TurnedAway("bad-tool-call", f"{where}: tool_calls is {kind_of(value)}, expected a list")
    return tuple(_call(item, where) for item in value)


def written_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    """Read a call, or a list of calls, that stands as JSON text in the place of a message's content."""
    if isinstance(value, str):
        try:
            value = exact_json(value)
        except ValueError as error:
            raise TurnedAway("bad-tool-call", f"{where}: the call is not JSON: {error}") from error
    items = value if isinstance(value, list) else [value]
    if not items:
        raise TurnedAway("bad-tool-call", f"{where}: the list of calls is empty")
    return tuple(_call(item, where) for item in items)


def tools_text(value: object) -> str | None:
    """Give tool definitions as the text of a JSON array; None where there are none."""
    if value is None or value == [] or value == "":
        return None
    parsed = value
    if isinstance(value, str):
        try:
            parsed = orjson.loads(value)
        except ValueError as error:
            raise TurnedAway("bad-tools", f"tools is not JSON: {error}") from error
    if not isinstance(parsed, list):
        raise TurnedAway("bad-tools", f"tools is {kind_of(parsed)}, expected a JSON array")
    for tool in parsed:
        if not isinstance(tool, dict):
            raise TurnedAway("bad-tools", f"tools holds {kind_of(tool)}, expected objects")
    if not parsed:
        return None
    return value if isinstance(value, str) else _json_text(value, "bad-tools", "tools")


def exact_json(text: str) -> Any:
    """Parse JSON and keep whole numbers beyond 64 bits, which orjson would turn into floats. Raises ValueError."""
    value = orjson.loads(text)
    try:
        return json.loads(text) if _LONG_NUMBER.search(text) else value
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _call(item: object, where: str) -> ToolCall:
    call = item.get("function") if isinstance(item, dict) and isinstance(item.get("function"), dict) else item
    if not isinstance(call, dict):
        raise TurnedAway("bad-tool-call", f"{where}: a tool call is {kind_of(call)}, expected an object")
    name = call.get("name")
    if type(name) is not str or not name:
        raise TurnedAway("bad-tool-call", f"{where}: a tool call has no name")
    call_id = item.get("id") if isinstance(item, dict) else None
    if call_id is not None and type(call_id) is not str:
        raise TurnedAway("bad-tool-call", f"{where}: the id of the call of {shown(name)} is {kind_of(call_id)}")
    return call_id, name, _arguments(call.get("arguments"), f"{where}: arguments of {shown(name)}")


def _arguments(value: object, where: str) -> str:
    if isinstance(value, dict):
        return _json_text(value, "bad-tool-call", where)
    if type(value) is not str:
        raise TurnedAway("bad-tool-call", f"{where} are {kind_of(value)}, expected a JSON object")
    try:
        parsed = orjson.loads(value)
    except ValueError as error:
        raise TurnedAway("bad-tool-call", f"{where} are not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise TurnedAway("bad-tool-call", f"{where} are {kind_of(parsed)}, expected a JSON object")
    return value


def _json_text(value: object, reason: str, where: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a whole number beyond 64 bits, or something that is no JSON
        pass
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TurnedAway(reason, f"{where} can't be written as JSON: {error}") from error
