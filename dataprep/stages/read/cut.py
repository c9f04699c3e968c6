"""An input file in, segments out.

A segment ends where a row ends, so that any process can read it alone. Where it ends follows from the file alone,
never from how many processes there are: that is what makes the output's bytes the same for any number. A file that
can't be entered in the middle is unpacked here, once, and its segments hold their bytes.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.core.errors import first_line
from dataprep.stages.normalize.convert import KEYS
from dataprep.stages.read.arrow import cut_arrow
from dataprep.stages.read.delimited import DELIMITERS, delimited_pieces
from dataprep.stages.read.documents import documents
from dataprep.stages.read.encodings import as_utf8, checked_encoding, encoding_of
from dataprep.stages.read.json_files import cut_json
from dataprep.stages.read.raw import PACKINGS, STDIN, RawFile, Segment
from dataprep.stages.read.sniff import disguised, holds_json
from dataprep.stages.read.spooled import cut_spooled, parquet_sizes
from dataprep.stages.read.unpack import Digest, Fed, unpacked
from schemas.errors import InputError

READ_BYTES = 1 << 20
SEGMENT_BYTES = 8 << 20
SEGMENT_ROWS = 50_000
LONGEST_LINE = 1 << 30  # bytes: no row can hold more

_MAPPED = (".parquet", ".arrow")


def cut(
    file: RawFile, digest: Digest, *, encoding: str | None = None, columns: tuple[str, ...] = KEYS
) -> Iterator[Segment]:
    """Cut a file into segments and feed its bytes to `digest`.

    `encoding` is that of text files, as Python names it; by default it is found out. `columns` are those that are read
    of Parquet and Arrow files in archives, as read_rows does of others; with none of them, all. Raises InputError for
    what can't be opened.
    """
    given = checked_encoding(encoding)
    try:
        if file.ending not in _MAPPED or file.is_streamed:
            with _opened(file) as raw:
                fed = Fed(raw, digest)
                if file.ending in _MAPPED:
                    yield from cut_spooled(file, fed, columns, SEGMENT_BYTES, SEGMENT_ROWS)
                else:
                    yield from _cut_text(file, fed, given)
        elif file.ending == ".parquet":
            yield from _cut_parquet(file, digest)
        else:
            _feed(file.path, digest)
            yield from cut_arrow(file, SEGMENT_BYTES, SEGMENT_ROWS)
    except OSError as error:
        raise InputError(f"{file.name}: cannot be read: {error.strerror or error}") from error


def _opened(file: RawFile) -> AbstractContextManager[BinaryIO]:
    if file.archive:
        return file.archive.opened(file.place, file.bytes)
    if file.remote:
        return file.remote.opened()
    return nullcontext(sys.stdin.buffer) if file.name == STDIN else file.path.open("rb")


def _cut_text(file: RawFile, fed: Fed, encoding: str | None) -> Iterator[Segment]:
    chunks = unpacked(file, fed, READ_BYTES)
    head = next(chunks, b"")
    if kind := disguised(head):
        raise InputError(f"{file.name}: begins as a {kind} file; {_unmasked(file, kind)}")
    chunks = chain([head], chunks)
    encoding = encoding or encoding_of(head)
    if encoding == "utf-8":
        encoding = None
    if encoding:
        chunks = as_utf8(chunks, encoding)
    streamed = bool(encoding or file.packing or file.is_streamed)
    try:
        for segment in _cut_chunks(file, fed, chunks, streamed):
            yield replace(segment, encoding=encoding) if encoding else segment
    except UnicodeError as error:
        raise InputError(f"{file.name}: not in the encoding {encoding}: {error}; give the one that it is in") from error


def _unmasked(file: RawFile, kind: str) -> str:
    if file.name == STDIN:
        return "unpack it before the pipe, or name the file instead of '-'"
    packed = file.ending + kind if kind in PACKINGS else kind
    return "unpack it" if file.packing or file.archive else f"rename it to end in {packed}"


def _cut_chunks(file: RawFile, fed: Fed, chunks: Iterator[bytes], streamed: bool) -> Iterator[Segment]:
    if file.ending in DELIMITERS:
        pieces = delimited_pieces(file, chunks, SEGMENT_BYTES, SEGMENT_ROWS)
        yield from _cut_pieces(file, fed, "delimited", pieces)
        return
    if file.ending == ".txt":
        yield from _cut_pieces(file, fed, "document", ((data, line, 1) for data, line in documents(chunks)))
        return
    head = next(chunks, b"")
    chunks = chain([head], chunks) if head else iter(())
    if holds_json(head, file.ending):
        yield from cut_json(
            file, fed, chunks, streamed=streamed, segment_bytes=SEGMENT_BYTES, segment_rows=SEGMENT_ROWS
        )
    else:
        yield from _cut_lines(file, fed, chunks, streamed)


def _cut_pieces(file: RawFile, fed: Fed, kind: str, pieces: Iterator[tuple[bytes, int, int]]) -> Iterator[Segment]:
    """A segment for each piece of a stream: its bytes, its first row, and its number of rows."""
    start = taken = 0
    for data, first_row, rows in pieces:
        end, share = start + len(data), fed.taken - taken
        yield Segment(
            file=file, kind=kind, start=start, end=end, first_row=first_row, rows=rows, bytes=share, data=data
        )
        start, taken = end, fed.taken


def _cut_lines(file: RawFile, fed: Fed, chunks: Iterator[bytes], streamed: bool) -> Iterator[Segment]:
    """Cut at newlines. A line longer than LONGEST_LINE is passed over, and makes a segment that says so."""
    held = bytearray()  # of a stream: what there is from `start` on
    start = end = position = lines = taken = 0
    first_row, too_long = 1, False

    def segment(stop: int, rows: int) -> Segment:
        return Segment(
            file=file,
            kind="too-long" if too_long else "lines",
            start=start,
            end=stop,
            first_row=first_row,
            rows=rows,
            bytes=fed.taken - taken if streamed else stop - start,
            data=bytes(held[: stop - start]) if streamed else None,
        )

    for chunk in chunks:
        if too_long and (newline := chunk.find(b"\n") + 1):
            yield segment(position + newline, 1)
            start = end = position = position + newline
            first_row, too_long, taken, chunk = first_row + 1, False, fed.taken, chunk[newline:]
        if newlines := chunk.count(b"\n"):
            end = position + chunk.rfind(b"\n") + 1
            lines += newlines
        position += len(chunk)
        if streamed and not too_long:
            held += chunk
        if lines and (end - start >= SEGMENT_BYTES or lines >= SEGMENT_ROWS or position - end > LONGEST_LINE):
            yield segment(end, lines)
            del held[: end - start]
            start, first_row, lines, taken = end, first_row + lines, 0, fed.taken
        if not lines and position - start > LONGEST_LINE:
            too_long = True
            held.clear()
    if position > start:
        yield segment(position, lines + 1)


def _cut_parquet(file: RawFile, digest: Digest) -> Iterator[Segment]:
    _feed(file.path, digest)
    if not file.bytes:
        return
    try:
        with pq.ParquetFile(file.path) as parquet:
            sizes = parquet_sizes(parquet)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{file.name}: not a readable Parquet file: {reason}; write or download it again") from error
    total = max(1, sum(rows for rows, _ in sizes))
    start = rows = size = 0
    first_row = 1
    for index, (group_rows, group_bytes) in enumerate(sizes, 1):
        rows += group_rows
        size += group_bytes
        if size >= SEGMENT_BYTES or rows >= SEGMENT_ROWS or index == len(sizes):
            share = file.bytes * rows // total
            yield Segment(
                file=file, kind="parquet", start=start, end=index, first_row=first_row, rows=rows, bytes=share
            )
            start, first_row, rows, size = index, first_row + rows, 0, 0


def _feed(path: Path, digest: Digest) -> None:
    with path.open("rb") as reader:
        while chunk := reader.read(READ_BYTES):
            digest.update(chunk)
