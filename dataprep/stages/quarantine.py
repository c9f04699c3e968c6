"""Rows that were turned away, each as one line of JSON: where it stood, why, how to mend it, and the row itself."""

import json
from typing import Any

import orjson

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.inputs import RawRow

RAW_BYTES = 1 << 20  # of a row; a longer one is cut, and then can't be taken up again from here


def quarantine_line(file: str, source: str, row: RawRow, reason: TurnedAway) -> bytes:
    """Write the line of one row. `raw` is its text; `raw_cut` is true where that was longer than RAW_BYTES."""
    number, value, raw = row
    record = {
        "file": _whole(file),
        "row": number,
        "source": _whole(source),
        "reason": reason.reason,
        "detail": _whole(reason.detail),
        "fix": reason.fix,
    }
    text, cut = _raw_text(value, raw)
    record["raw"] = text
    if cut:
        record["raw_cut"] = True
    return orjson.dumps(record) + b"\n"  # a copy: what orjson gives holds on to 4 KB however short it is


def _raw_text(value: Any, raw: bytes | None) -> tuple[str, bool]:
    if raw is not None:
        return raw[:RAW_BYTES].decode("utf-8", "replace"), len(raw) > RAW_BYTES
    if isinstance(value, TurnedAway):
        return "", False
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        if _whole(text) != text:
            text = json.dumps(value, default=str)  # with the halves of surrogate pairs as escapes
    except (TypeError, ValueError, RecursionError):
        return "", True
    return text[:RAW_BYTES], len(text) > RAW_BYTES


def _whole(text: str) -> str:
    """Show halves of surrogate pairs, which no file can hold, as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
