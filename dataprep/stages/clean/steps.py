"""The cleaning steps by name: what each is set to by default, what it may be set to, and what it does.

They stand in the order in which they are done. By default nothing in a text is changed: what is found is counted.
A step's value is one of its words (`off` doesn't look, `count` looks and leaves, `fix` mends, `drop` turns the
conversation away), or of its kind: a whole number, a ratio between 0 and 1, or language codes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import InputError

LINE_WIDTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What a step may be set to: one of `words`, or a value of `kind`; its name alone means `acting`."""

    default: str
    words: tuple[str, ...] = ("off", "count", "fix", "drop")
    kind: str | None = None  # number | ratio | codes
    acting: str | None = "fix"
    help: str


_KINDS = {"number": "N", "ratio": "0.01..1", "codes": "zh,en"}
_KIND_WORDS = {
    "number": "a whole number of 1 or more, such as 2",
    "ratio": "a number above 0 and up to 1, such as 0.8",
    "codes": "language codes with commas between, such as zh,en",
}
_COUNT_OR_DROP = ("off", "count", "drop")


def _text(help: str, words: tuple[str, ...] = ("off", "count", "fix", "drop")) -> Step:
    return Step(default="count", words=words, help=help)


def _limit(help: str) -> Step:
    return Step(default="off", words=("off",), kind="number", acting=None, help=help)


STEPS: dict[str, Step] = {
    "html": _text("leftover entities and tags in prose: &nbsp; <br> <p>; code and talk of HTML is left"),
    "replacement-chars": _text("U+FFFD, which stands where a character was lost"),
    "control-chars": _text("control characters but tab and line ends; terminal colours"),
    "control-tokens": _text("tokens of chat templates inside a text: <|im_end|> </s> [INST]"),
    "spaced-chinese": _text("Chinese written with a space between characters or words"),
    "spaces": _text(
        "odd, zero-width, trailing and outer spaces, \\r, three blank lines or more", ("off", "count", "fix")
    ),
    "placeholders": Step(
        default="count", words=_COUNT_OR_DROP, acting="drop", help="unfilled places: {{name}} <NAME> [EMAIL] NAME_1"
    ),
    "empty-turns": Step(
        default="fix", help="empty last answers go with their question, empty system messages go; others drop"
    ),
    "first-role": _text("an assistant's turn before any user's; fix cuts what is before the user's"),
    "last-role": Step(default="fix", help="turns after the last answer; fix cuts them"),
    "system-role": Step(
        default="count", words=_COUNT_OR_DROP, acting="drop", help="a system message that is not the first message"
    ),
    "same-role": Step(
        default="count",
        words=("off", "count", "merge", "drop"),
        acting="merge",
        help="two user's or two assistant's turns in a row; merge joins plain ones with a newline",
    ),
    "refusals": Step(
        default="off", words=_COUNT_OR_DROP, acting="drop", help="'I'm sorry, but I can't', 'As an AI language model'"
    ),
    "min-turns": _limit("turn away below N messages of user and assistant"),
    "max-turns": _limit("turn away above N messages of user and assistant"),
    "min-chars": _limit("turn away below N characters in all messages"),
    "max-chars": _limit("turn away above N characters in all messages"),
    "min-answer-chars": _limit("turn away where an answer has fewer than N characters"),
    "repetition": Step(
        default="off",
        words=("off",),
        kind="ratio",
        acting="0.5",
        help="turn away where more than this share of an answer repeats itself",
    ),
    "languages": Step(
        default="off", words=("off",), kind="codes", acting=None, help="turn away what is surely in another language"
    ),
    "duplicates": Step(default="drop", words=("off", "drop"), acting="drop", help="equal conversations but the first"),
    "near-duplicates": Step(
        default="off", words=("off",), kind="ratio", acting="0.8", help="conversations at least so similar to another"
    ),
}


def settled_steps(given: Iterable[str]) -> dict[str, str]:
    """Give each step's value after `--clean STEP[=VALUE]`, as given; the last word on a step counts.

    Raises InputError for a step or a value that does not exist.
    """
    settled = {name: step.default for name, step in STEPS.items()}
    for text in given:
        name, equals, value = text.partition("=")
        step = STEPS.get(name)
        if step is None:
            raise InputError(f"--clean {text}: no such step; use one of {', '.join(STEPS)}")
        if not equals and step.acting is None:
            raise InputError(f"--clean {name}: needs a value; give {_choices(step)}")
        checked = _checked_value(step, value.strip() if equals else step.acting or "")
        if checked is None:
            raise InputError(f"--clean {text}: no such value; use {_choices(step)}")
        settled[name] = checked
    return settled


def steps_text() -> str:
    """Write the steps as a table: name, default, values, what it does; and what a name alone means."""
    rows = [("STEP", "DEFAULT", "VALUES", "WHAT IT LOOKS FOR")]
    rows += [(name, step.default, _values(step), step.help) for name, step in STEPS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row in rows:
        start = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines += _wrapped(start + "  ", row[3])
    ratios = ", ".join(f"{name}={step.acting}" for name, step in STEPS.items() if step.kind and step.acting)
    return "\n".join([*lines, f"--clean STEP alone means its fix, merge or drop; or {ratios}"])


def _wrapped(start: str, text: str) -> list[str]:
    lines, line = [], start
    for word in text.split(" "):
        if len(line) + len(word) > LINE_WIDTH:
            lines.append(line.rstrip())
            line = " " * len(start)
        line += word + " "
    return [*lines, line.rstrip()]


def _values(step: Step) -> str:
    return "|".join((*step.words, _KINDS[step.kind])) if step.kind else "|".join(step.words)


def _choices(step: Step) -> str:
    words = ", ".join(step.words)
    return f"{words} or {_KIND_WORDS[step.kind]}" if step.kind else words


def _checked_value(step: Step, value: str) -> str | None:
    if value in step.words:
        return value
    if step.kind == "number":
        return _number(value)
    if step.kind == "ratio":
        return _ratio(value)
    return _codes(value) if step.kind == "codes" else None


def _number(value: str) -> str | None:
    return str(int(value)) if value.isascii() and value.isdigit() and int(value) > 0 else None


def _ratio(value: str) -> str | None:
    try:
        ratio = float(value)
    except ValueError:
        return None
    return str(ratio) if 0 < ratio <= 1 else None


def _codes(value: str) -> str | None:
    from dataprep.stages.clean.languages import CODES

    codes = {code.strip().lower() for code in value.split(",")}
    return ",".join(sorted(codes)) if codes <= CODES else None
