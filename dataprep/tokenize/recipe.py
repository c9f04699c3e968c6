"""Recipes: a TOML file in; how much of each source is trained on, and what of it, out. Every mistake is one error.

seed = 1                    # of selection and order, as --seed
[sources.smilechat]
weight = 2.0                # each conversation twice; 0.3: a fixed 30% of them; 0: none
[sources."glaive_*"]        # every source takes the first entry that matches its name
max_conversations = 5000    # of each such source, before the weight; max_tokens likewise
train_on = "last"           # as --train-on, for these sources; turns and thinking likewise
[default]
weight = 1.0                # sources that no entry matches

Tables of options, [normalize], [tokenize] and [train], may stand in the same file (schemas/recipe.py).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schemas.errors import InputError
from schemas.manifest import SourceMix, TargetRules, TokenOptions
from schemas.recipe import TABLES, read_recipe_file

_SHOWN = 20
_RULES = tuple(TargetRules.__dataclass_fields__)
_EXPECTED = {
    "seed": "a whole number, 0 or more",
    "weight": "a number from 0 to 1000, such as 2.0",
    "max_conversations": "a whole number, 1 or more",
    "max_tokens": "a whole number, 1 or more",
    "train_on": "one of assistant, last, tool-calls, all",
    "turns": "one of whole, last, exact",
    "thinking": "one of keep, drop, only",
    "sources": 'tables such as [sources.NAME] or [sources."glaive_*"]',
    "default": "a table such as [default] with weight = 1.0",
}


_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Entry(SourceMix):
    """What a recipe says of sources; rules are None where the command line's hold."""

    train_on: Literal["assistant", "last", "tool-calls", "all"] | None = None
    turns: Literal["whole", "last", "exact"] | None = None
    thinking: Literal["keep", "drop", "only"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Entries:
    """What a recipe file holds, in the file's order."""

    seed: Annotated[int, Field(ge=0, le=2**62)] | None = None
    sources: dict[str, Entry] = field(default_factory=dict)
    default: Entry = field(default_factory=Entry)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe file's entries, and its name for messages."""

    file: str
    entries: Entries


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises InputError naming the key and what it may be."""
    content = {key: value for key, value in read_recipe_file(path).items() if key not in TABLES.values()}
    try:
        entries = TypeAdapter(Entries).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise InputError(f"--recipe {path}: {_mistake(error, content)}") from error
    return Recipe(file=str(path), entries=entries)


def agreed_seed(recipe: Recipe | None, given: int | None) -> int:
    """The seed of the recipe and of --seed, 0 where neither names one. Raises InputError where they differ."""
    own = recipe.entries.seed if recipe else None
    if recipe and None not in (own, given) and own != given:
        raise InputError(f"--seed {given}: {recipe.file} has seed = {own}; leave one of them out")
    return next((seed for seed in (given, own) if seed is not None), 0)


def settle(recipe: Recipe, sources: Sequence[str]) -> dict[str, SourceMix]:
    """The mix of each source that isn't taken whole and once; `sources` are sorted names.

    Raises InputError for an entry that no source takes.
    """
    mixes = {name: _mix(entry) for name, entry in _entries_of(recipe, sources).items()}
    return {name: mix for name, mix in mixes.items() if mix != SourceMix()}


def settle_targets(recipe: Recipe, sources: Sequence[str], options: TokenOptions) -> dict[str, TargetRules]:
    """The rules of each source that `options` don't decide; `sources` are sorted names.

    Raises InputError for an entry that no source takes, and for rules that don't go together.
    """
    usual = TargetRules(**{name: getattr(options, name) for name in _RULES})
    rules = {}
    for source, entry in _entries_of(recipe, sources).items():
        given = {name: getattr(entry, name) for name in _RULES}
        own = TargetRules(**{name: value or getattr(usual, name) for name, value in given.items()})
        if own.train_on == "all" and own.turns != "whole":
            where = f"--recipe {recipe.file}: source {source}"
            raise InputError(f'{where}: train_on = "all" goes with turns = "whole" only, not with "{own.turns}"')
        if own != usual:
            rules[source] = own
    return rules


def _mix(entry: Entry) -> SourceMix:
    return SourceMix(**{name: value for name, value in asdict(entry).items() if name not in _RULES})


def _entries_of(recipe: Recipe, sources: Sequence[str]) -> dict[str, Entry]:
    entries = recipe.entries
    taken = {name: _first_match(entries, name) for name in sources}
    for pattern in entries.sources:
        if pattern not in taken.values():
            raise InputError(f"--recipe {recipe.file}: {_takes_nothing(pattern, taken)}")
    return {name: entries.default if entry is None else entries.sources[entry] for name, entry in taken.items()}


def listed(names: Sequence[str]) -> str:
    """Names as one line, the first of many."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _first_match(entries: Entries, name: str) -> str | None:
    return next((pattern for pattern in entries.sources if _matches(name, pattern)), None)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _takes_nothing(pattern: str, taken: dict[str, str | None]) -> str:
    for name, entry in taken.items():
        if _matches(name, pattern):
            return f"sources.{pattern!r}: {name} is taken by sources.{entry!r}, which stands before it; move it up"
    return f"sources.{pattern!r}: no source has such a name; the sources are {listed(list(taken))}"


def _mistake(error: ValidationError, content: dict[str, Any]) -> str:
    """The first mistake: its key, what stands there, and what may."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    where, value = ".".join(path), content
    for part in path:
        value = value[part] if isinstance(value, dict) else value
    if first["type"] == "unexpected_keyword_argument":
        allowed = Entries if len(path) == 1 else Entry
        dots = f'; a name with dots is quoted: [sources."{".".join(path[1:])}"]' if isinstance(value, dict) else ""
        return f"{where}: unknown; expected one of {', '.join(allowed.__dataclass_fields__)}{dots if path[1:] else ''}"
    expected = "a table such as [sources.NAME] with weight = 1.0" if path[:-1] == ["sources"] else _EXPECTED[path[-1]]
    return f"{where} = {json.dumps(value, default=str)}: expected {expected}"
