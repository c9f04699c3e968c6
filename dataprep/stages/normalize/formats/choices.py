"""What a question gives to choose from, which stands beside it: as lines to put under the question.

{"options": {"A": "Rain", "B": "Sun"}}, {"choices": ["Rain", "Sun"]}, {"choices": {"label": […], "text": […]}}, lists of
{"key": "A", "value": "Rain"}, and columns A, B, C, … all give "A. Rain" and "B. Sun".
"""

from typing import Any

from dataprep.stages.normalize.formats.cells import as_list, parsed_cell

CHOICE_KEYS = ("options", "choices", "option")
LETTERS = "ABCDEFGH"
CHOICE_COLUMNS = (*CHOICE_KEYS, *LETTERS)

_LABELS, _TEXTS = ("label", "key"), ("text", "value", "content")


def choice_lines(row: dict[str, Any]) -> list[str]:
    """Give the lines of a row's choices; none where it has none, or nothing that is known to be some."""
    for key in CHOICE_KEYS:
        if row.get(key) is not None:
            return _lines(parsed_cell(row[key]))
    columns = {letter: row.get(letter, row.get(letter.lower())) for letter in LETTERS}
    return _lines(columns) if type(columns["A"]) is str and type(columns["B"]) is str else []


def _lines(choices: Any) -> list[str]:
    choices = as_list(choices)
    if isinstance(choices, dict):
        pairs = [(key, text) for key, text in choices.items() if text is not None]
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        pairs = [(_first(choice, _LABELS), _first(choice, _TEXTS)) for choice in choices]
    elif isinstance(choices, list):
        pairs = list(zip(LETTERS, choices, strict=False)) if len(choices) <= len(LETTERS) else []
    else:
        return []
    if len(pairs) < 2 or not all(type(label) is type(text) is str and len(label) < 3 for label, text in pairs):
        return []  # a longer name is that of a setting
    labelled = all(text.startswith(label) for label, text in pairs)
    return [text if labelled else f"{label}. {text}" for label, text in pairs]


def _first(choice: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((choice[key] for key in keys if choice.get(key) is not None), None)
