"""Cells of tables: CSV has no lists, so a list of messages stands in its cell as text, of JSON or of Python's own.

Also the columns that `datasets` makes of a list of objects: one object of lists.
"""

import ast
import warnings
from typing import Any

import orjson


def parsed_cell(value: object) -> Any:
    """Give the list or object that a text writes out; any other value, and any other text, as it is."""
    if type(value) is not str or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = orjson.loads(value)
    except ValueError:
        found = _python_value(value)
    return found if isinstance(found, list | dict) else value


def as_list(value: object) -> Any:
    """Give a list that stands as text, or as an object of equally long lists; any other value as it is."""
    found = parsed_cell(value)
    if not isinstance(found, dict) or not found or not all(isinstance(column, list) for column in found.values()):
        return found
    if len({len(column) for column in found.values()}) > 1:
        return found
    # {"role": ["user", "assistant"], "content": ["Hello", "Hi"]} -> one object a message
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _python_value(text: str) -> object:
    """Read what `str()` of a Python list gives: the single quotes in CSV files that pandas wrote."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
