"""Cached chunks as files (schemas/example.md): `<key>-<crc>.arrow`, the checksum of its own bytes in each one's name.

A checksum costs a tenth of a second a gigabyte or so, and is looked at whenever a chunk is read: no flipped bit gets
from a chunk into shards.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pyarrow as pa

from dataprep.core.chunks import Chunk
from schemas.errors import CacheError
from schemas.files import written_whole

_CHECK_THREADS = 4
_MAGIC_BYTES = 8
CHUNK_FILE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{8})\.arrow")


def chunk_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a tokens folder by their chunks' keys; none where there is no such folder."""
    files: dict[str, list[Path]] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries):
            if found := CHUNK_FILE.fullmatch(name):
                files.setdefault(found[1], []).append(folder / name)
    return files


def open_chunk(path: Path) -> pa.RecordBatch:
    """Map a chunk for as long as the batch is held. Raises CacheError where it can't be read."""
    try:
        return _batch(_mapped(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise CacheError(f"{path}: damaged or gone since it was checked; run the command again") from error


def sound_files(folder: Path, chunks: Sequence[Chunk]) -> list[Path | None]:
    """The file of each chunk whose bytes are those that were written; None where there is none."""
    files = chunk_files(folder)

    def sound_file(chunk: Chunk) -> Path | None:
        rows = chunk.stop - chunk.start
        return next((path for path in files.get(chunk.key, []) if is_sound(path, rows)), None)

    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        return list(pool.map(sound_file, chunks))


def damaged_chunks(folder: Path) -> list[Path]:
    """The files of a tokens folder whose bytes are not those that were written."""
    paths = [path for own in chunk_files(folder).values() for path in own]

    def is_damaged(path: Path) -> bool:
        try:
            return not _has_own_checksum(path, _mapped(path))
        except OSError:  # so is an empty file
            return True

    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        return [path for path, bad in zip(paths, pool.map(is_damaged, paths), strict=True) if bad]


def is_sound(path: Path, rows: int) -> bool:
    """Whether this is a chunk of so many rows, and its bytes are those that were written."""
    try:
        content = _mapped(path)
        return _has_own_checksum(path, content) and bool(_batch(content).num_rows == rows)
    except (OSError, pa.ArrowInvalid):
        return False


def _has_own_checksum(path: Path, content: pa.Buffer) -> bool:
    return path.name[-14:-6] == f"{crc32(content):08x}"


def _mapped(path: Path) -> pa.Buffer:
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _batch(content: pa.Buffer) -> pa.RecordBatch:
    """The batch of a file, read as the stream that follows its magic: Arrow's file reader takes four times as long."""
    return pa.ipc.open_stream(content.slice(_MAGIC_BYTES)).read_next_batch()


def write_chunk(folder: Path, key: str, batch: pa.RecordBatch) -> Path:
    """Write one chunk of examples, whole or not at all; returns its file."""
    return write_chunk_file(folder, *chunk_file(key, batch))


def chunk_file(key: str, batch: pa.RecordBatch) -> tuple[str, pa.Buffer]:
    """The name and the bytes of the file that a chunk of examples becomes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(batch)
    content = sink.getvalue()
    return f"{key}-{crc32(content):08x}.arrow", content


def write_chunk_file(folder: Path, name: str, content: pa.Buffer) -> Path:
    """Write a chunk's file, whole or not at all; returns it."""
    path = folder / name
    with written_whole(path, durable=False) as temporary:
        temporary.write_bytes(content)
    return path
