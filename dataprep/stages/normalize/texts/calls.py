"""One tool call out of what a dataset gives for it, and the JSON that calls and tool definitions are made of.

Text that was JSON in the source is kept as it stands; what was an object is written as JSON, numbers intact.
"""

import ast
import json
import re
import warnings
from contextlib import suppress
from typing import Any

import orjson

from dataprep.stages.normalize.message import ToolCall
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown

# Under which of these a call has its arguments; the first that is not null counts.
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")

_LONG_NUMBER = re.compile(r"\d{19}")
_PYTHON = re.compile(r"\s*[\[{]\s*(?:\{\s*)?'")
_BETWEEN = re.compile(r"[\s,;]*")
_DECODER = json.JSONDecoder()


def read_call(item: object, where: str) -> ToolCall:
    """Read {"id", "function": {"name", "arguments"}} or {"id", "name", "arguments"}; `where` begins the detail."""
    call = item.get("function") if isinstance(item, dict) and isinstance(item.get("function"), dict) else item
    if not isinstance(call, dict):
        raise TurnedAway("bad-tool-call", f"{where}: a tool call is {kind_of(call)}, expected an object")
    name = call.get("name")
    if type(name) is not str or not name:
        raise TurnedAway("bad-tool-call", f"{where}: a tool call has no name")
    call_id = item.get("id") if isinstance(item, dict) else None
    if call_id is not None and type(call_id) is not str:
        raise TurnedAway("bad-tool-call", f"{where}: the id of the call of {shown(name)} is {kind_of(call_id)}")
    arguments = next((call[key] for key in ARGUMENT_KEYS if call.get(key) is not None), None)
    return call_id, name, arguments_text(arguments, f"{where}: arguments of {shown(name)}")


def written_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    """Read a call, or a list of calls, or JSON text of either. A Python literal is read as the JSON that it means."""
    if isinstance(value, str):
        try:
            value = _json_or_literal(value)
        except ValueError as error:
            raise TurnedAway("bad-tool-call", f"{where}: the call is not JSON: {error}") from error
    items = value if isinstance(value, list) else [value]
    if not items:
        raise TurnedAway("bad-tool-call", f"{where}: the list of calls is empty")
    return tuple(read_call(item, where) for item in items)


def arguments_text(value: object, where: str) -> str:
    """Give arguments as the JSON text of an object: a text as it stands, an object written out."""
    if isinstance(value, dict):
        return json_text(value, "bad-tool-call", where)
    if type(value) is not str:
        raise TurnedAway("bad-tool-call", f"{where} are {kind_of(value)}, expected a JSON object")
    try:
        parsed = orjson.loads(value)
    except ValueError as error:
        raise TurnedAway("bad-tool-call", f"{where} are not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise TurnedAway("bad-tool-call", f"{where} are {kind_of(parsed)}, expected a JSON object")
    return value


def exact_json(text: str) -> Any:
    """Parse JSON and keep whole numbers beyond 64 bits, which orjson would turn into floats. Raises ValueError."""
    value = orjson.loads(text)
    try:
        return json.loads(text) if _LONG_NUMBER.search(text) else value
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def is_literal(text: str) -> bool:
    """Tell whether a text begins as a Python dict or a list of dicts with names in single quotes does."""
    return _PYTHON.match(text) is not None


def literal_json(text: str) -> Any:
    """Parse a Python literal, as `str(a_dict)` gives it, that JSON could hold, too. Raises ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(text.strip())
        return exact_json(json.dumps(value, allow_nan=False))
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a Python literal of the same") from error


def value_end(text: str, start: int) -> int:
    """Tell where the JSON value that begins at `start` ends. Raises ValueError where it is broken or cut off."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def value_texts(text: str) -> list[str]:
    """Give the texts of JSON values that stand one after another. Raises ValueError where anything else is there."""
    texts = []
    start = _BETWEEN.match(text).end()  # type: ignore[union-attr]
    while start < len(text):
        end = value_end(text, start)
        texts.append(text[start:end])
        start = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
    return texts


def json_text(value: object, reason: str, where: str) -> str:
    """Write a value as JSON, numbers intact; a row where it is no JSON is turned away for `reason`."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a whole number beyond 64 bits, or something that is no JSON
        pass
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TurnedAway(reason, f"{where} can't be written as JSON: {error}") from error


def _json_or_literal(text: str) -> Any:
    try:
        return exact_json(text)
    except ValueError:
        with suppress(ValueError):
            if text.lstrip()[:1] in ("{", "["):
                return literal_json(text)
        raise
