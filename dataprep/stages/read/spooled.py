"""A Parquet or Arrow file within an archive in; segments that hold its rows as Arrow batches out.

Such files are read from their end, so the member goes to a temporary file, which has no name and so is never left over.
"""

import tempfile
from collections.abc import Iterator
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.core.errors import first_line
from dataprep.stages.read.arrow import damage_of, opened_batches
from dataprep.stages.read.raw import RawFile, Segment
from dataprep.stages.read.unpack import Fed
from schemas.errors import InputError

_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20


class Lost(NamedTuple):
    """Rows that can't be read: how many, and why."""

    rows: int
    reason: str


def cut_spooled(
    file: RawFile, fed: Fed, columns: tuple[str, ...], segment_bytes: int, segment_rows: int
) -> Iterator[Segment]:
    """Yield batches of `columns`, or of all where there are none of these. Raises InputError for what can't be read."""
    with tempfile.TemporaryFile() as spool:
        while chunk := fed.read(_READ_BYTES):
            spool.write(chunk)
        spool.seek(0)
        if not fed.taken:
            return
        pieces = _parquet_pieces(spool, columns) if file.ending == ".parquet" else _arrow_pieces(spool, columns)
        try:
            yield from _segments(file, pieces, segment_bytes, segment_rows)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = first_line(error)
            raise InputError(
                f"{file.name}: not a whole {file.ending} file: {reason}; write or download it again"
            ) from error


def segment_pieces(segment: Segment) -> Iterator[pa.RecordBatch]:
    """Yield the batches that a segment holds."""
    assert segment.data is not None
    with pa.ipc.open_stream(segment.data) as reader:
        yield from reader


def parquet_sizes(parquet: pq.ParquetFile) -> list[tuple[int, int]]:
    """Give each row group's rows and bytes. Raises ValueError where the file contradicts itself."""
    groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
    sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    names: list[str] = parquet.schema_arrow.names
    if min((rows for rows, _ in sizes), default=0) < 0 or sum(rows for rows, _ in sizes) != parquet.metadata.num_rows:
        raise ValueError(f"its row groups don't add up to its {parquet.metadata.num_rows} rows of {', '.join(names)}")
    return sizes


def parquet_batches(parquet: pq.ParquetFile, group: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """Yield a row group's rows in batches, the fewer a batch the larger they are."""
    metadata = parquet.metadata.row_group(group)
    row_bytes = metadata.total_byte_size // max(1, metadata.num_rows)
    size = max(1, min(_BATCH_ROWS, (8 << 20) // max(1, row_bytes)))
    yield from parquet.iter_batches(batch_size=size, row_groups=[group], columns=columns)


def read_columns(names: list[str], columns: tuple[str, ...]) -> list[str] | None:
    """Choose those of `columns` that there are; None, which is all, where there are none."""
    return [name for name in names if name in columns] or None


def _segments(
    file: RawFile, pieces: Iterator[pa.RecordBatch | Lost], segment_bytes: int, segment_rows: int
) -> Iterator[Segment]:
    held: list[pa.RecordBatch] = []
    first_row = 1

    def segment(kind: str, rows: int, data: bytes) -> Segment:
        return Segment(file=file, kind=kind, start=0, end=0, first_row=first_row, rows=rows, data=data, bytes=0)

    for piece in pieces:
        if not isinstance(piece, Lost):
            held.append(piece)
        rows, size = sum(batch.num_rows for batch in held), sum(batch.nbytes for batch in held)
        if held and (isinstance(piece, Lost) or size >= segment_bytes or rows >= segment_rows):
            yield segment("batches", rows, _as_stream(held))
            first_row, held = first_row + rows, []
        if isinstance(piece, Lost):
            yield segment("lost", piece.rows, piece.reason.encode())
            first_row += piece.rows
    if held:
        yield segment("batches", sum(batch.num_rows for batch in held), _as_stream(held))


def _parquet_pieces(spool: IO[bytes], columns: tuple[str, ...]) -> Iterator[pa.RecordBatch | Lost]:
    with pq.ParquetFile(spool) as parquet:
        names = read_columns(parquet.schema_arrow.names, columns)
        for group, (left, _) in enumerate(parquet_sizes(parquet)):
            try:
                for batch in parquet_batches(parquet, group, names):
                    yield batch
                    left -= batch.num_rows
            except (pa.ArrowException, OSError, ValueError) as error:
                yield Lost(max(0, left), f"row group {group + 1}: {first_line(error)}")


def _arrow_pieces(spool: IO[bytes], columns: tuple[str, ...]) -> Iterator[pa.RecordBatch | Lost]:
    for batch in opened_batches(pa.PythonFile(spool, mode="r"), 0):
        names = read_columns(batch.schema.names, columns)
        chosen = batch.select(names) if names else batch
        if damage := damage_of(chosen):
            yield Lost(batch.num_rows, f"a damaged batch of rows: {damage}")
            continue
        for offset in range(0, chosen.num_rows, _BATCH_ROWS):
            yield chosen.slice(offset, _BATCH_ROWS)


def _as_stream(batches: list[pa.RecordBatch]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())
