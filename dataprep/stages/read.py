"""A segment in, its raw rows out: (number, value, raw), where raw is the line's bytes, or None where there is no line.

A row that can't be parsed costs itself only: its value is then the TurnedAway that says why.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.stages.arrow import segment_batches
from dataprep.stages.delimited import delimited_rows
from dataprep.stages.documents import document_rows
from dataprep.stages.inputs import RawRow, Segment
from dataprep.stages.normalize.convert import KEYS
from dataprep.stages.normalize.reasons import TurnedAway
from schemas.errors import InputError

_BOM = b"\xef\xbb\xbf"
_LONG_NUMBER = re.compile(rb"\d{19}")
_BATCH_ROWS = 1024
_FROM_UTF16 = "save the file as UTF-8, for example: iconv -f UTF-16 -t UTF-8 FILE > NEW"


def read_rows(segment: Segment) -> Iterator[RawRow]:
    """Yield a segment's rows in order; blank lines are none. Raises InputError when the file can't be read."""
    try:
        if segment.kind == "parquet":
            yield from _parquet_rows(segment)
        elif segment.kind == "arrow":
            yield from _arrow_rows(segment)
        elif segment.kind == "document":
            yield from document_rows(segment)
        elif segment.kind == "delimited":
            yield from delimited_rows(segment)
        else:
            data = _segment_data(segment)
            if segment.start == 0:
                data = data.removeprefix(_BOM)
            yield from _json_rows(data) if segment.kind == "json" else _line_rows(data, segment.first_row)
    except OSError as error:
        raise InputError(f"{segment.file.name}: cannot be read: {error.strerror or error}") from error


def _segment_data(segment: Segment) -> bytes:
    if segment.data is not None:
        return segment.data
    with segment.file.path.open("rb") as file:
        file.seek(segment.start)
        return file.read(segment.end - segment.start)


def _line_rows(data: bytes, first_row: int) -> Iterator[RawRow]:
    careful = _may_hold_numbers(data)
    loads = orjson.loads
    for number, line in enumerate(data.split(b"\n"), first_row):
        if not line or line.isspace():
            continue
        try:
            value = loads(line)
        except ValueError:
            value = _second_reading(line)
        else:
            if careful and _may_hold_numbers(line) and _LONG_NUMBER.search(line):
                value = _second_reading(line)
        yield number, value, line


def _json_rows(data: bytes) -> Iterator[RawRow]:
    if not data or data.isspace():
        return
    try:
        value = orjson.loads(data)
    except ValueError:
        value = _second_reading(data)
    else:
        if _may_hold_numbers(data) and _LONG_NUMBER.search(data):
            value = _second_reading(data)
    if not isinstance(value, list) or (value and _is_message(value[0])):
        yield 1, value, data if isinstance(value, TurnedAway) else None
        return
    for number, row in enumerate(value, 1):
        yield number, row, None


def _parquet_rows(segment: Segment) -> Iterator[RawRow]:
    """Read the columns that a row is converted from; where there are none, all, so that the reason can name them."""
    number = segment.first_row
    with pq.ParquetFile(segment.file.path) as parquet:
        columns = [name for name in parquet.schema_arrow.names if name in KEYS] or None
        for group in range(segment.start, segment.end):
            end = number + parquet.metadata.row_group(group).num_rows
            try:
                for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
                    for value in _batch_values(batch):
                        yield number, value, None
                        number += 1
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                for lost in range(number, end):
                    yield lost, TurnedAway("unreadable-rows", f"row group {group + 1}: {reason}"), None
            number = end


def _arrow_rows(segment: Segment) -> Iterator[RawRow]:
    number = segment.first_row
    for batch in segment_batches(segment, KEYS):
        for offset in range(0, batch.num_rows, _BATCH_ROWS):
            for value in _batch_values(batch.slice(offset, _BATCH_ROWS)):
                yield number, value, None
                number += 1


def _batch_values(batch: pa.RecordBatch) -> list[Any]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, or a date beyond what Python has
        return [_row_value(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _row_value(row: pa.RecordBatch) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return _bad_encoding(error)
    except (ValueError, OverflowError) as error:
        return TurnedAway("unreadable-rows", f"a value can't be read: {error}")


def _is_message(value: object) -> bool:
    """Tell whether an array's items are messages, so that the array is one row and not many."""
    if not isinstance(value, dict):
        return False
    return ("role" in value and "content" in value) or ("from" in value and "value" in value)


def _may_hold_numbers(data: bytes) -> bool:
    """Tell whether rows may hold numbers that are kept: those in tools, tool_calls, functions or function_call are."""
    return b'"tool' in data or b'"function' in data


def _second_reading(data: bytes) -> Any:
    """Read what orjson refuses or rounds (NaN in keys nobody reads, numbers beyond 64 bits), or say what is wrong."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
        value = json.loads(text, parse_constant=Decimal, parse_float=_finite)
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeDecodeError as error:
        return _bad_encoding(error)
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


def _bad_encoding(error: UnicodeDecodeError) -> TurnedAway:
    if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TurnedAway("bad-encoding", "the file begins as UTF-16, not UTF-8", _FROM_UTF16)
    if error.reason == "unexpected end of data":
        return TurnedAway("broken-json", "not JSON: the text ends in the middle of a character")
    found = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
    return TurnedAway("bad-encoding", f"{found} is not UTF-8")
