"""Cached chunks as files (schemas/example.md): `<key>-<crc>.arrow`, the checksum of its own bytes in each one's name.

A checksum costs a tenth of a second a gigabyte or so, and is looked at whenever a chunk is read: no flipped bit gets
from a chunk into shards.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pyarrow as pa

from dataprep.core.chunks import Chunk
from schemas.files import written_whole

CHUNK_FILE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{8})\.arrow")


def chunk_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a tokens folder by their chunks' keys; none where there is no such folder."""
    files: dict[str, list[Path]] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries):
            if found := CHUNK_FILE.fullmatch(name):
                files.setdefault(found[1], []).append(folder / name)
    return files


def read_chunk(path: Path, rows: int) -> pa.RecordBatch | None:
    """Map the chunk of so many rows; None where its bytes are not those that were written."""
    try:
        with pa.memory_map(str(path)) as source:
            content = source.read_buffer()
        if path.name[-14:-6] != f"{crc32(content):08x}":
            return None
        batch = pa.ipc.open_file(content).get_batch(0)
    except (OSError, pa.ArrowInvalid):
        return None
    return batch if batch.num_rows == rows else None


def read_chunks(folder: Path, chunks: Sequence[Chunk]) -> list[pa.RecordBatch | None]:
    """Map each chunk; None where there is no file of it that is whole."""
    files = chunk_files(folder)
    batches: list[pa.RecordBatch | None] = []
    for chunk in chunks:
        read = (read_chunk(path, chunk.stop - chunk.start) for path in files.get(chunk.key, []))
        batches.append(next((batch for batch in read if batch is not None), None))
    return batches


def write_chunk(folder: Path, key: str, batch: pa.RecordBatch) -> None:
    """Write one chunk of examples, whole or not at all."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(batch)
    content = sink.getvalue()
    path = folder / f"{key}-{crc32(content):08x}.arrow"
    with written_whole(path, durable=False) as temporary:
        temporary.write_bytes(content)
