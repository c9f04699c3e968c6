"""Recipe files: one TOML file with a table of options for each command. What the command line gives wins.

[tokenize]
seq-len = 512                # as --seq-len 512
[train]
gradient-checkpointing = true
freeze = ["model.embed_tokens.*"]
"""

import argparse
import copy
import difflib
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from schemas.errors import InputError

TABLES = {"normalize": "normalize", "tokenize": "tokenize", "run": "train", "plan": "train"}  # by command
OF_SOURCES = "seed", "sources", "default"  # keys of the mixture, which `dataprep tokenize` reads
_NEVER = "help", "recipe", "local-rank"


def read_recipe_file(path: Path) -> dict[str, Any]:
    """Read a recipe's TOML. Raises InputError for a file that can't be read, or a table that no command has."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--recipe {path}: cannot be read: {error.strerror}; name a .toml file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--recipe {path}: not UTF-8; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--recipe {path}: not TOML: {error}; correct it there") from error
    for table in dict.fromkeys(TABLES.values()):
        if not isinstance(content.get(table, {}), dict):
            raise InputError(f"--recipe {path}: {table}: expected a table such as [{table}]")
    return content


def parser_with_recipe(
    make: Callable[[], argparse.ArgumentParser],
    arguments: Sequence[str],
    instead: Iterable[tuple[str, str]] = (),
) -> argparse.ArgumentParser:
    """`make`'s parser, its defaults for the command of `arguments` taken from the file that `--recipe` there names.

    Of each pair in `instead` the recipe's gives way where the command line has the other. Raises InputError for a
    mistake in the file.
    """
    parser = make()
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe", type=Path, nargs="?")
    given: Path | None = finder.parse_known_args([*arguments])[0].recipe
    found = _commands(parser)
    name = next((each for each in arguments if each in found), None)
    if given is None or name not in TABLES:
        return parser
    content, table = read_recipe_file(given), TABLES[name]
    _check_tables(given, content)
    on_line = _given(_commands(make())[name], arguments[list(arguments).index(name) + 1 :])
    options = {action.dest.replace("_", "-"): action for action in _options(found[name])}
    others = dict(instead) | {other: one for one, other in instead}
    for key, value in content.get(table, {}).items():
        action = options.get(key.replace("_", "-"))
        if action is None:
            _unknown(f"--recipe {given}: {table}.{key}", key, options)
        settled = _value(action, value, f"--recipe {given}: {table}.{key} = {value!r}")
        if action.dest in on_line:
            action.default = _empty(action)
        elif others.get(action.dest) not in on_line:
            action.default = settled
            action.required = False
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return {name: command for group in groups for name, command in group.choices.items()}


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [each for each in parser._actions if each.option_strings and each.dest.replace("_", "-") not in _NEVER]


def _given(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """Names of the options that stand on the command line."""
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    return set(vars(parser.parse_known_args([*arguments])[0]))


def _empty(action: argparse.Action) -> Any:
    """The default under what the command line gives: lists begin anew."""
    return [] if isinstance(action, argparse._AppendAction) else action.default


def _check_tables(path: Path, content: dict[str, Any]) -> None:
    tables = [*dict.fromkeys(TABLES.values()), *OF_SOURCES]
    for key in content:
        if key not in tables:
            _unknown(f"--recipe {path}: {key}", key, tables)


def _unknown(where: str, key: str, known: Iterable[str]) -> NoReturn:
    names = sorted(known)
    near = difflib.get_close_matches(key.replace("_", "-"), names, 1, 0.5)
    raise InputError(f"{where}: unknown; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"))


def _value(action: argparse.Action, value: Any, where: str) -> Any:
    """A recipe's value as the option would have parsed it. Raises InputError where it is none of the option's."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise InputError(f"{where}: expected true or false")
        return value
    if isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*"):
        if not isinstance(value, list):
            raise InputError(f"{where}: expected a list, as in [{value!r}]")
        return [_single(action, each, where) for each in value]
    if action.nargs == "?" and value is True:
        return copy.copy(action.const)
    return _single(action, value, where)


def _single(action: argparse.Action, value: Any, where: str) -> Any:
    kind: Any = action.type
    expected = {int: "a whole number", float: "a number"}.get(kind, "a text")
    numbers = isinstance(value, int) or (isinstance(value, float) and kind is float)
    if isinstance(value, bool) or not (numbers if kind in (int, float) else isinstance(value, str | int | float)):
        raise InputError(f"{where}: expected {expected}")
    value = value if kind in (int, float) else str(value)
    if callable(kind):
        try:
            value = kind(value)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise InputError(f"{where}: {error}") from error
    if action.choices is not None and value not in action.choices:
        raise InputError(f"{where}: expected one of {', '.join(map(str, action.choices))}")
    return value
