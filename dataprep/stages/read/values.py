"""Bytes of one JSON value in, the value out; or the TurnedAway that says why it can't be read."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import orjson
from stringzilla import find

from dataprep.stages.normalize.reasons import TurnedAway

_BOM = b"\xef\xbb\xbf"
_LONG_NUMBER = re.compile(rb"\d{19}")
_FROM_UTF16 = "save the file as UTF-8, for example: iconv -f UTF-16 -t UTF-8 FILE > NEW"


def value_of(data: bytes, careful: bool = True) -> Any:
    """Read a value; whole numbers beyond 64 bits stay exact where rows may hold numbers that are kept.

    It is not looked whether they do where `careful` is False, after `may_hold_numbers` of a larger text said no.
    """
    try:
        value = orjson.loads(data)
    except ValueError:
        return _second_reading(data)
    return _second_reading(data) if careful and may_hold_numbers(data) and _LONG_NUMBER.search(data) else value


def values_of(data: bytes) -> list[Any] | None:
    """Read values with commas between them all at once; None where they must be read one by one, as value_of does."""
    if may_hold_numbers(data) and _LONG_NUMBER.search(data):
        return None
    try:
        values: list[Any] = orjson.loads(b"[%b]" % data)
    except ValueError:
        return None
    return values


def may_hold_numbers(data: bytes) -> bool:
    """Tell whether rows may hold numbers that are kept: those in tools, tool_calls, functions or function_call are."""
    return find(data, b'"tool') >= 0 or find(data, b'"function') >= 0


def bad_encoding(error: UnicodeDecodeError) -> TurnedAway:
    """Say what is wrong with bytes that are not UTF-8."""
    if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TurnedAway("bad-encoding", "the file begins as UTF-16, not UTF-8", _FROM_UTF16)
    if error.reason == "unexpected end of data":
        return TurnedAway("broken-json", "not JSON: the text ends in the middle of a character")
    found = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
    return TurnedAway("bad-encoding", f"{found} is not UTF-8")


def _second_reading(data: bytes) -> Any:
    """Read what orjson refuses or rounds (NaN in keys nobody reads, numbers beyond 64 bits), or say what is wrong."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
        value = json.loads(text, parse_constant=Decimal, parse_float=_finite)
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeDecodeError as error:
        return bad_encoding(error)
    except UnicodeEncodeError as error:
        return TurnedAway(
            "lone-surrogate", f"the text holds half of a surrogate pair, \\u{ord(error.object[error.start]):x}"
        )
    except json.JSONDecodeError as error:
        if "\0" in error.doc:
            return TurnedAway("bad-encoding", "NUL bytes between the characters: UTF-16, not UTF-8", _FROM_UTF16)
        return TurnedAway("broken-json", f"not JSON: {error.msg.removesuffix(' at')} at {_place(error)}")
    except RecursionError:
        return TurnedAway("too-deep", "values are nested about 1,000 deep or more")
    except ValueError as error:
        return TurnedAway("broken-json", f"not JSON that can be read: {error}")
    return value


def _finite(text: str) -> float | Decimal:
    value = float(text)
    return value if math.isfinite(value) else Decimal(text)


def _place(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
