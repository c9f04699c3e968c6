"""An Arrow file or stream, as `datasets` saves them, in; segments and their rows out. It is mapped, not copied."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa

from dataprep.core.errors import first_line
from dataprep.stages.read.raw import RawFile, Segment
from schemas.errors import InputError

_MAGIC = b"ARROW1"


def cut_arrow(file: RawFile, segment_bytes: int, segment_rows: int) -> Iterator[Segment]:
    """Cut at rows; a segment's `start` is the batch that it begins in, and `end` the row within that batch.

    Raises InputError for a file that can't be read to its end: how many rows are lost can't be told.
    """
    if not file.bytes:
        return
    try:
        sizes = [(batch.num_rows, batch.nbytes) for batch in _batches(file.path, 0)]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{file.name}: not a whole Arrow file: {reason}; write or download it again") from error
    total = max(1, sum(rows for rows, _ in sizes))
    begin, rows, size, first_row = (0, 0), 0, 0, 1
    for index, (num_rows, num_bytes) in enumerate(sizes):
        step = max(1, min(segment_rows, num_rows * segment_bytes // max(1, num_bytes)))
        for offset in range(0, num_rows, step):
            if rows >= segment_rows or size >= segment_bytes:
                yield _segment(file, begin, first_row, rows, total)
                begin, rows, size, first_row = (index, offset), 0, 0, first_row + rows
            taken = min(step, num_rows - offset)
            rows += taken
            size += num_bytes * taken // num_rows
    if rows:
        yield _segment(file, begin, first_row, rows, total)


def segment_batches(segment: Segment, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Yield a segment's rows as batches of those of `columns` that there are; where there are none, of all."""
    left, offset = segment.rows, segment.end
    for batch in _batches(segment.file.path, segment.start):
        piece = batch.slice(offset, left)
        names = [name for name in batch.schema.names if name in columns]
        if piece.num_rows:
            yield piece.select(names) if names else piece
        left, offset = left - piece.num_rows, 0
        if not left:
            return


def damage_of(batch: pa.RecordBatch) -> str:
    """Say what is wrong with a batch that reading would crash on, nothing where it can be read row by row.

    Text that is not UTF-8 is no such damage.
    """
    try:
        batch.validate(full=True)
        return ""
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error)
        if "UTF" not in reason:
            return reason
    try:
        for column in batch.columns:
            _with_bytes(column).validate(full=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        return first_line(error)
    return ""


def _with_bytes(array: pa.Array) -> pa.Array:
    """Take an array's text for bytes, without a look at them."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.view(pa.binary() if pa.types.is_string(kind) else pa.large_binary())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
        array.validate()
        return make.from_arrays(array.offsets, _with_bytes(array.values))
    if pa.types.is_struct(kind):
        fields = [_with_bytes(array.field(index)) for index in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, names=[f"{index}" for index in range(kind.num_fields)])
    return array


def _segment(file: RawFile, begin: tuple[int, int], first_row: int, rows: int, total: int) -> Segment:
    share = file.bytes * rows // total
    return Segment(file=file, kind="arrow", start=begin[0], end=begin[1], first_row=first_row, rows=rows, bytes=share)


def opened_batches(source: pa.NativeFile, first: int) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an open Arrow file or stream from number `first` on."""
    is_file = source.read(len(_MAGIC)) == _MAGIC
    source.seek(0)
    if is_file:
        reader = pa.ipc.open_file(source)
        for index in range(first, reader.num_record_batches):
            yield _valid(reader.get_batch(index))
        return
    stream = pa.ipc.open_stream(source)
    for index in count():
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            return
        if index >= first:
            yield _valid(batch)


def _batches(path: Path, first: int) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        yield from opened_batches(source, first)


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate()
    return batch
