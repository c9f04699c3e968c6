"""Shapes of rows as a mapping file gives them, and the checks that find its mistakes before any row is read."""

import re
from dataclasses import fields
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from dataprep.stages.normalize.examples import EXAMPLES
from dataprep.stages.normalize.reasons import shown

Role = Literal["user", "assistant", "system", "tool"]
Keys = str | list[str]

# In a template: {{ and }} for braces, {key} for what stands under a key.
TEMPLATE_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")

_STRICT = ConfigDict(extra="forbid", strict=True)
_EXPECTED = {
    "name": "a name of its own, as text",
    "when": 'a list of keys such as ["a", "b.c"]',
    "user": "a key, or a list of keys whose texts are joined by newlines",
    "assistant": "a key, or a list of keys whose texts are joined by newlines",
    "template": 'a text such as "Sum up {title}: {body}"',
    "system": 'a key, or {text = "…"}',
    "history": "a key",
    "reasoning": "a key",
    "turns": "a key",
    "role": "a key of each turn",
    "text": "a key of each turn",
    "order": 'a list of roles such as ["user", "assistant"]',
    "roles": 'a table such as {visitor = "user"}; the roles are user, assistant, system, tool',
    "tools": "a key",
    "format": "one of the formats that `dataprep formats` lists",
    "rename": 'a table such as {their_key = "instruction"}',
}


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Literally:
    """A text that stands in the mapping file itself."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Shape:
    """How rows of one shape are read: one question and answer, a list of turns, or a format by renamed keys."""

    name: str
    when: list[str] | None = None
    user: Keys | None = None
    assistant: Keys | None = None
    template: str | None = None
    system: str | Literally | None = None
    history: str | None = None
    reasoning: str | None = None
    turns: str | None = None
    role: str | None = None
    text: str | None = None
    order: list[Role] | None = None
    roles: dict[str, Role] | None = None
    tools: str | None = None
    format: str | None = None
    rename: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class MappingFile:
    """A mapping file as a whole: its [[shape]] tables."""

    shape: list[Shape]


def fields_of(template: str | None) -> list[str]:
    """Give the keys that a template names."""
    return [match[1] for match in TEMPLATE_FIELD.finditer(template or "") if match[1] is not None]


def problem_of(shape: Shape) -> str | None:
    """Say what is wrong with a shape whose keys each have the right type; None where nothing is."""
    if not shape.name or shape.name in EXAMPLES:
        return f"name: {shown(shape.name)} is no name of its own; expected one that is no format's"
    for key in ("when", "user", "assistant", "template", "turns", "role", "text", "order", "tools", "history"):
        if getattr(shape, key) in ("", []):
            return f"{key}: empty; expected {_EXPECTED[key]}"
    ways = [key for key in ("turns", "format", "user", "template") if getattr(shape, key) is not None]
    if not ways:
        return "how is a row read? expected user (or template) and assistant, or turns, or format"
    check = {"turns": _turns_problem, "format": _format_problem}.get(ways[0], _question_problem)
    return check(shape)


def _turns_problem(shape: Shape) -> str | None:
    if shape.user is not None or shape.assistant is not None:
        if shape.user is None or shape.assistant is None:
            return f"{'user' if shape.user is None else 'assistant'}: missing; each turn needs user and assistant"
        return _foreign(shape, {"turns", "user", "assistant", "system", "reasoning", "tools"})
    if shape.role is None and shape.order is None:
        return 'role: missing; expected a key of each turn, or order = ["user", "assistant"] for roles by position'
    if shape.role is not None and shape.order is not None:
        return "order: roles are given by key already; expected role or order"
    if shape.role is not None and shape.text is None:
        return f"text: missing; expected {_EXPECTED['text']}"
    return _foreign(shape, {"turns", "role", "text", "order", "roles", "system", "reasoning", "tools"})


def _format_problem(shape: Shape) -> str | None:
    if shape.format not in EXAMPLES:
        return f"format: {shown(shape.format)} is none; expected one of {', '.join(EXAMPLES)}"
    if not shape.rename and not shape.when:
        return f"rename: missing; expected {_EXPECTED['rename']}"
    return _foreign(shape, {"format", "rename", "system"})


def _question_problem(shape: Shape) -> str | None:
    if shape.user is not None and shape.template is not None:
        return "template: the question is given by user already; expected user or template"
    if shape.assistant is None:
        return f"assistant: missing; expected {_EXPECTED['assistant']}"
    if shape.template is not None and "" in fields_of(shape.template):
        return f"template: holds {{}} without a key; expected {_EXPECTED['template']}"
    return _foreign(shape, {"user", "assistant", "template", "system", "history", "reasoning", "tools"})


def _foreign(shape: Shape, known: set[str]) -> str | None:
    """Name the first key that means nothing beside the others."""
    for field in fields(shape):
        if field.name not in {"name", "when", *known} and getattr(shape, field.name) is not None:
            return f"{field.name}: means nothing beside {', '.join(sorted(known & _given(shape)))}; leave it out"
    return None


def _given(shape: Shape) -> set[str]:
    return {field.name for field in fields(shape) if getattr(shape, field.name) is not None}


def mistake_in(error: ValidationError, found: dict[str, Any]) -> str:
    """Put the first error of a file that holds `found` into words: shape, key, what is expected."""
    # a key that is none goes before a key that is missing: it may be the same key, misspelt
    first = min(error.errors(), key=lambda one: one["type"].startswith("missing"))
    place = [part for part in first["loc"] if isinstance(part, str | int)]
    if place[:1] != ["shape"]:
        return f"{place[0] if place else 'the file'}: no such key; expected shapes, each written under [[shape]]"
    if len(place) < 2 or not isinstance(place[1], int):
        return "shape: missing or no list; write each shape under [[shape]]"
    table = found["shape"][place[1]]
    title = title_of(table.get("name") if isinstance(table, dict) else None, place[1] + 1)
    if len(place) < 3:
        return f"{title}: not a table; write it under [[shape]]"
    key = str(place[2])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden") and key not in _EXPECTED:
        return f"{title}: {key}: no such key; expected one of {', '.join(_EXPECTED)}"
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{title}: {key}: missing; expected {_EXPECTED[key]}"
    return f"{title}: {key}: expected {_EXPECTED[key]}"


def title_of(name: object, number: int) -> str:
    """Name a shape in an error."""
    return f"shape {shown(name)}" if type(name) is str and name else f"shape {number}"
