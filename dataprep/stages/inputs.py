"""Paths in, input files and segments out: what `dataprep normalize` was given, found, checked and cut for reading.

A segment ends where a row ends, so that any process can read it alone. Where it ends follows from the file alone,
never from how many processes there are: that is what makes the output's bytes the same for any number.
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError

ENDINGS = (".jsonl", ".json", ".parquet")
READ_BYTES = 1 << 20
SEGMENT_BYTES = 8 << 20
SEGMENT_ROWS = 50_000


class Digest(Protocol):
    """A hashlib object, fed while the file is read for cutting."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFile:
    """One input file."""

    path: Path
    name: str  # the path as the user gave it, with forward slashes
    source: str  # the file's name without its ending
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Part of one input file: bytes `start` to `end` of lines, those row groups of Parquet, or a whole .json."""

    file: RawFile
    kind: str  # lines | json | parquet
    start: int
    end: int
    first_row: int  # from 1
    rows: int  # at most so many; 0 where that is not known before reading
    bytes: int  # its share of the file


def find_files(inputs: list[str], *, leave_out: Path) -> list[RawFile]:
    """Resolve files, folders and globs to data files, each once, in the order given and sorted within.

    Hidden files and the folder `leave_out` are passed over in folders and globs. Raises InputError.
    """
    found: dict[Path, RawFile] = {}
    for given in inputs:
        for path in _matches(given, leave_out.resolve()):
            found.setdefault(path.resolve(), _raw_file(path))
    return list(found.values())


def cut(file: RawFile, digest: Digest) -> Iterator[Segment]:
    """Cut a file into segments and feed its bytes to `digest`. Raises InputError for what can't be opened."""
    try:
        if file.path.suffix.lower() == ".parquet":
            yield from _cut_parquet(file, digest)
        elif file.path.suffix.lower() == ".json" and not _holds_lines(file.path):
            _feed(file.path, digest)
            if file.bytes:
                yield Segment(file=file, kind="json", start=0, end=file.bytes, first_row=1, rows=0, bytes=file.bytes)
        else:
            yield from _cut_lines(file, digest)
    except OSError as error:
        raise InputError(f"{file.name}: cannot be read: {error.strerror or error}") from error


def _matches(given: str, leave_out: Path) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        files = list(_walk(path, leave_out))
        if not files:
            raise InputError(f"{given}: no {_endings()} file in this folder; name a folder or file that holds rows")
        return files
    if os.path.lexists(path):
        if path.suffix.lower() not in ENDINGS:
            raise InputError(f"{given}: cannot tell the kind of file by its ending; rename it to end in {_endings()}")
        return [path]
    if not glob.has_magic(given):
        raise InputError(f"{given}: no such file or folder; check the path (from {Path.cwd()})")
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = [
        path
        for path in matches
        if path.suffix.lower() in ENDINGS and not path.is_dir() and leave_out not in path.resolve().parents
    ]
    if not files:
        raise InputError(f"{given}: no {_endings()} file matches; check the pattern (from {Path.cwd()})")
    return files


def _walk(folder: Path, leave_out: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(parent).resolve() == leave_out:
            folders.clear()
            continue
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS:
                yield Path(parent) / name


def _raw_file(path: Path) -> RawFile:
    name = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise InputError(f"{name}: not a regular file; write the rows to a file first")
    return RawFile(path=path, name=name, source=PurePath(name).stem, bytes=size)


def _endings() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


def _holds_lines(path: Path) -> bool:
    """Tell whether a .json file holds one JSON value a line: its first line is whole, and more follows.

    Where the first line is broken but begins an object, the second decides.
    """
    with path.open("rb") as file:
        lines = [line.strip() for line in file.read(READ_BYTES).removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    lines = [line for line in lines if line][:2]
    if len(lines) < 2:
        return False
    return _is_value(lines[0]) or (lines[0].startswith(b"{") and _is_value(lines[1]))


def _is_value(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict | list)
    except ValueError:
        return False


def _cut_lines(file: RawFile, digest: Digest) -> Iterator[Segment]:
    start = position = end = lines = 0
    first_row = 1
    with file.path.open("rb") as reader:
        while chunk := reader.read(READ_BYTES):
            digest.update(chunk)
            newlines = chunk.count(b"\n")
            if newlines:
                end = position + chunk.rfind(b"\n") + 1
                lines += newlines
            position += len(chunk)
            if newlines and (end - start >= SEGMENT_BYTES or lines >= SEGMENT_ROWS):
                yield _lines_segment(file, start, end, first_row, lines)
                start, first_row, lines = end, first_row + lines, 0
    if position > start:
        yield _lines_segment(file, start, position, first_row, lines + 1)


def _lines_segment(file: RawFile, start: int, end: int, first_row: int, rows: int) -> Segment:
    return Segment(file=file, kind="lines", start=start, end=end, first_row=first_row, rows=rows, bytes=end - start)


def _cut_parquet(file: RawFile, digest: Digest) -> Iterator[Segment]:
    _feed(file.path, digest)
    if not file.bytes:
        return
    try:
        with pq.ParquetFile(file.path) as parquet:
            groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
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
