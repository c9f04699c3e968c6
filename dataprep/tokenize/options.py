"""What the user chose about rendering and targets: checked against the chat template at hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from dataprep.core.tokenizer import ModelTokenizer
from dataprep.stages.render import CLOCK, template_arguments
from schemas.errors import InputError
from schemas.manifest import TokenOptions


def parsed_arguments(given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE of --template-arg; values as JSON, or as the text they are. Raises InputError."""
    parsed: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"--template-arg {text}: expected NAME=VALUE, such as enable_thinking=false")
        if name in parsed:
            raise InputError(f"--template-arg {text}: {name} is given twice; leave one of them out")
        try:
            parsed[name] = json.loads(value, parse_constant=_refuse_constant)
        except ValueError:
            parsed[name] = value
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def settled_options(options: TokenOptions, tokenizer: ModelTokenizer, today: date) -> TokenOptions:
    """Check what was chosen, and fix the day that templates are told. Raises InputError naming the flag."""
    if options.train_on == "all" and options.turns != "whole":
        raise InputError(f"--train-on all: goes with --turns whole only, not with --turns {options.turns}")
    asks_date = CLOCK in (tokenizer.template or "")
    if options.template_args:
        _require_known(options.template_args, tokenizer, asks_date)
    day = options.template_args.get(CLOCK)
    if day is not None and not _is_day(day):
        raise InputError(f"--template-arg {CLOCK}={day}: expected a day as YYYY-MM-DD")
    if not asks_date or day is not None:
        return options
    return replace(options, template_args={**options.template_args, CLOCK: today.isoformat()})


def _require_known(given: dict[str, Any], tokenizer: ModelTokenizer, asks_date: bool) -> None:
    asked: list[str] = []
    if tokenizer.template:
        asked = template_arguments(tokenizer.compiled_template(), tokenizer.template, tokenizer.special_tokens)
        asked += [CLOCK] if asks_date else []
    for name in given:
        if name not in asked:
            known = f"it asks for {', '.join(asked)}" if asked else "it asks for none"
            raise InputError(f"--template-arg {name}: the chat template doesn't ask for it; {known}")


def _is_day(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False
