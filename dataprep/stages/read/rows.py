"""A segment in, its raw rows out: (number, value, raw), where raw is the line's bytes, or None where there is no line.

A row that can't be parsed costs itself only: its value is then the TurnedAway that says why.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.core.errors import first_line
from dataprep.stages.normalize.convert import KEYS
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.arrow import damage_of, segment_batches
from dataprep.stages.read.delimited import delimited_rows
from dataprep.stages.read.documents import document_rows
from dataprep.stages.read.elements import value_places
from dataprep.stages.read.raw import RawRow, Segment
from dataprep.stages.read.spooled import parquet_batches, read_columns, segment_pieces
from dataprep.stages.read.values import bad_encoding, may_hold_numbers, value_of, values_of
from dataprep.stages.read.wrapped import VIEWER_KEY
from dataprep.stages.retry import quarantined_rows
from schemas.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 1024


def read_rows(segment: Segment, *, columns: tuple[str, ...] = KEYS) -> Iterator[RawRow]:
    """Yield a segment's rows in order; blank lines are none. Raises InputError when the file can't be read.

    Of Parquet and Arrow, `columns` are read; where there are none of these, all, so that a reason can name them.
    """
    try:
        if segment.kind == "parquet":
            yield from _parquet_rows(segment, columns)
        elif segment.kind == "arrow":
            yield from _arrow_rows(segment, columns)
        elif segment.kind in _READERS:
            yield from _READERS[segment.kind](segment)
        else:
            data = _segment_data(segment)
            if segment.kind == "lines":
                yield from _line_rows(data.removeprefix(_BOM) if segment.start == 0 else data, segment.first_row)
            else:
                yield from _json_rows(segment, data)
    except OSError as error:
        raise InputError(f"{segment.file.name}: cannot be read: {error.strerror or error}") from error


def _segment_data(segment: Segment) -> bytes:
    if segment.data is not None:
        return segment.data
    with segment.file.path.open("rb") as file:
        file.seek(segment.start)
        return file.read(segment.end - segment.start)


def _line_rows(data: bytes, first_row: int) -> Iterator[RawRow]:
    careful = may_hold_numbers(data)
    for number, line in enumerate(data.split(b"\n"), first_row):
        if line and not line.isspace():
            yield number, value_of(line, careful), line


def _json_rows(segment: Segment, data: bytes) -> Iterator[RawRow]:
    """Yield JSON values: parsed all at once where none is broken, and else one by one."""
    rows = values_of(data)
    if rows is not None and len(rows) <= segment.rows:
        for number, value in enumerate(rows, segment.first_row):
            yield number, _unwrapped(value, segment.kind), None
        return
    for number, (begin, end) in enumerate(value_places(data, segment.rows), segment.first_row):
        if begin == end:
            continue
        value = value_of(data[begin:end])
        if isinstance(value, TurnedAway):
            line = segment.first_line + data.count(b"\n", 0, begin)
            detail = f"{value.detail}; the row begins at line {line}, byte {segment.start + begin + 1}"
            yield number, TurnedAway(value.reason, detail, value.fix), data[begin:end]
        else:
            yield number, _unwrapped(value, segment.kind), None


def _unwrapped(value: Any, kind: str) -> Any:
    return value.get(VIEWER_KEY, value) if kind == "viewer" and isinstance(value, dict) else value


def _parquet_rows(segment: Segment, wanted: tuple[str, ...]) -> Iterator[RawRow]:
    number = segment.first_row
    with pq.ParquetFile(segment.file.path) as parquet:
        columns = read_columns(parquet.schema_arrow.names, wanted)
        for group in range(segment.start, segment.end):
            end = number + parquet.metadata.row_group(group).num_rows
            try:
                for batch in parquet_batches(parquet, group, columns):
                    for value in _batch_values(batch):
                        yield number, value, None
                        number += 1
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = first_line(error)
                for lost in range(number, end):
                    yield lost, TurnedAway("unreadable-rows", f"row group {group + 1}: {reason}"), None
            number = end


def _spooled_rows(segment: Segment) -> Iterator[RawRow]:
    number = segment.first_row
    for batch in segment_pieces(segment):
        for value in _batch_values(batch):
            yield number, value, None
            number += 1


def _lost_rows(segment: Segment) -> Iterator[RawRow]:
    assert segment.data is not None
    for number in range(segment.first_row, segment.first_row + segment.rows):
        yield number, TurnedAway("unreadable-rows", segment.data.decode()), None


def _arrow_rows(segment: Segment, wanted: tuple[str, ...]) -> Iterator[RawRow]:
    number = segment.first_row
    for batch in segment_batches(segment, wanted):
        if damage := damage_of(batch):
            for _ in range(batch.num_rows):
                yield number, TurnedAway("unreadable-rows", f"a damaged batch of rows: {damage}"), None
                number += 1
            continue
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


def _too_long_rows(segment: Segment) -> Iterator[RawRow]:
    detail = f"the line is {segment.end - segment.start:,} bytes long"
    yield segment.first_row, TurnedAway("too-large", detail), None


_READERS: dict[str, Callable[[Segment], Iterator[RawRow]]] = {
    "batches": _spooled_rows,
    "lost": _lost_rows,
    "too-long": _too_long_rows,
    "quarantine": quarantined_rows,
    "document": document_rows,
    "delimited": delimited_rows,
}
