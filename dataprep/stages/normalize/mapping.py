"""Mapping files: a few lines of TOML that teach the shape of rows which no format knows.

    [[shape]]                        [[shape]]                                    [[shape]]
    name = "toy"                     name = "visits"                              name = "renamed"
    user = "toy_input"               turns = "visit.log"                          format = "alpaca"
    assistant = "toy_output"         role = "who"                                 rename = { task = "instruction" }
    system = { text = "Be kind." }   text = "said.words"
                                     roles = { visitor = "user", guide = "assistant" }

Keys are dotted paths into a row, or into a turn. A shape is tried before any format is looked for; the first whose
`when` keys are all there counts. A file is checked whole when it is read, so a mistake is found before any row is.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dataprep.stages.normalize.formats.cells import as_list
from dataprep.stages.normalize.formats.history import history_messages
from dataprep.stages.normalize.formats.turns import (
    REASONING_KEYS,
    TRAIN_FLAGS,
    Converted,
    Roles,
    from_openai,
    with_system,
)
from dataprep.stages.normalize.message import Message, checked_answer, checked_text, rich_message
from dataprep.stages.normalize.reasons import TurnedAway, kind_of
from dataprep.stages.normalize.shapes import (
    TEMPLATE_FIELD,
    Keys,
    Literally,
    MappingFile,
    fields_of,
    mistake_in,
    problem_of,
    title_of,
)
from dataprep.stages.normalize.shapes import Shape as Shape
from dataprep.stages.normalize.texts.tools import tools_text
from schemas.errors import InputError

# What else of a turn is read, as in OpenAI messages.
_CARRIED = (*("tool_calls", "function_call", "tool_call_id"), *REASONING_KEYS, *TRAIN_FLAGS)
_NOTHING = object()


def read_mapping(path: Path) -> tuple[Shape, ...]:
    """Read a mapping file. Raises InputError naming the file, the shape, the key and what is expected."""
    try:
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise InputError(f"--mapping {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--mapping {path}: not UTF-8 text; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--mapping {path}: not TOML: {error}") from error
    try:
        shapes = tuple(TypeAdapter(MappingFile).validate_json(json.dumps(found, default=str)).shape)
    except ValidationError as error:
        raise InputError(f"--mapping {path}: {mistake_in(error, found)}") from error
    if not shapes:
        raise InputError(f"--mapping {path}: no shape; write one as [[shape]]")
    names: set[str] = set()
    for number, shape in enumerate(shapes, 1):
        problem = problem_of(shape)
        if shape.name in names:
            problem = "name: another shape has it already; give each its own"
        names.add(shape.name)
        if problem:
            raise InputError(f"--mapping {path}: {title_of(shape.name, number)}: {problem}")
    return shapes


def keys_of(shapes: tuple[Shape, ...]) -> tuple[str, ...]:
    """Give the top-level keys that shapes read of a row: the columns of a table that they need."""
    found = dict.fromkeys(path for shape in shapes for path in (*_needed(shape), *_read(shape)))
    return tuple(dict.fromkeys(name for path in found for name in (path, path.split(".", 1)[0])))


def shape_of(row: Any, shapes: tuple[Shape, ...]) -> Shape | None:
    """Give the first shape whose `when` keys a row has, null or not; None where there is none.

    Where turns are objects, the first must have one of the keys that the shape names in them.
    """
    if not isinstance(row, dict):
        return None
    return next((shape for shape in shapes if _has_shape(row, shape)), None)


def _has_shape(row: dict[str, Any], shape: Shape) -> bool:
    if any(_at(row, path) is _NOTHING for path in _needed(shape)):
        return False
    turns = as_list(_value(row, shape.turns)) if shape.turns is not None else None
    if not (isinstance(turns, list) and turns and isinstance(turns[0], dict)):
        return True
    named = [*_names(shape.user), *_names(shape.assistant), *_names(shape.role), *_names(shape.text)]
    return not named or any(_at(turns[0], path) is not _NOTHING for path in named)


def renamed(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Give a row of a shape that has a `format` with the keys of that format, and the shape's system text."""
    moved = {new: _at(row, old) for old, new in (shape.rename or {}).items() if _at(row, old) is not _NOTHING}
    system = {"system": _system(row, shape)} if shape.system is not None else {}
    return {key: value for key, value in row.items() if key not in (shape.rename or {})} | moved | system


def convert_shape(row: dict[str, Any], shape: Shape, roles: Roles) -> Converted:
    """Give the messages and tools of a row of a shape that has no `format`. Raises TurnedAway."""
    roles = {**roles, **(shape.roles or {})}
    if shape.turns is None:
        messages = _question(row, shape, roles)
    else:
        messages = from_openai({"messages": _openai_turns(row, shape)}, roles)[0]
    return with_system({"system": _system(row, shape)}, messages), tools_text(_value(row, shape.tools))


