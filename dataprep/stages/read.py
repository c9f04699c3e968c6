"""A segment in, its raw rows out: (number, value, raw), where raw is the line's bytes, or None where there is no line.

A row that can't be parsed costs itself only: its value is then the TurnedAway that says why.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.stages.arrow import segment_batches
from dataprep.stages.delimited import delimited_rows
from dataprep.stages.documents import document_rows
from dataprep.stages.inputs import RawRow, Segment
from dataprep.stages.normalize.convert import KEYS
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.retry import quarantined_rows
from dataprep.stages.values import bad_encoding, value_of
from schemas.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 1024


def read_rows(segment: Segment) -> Iterator[RawRow]:
    """Yield a segment's rows in order; blank lines are none. Raises InputError when the file can't be read."""
    try:
        if segment.kind == "parquet":
            yield from _parquet_rows(segment)
        elif segment.kind == "arrow":
            yield from _arrow_rows(segment)
        elif segment.kind == "quarantine":
            yield from quarantined_rows(segment)
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
    for number, line in enumerate(data.split(b"\n"), first_row):
        if line and not line.isspace():
            yield number, value_of(line), line


def _json_rows(data: bytes) -> Iterator[RawRow]:
    if not data or data.isspace():
        return
    value = value_of(data)
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
        return bad_encoding(error)
    except (ValueError, OverflowError) as error:
        return TurnedAway("unreadable-rows", f"a value can't be read: {error}")


def _is_message(value: object) -> bool:
    """Tell whether an array's items are messages, so that the array is one row and not many."""
    if not isinstance(value, dict):
        return False
    return ("role" in value and "content" in value) or ("from" in value and "value" in value)