def _question(row: dict[str, Any], shape: Shape, roles: Roles) -> list[Message]:
    messages = history_messages(_value(row, shape.history), roles)
    question = _text(row, shape.user) if shape.template is None else _filled(shape.template, row)
    reasoning = _text(row, shape.reasoning) or None
    answer = checked_answer(_text(row, shape.assistant), ", ".join(_names(shape.assistant)))
    return [*messages, ("user", question), rich_message("assistant", answer, reasoning=reasoning)]


def _openai_turns(row: dict[str, Any], shape: Shape) -> list[dict[str, Any]]:
    turns = as_list(_value(row, shape.turns))
    if not isinstance(turns, list) or not turns:
        found = "an empty list" if turns == [] else f"{kind_of(turns)}, expected a list"
        raise TurnedAway("no-messages", f"{shape.turns} is {found}")
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns, 1):
        where = f"turn {number} of {shape.turns}"
        if shape.user is not None:
            messages += _exchange(turn, where, shape, last=number == len(turns))
        else:
            messages.append(_openai_turn(turn, number, where, shape))
    return messages


def _openai_turn(turn: Any, number: int, where: str, shape: Shape) -> dict[str, Any]:
    position = {} if shape.order is None else {"role": shape.order[(number - 1) % len(shape.order)]}
    if shape.text is None:
        if type(turn) is not str:
            fix = f'name the key of its text in the mapping file: text = "…", in the shape {shape.name}'
            raise TurnedAway("bad-message", f"{where} is {kind_of(turn)}, expected a string", fix)
        return position | {"content": turn}
    if not isinstance(turn, dict):
        raise TurnedAway("bad-message", f"{where} is {kind_of(turn)}, expected an object")
    own = {key: turn[key] for key in _CARRIED if key in turn}
    role = position or {"role": _value(turn, shape.role)}
    reasoning = {"reasoning_content": _value(turn, shape.reasoning)} if shape.reasoning else {}
    return own | role | reasoning | {"content": _value(turn, shape.text)}


def _exchange(turn: Any, where: str, shape: Shape, *, last: bool) -> list[dict[str, Any]]:
    """Give the two messages of a turn that is a question and its answer; the last may lack its answer."""
    if not isinstance(turn, dict):
        raise TurnedAway("bad-message", f"{where} is {kind_of(turn)}, expected an object")
    asked = {"role": "user", "content": _text(turn, shape.user)}
    answer = _text(turn, shape.assistant)
    if last and not answer:
        return [asked]
    return [asked, {"role": "assistant", "content": answer, "reasoning_content": _value(turn, shape.reasoning)}]


def _system(row: dict[str, Any], shape: Shape) -> object:
    return shape.system.text if isinstance(shape.system, Literally) else _value(row, shape.system)


def _text(row: dict[str, Any], keys: Keys | None) -> str:
    """Give the texts under some keys, joined by newlines where they hold any."""
    values = [(path, _value(row, path)) for path in _names(keys)]
    texts = [checked_text(value, path) for path, value in values if value is not None]
    return "\n".join(text for text in texts if text)


def _filled(template: str, row: dict[str, Any]) -> str:
    def filled(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        value = _value(row, match[1])
        return str(value) if type(value) in (int, float) else checked_text(value, match[1])

    return TEMPLATE_FIELD.sub(filled, template)


def _value(row: Any, path: str | None) -> Any:
    """Give what stands at a dotted path, None where nothing does."""
    found = _NOTHING if path is None else _at(row, path)
    return None if found is _NOTHING else found


def _at(row: Any, path: str) -> Any:
    """Give what stands at a dotted path, or _NOTHING; a key that itself holds dots goes before a path."""
    if isinstance(row, dict) and path in row:
        return row[path]
    for name in path.split("."):
        if isinstance(row, list) and name.isdecimal() and int(name) < len(row):
            row = row[int(name)]
        elif isinstance(row, dict) and name in row:
            row = row[name]
        else:
            return _NOTHING
    return row


def _needed(shape: Shape) -> list[str]:
    """Give the keys by which a shape is known."""
    if shape.when is not None:
        return shape.when
    if shape.turns is not None:
        return [shape.turns]
    if shape.format is not None:
        return list(shape.rename or {})
    return [*_names(shape.user), *fields_of(shape.template), *_names(shape.assistant)]


def _read(shape: Shape) -> list[str]:
    """Give all keys that a shape reads of a row; where it lists its turns, those of a turn are none of the row's."""
    found = [shape.history, shape.tools, shape.turns, shape.system if isinstance(shape.system, str) else None]
    if shape.turns is None:
        found += [*_names(shape.user), *_names(shape.assistant), *fields_of(shape.template), shape.reasoning]
    return [*(path for path in found if path is not None), *(shape.rename or {})]


def _names(keys: Keys | None) -> list[str]:
    return [] if keys is None else [keys] if isinstance(keys, str) else keys
