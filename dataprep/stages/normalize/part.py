"""A part of conversations/ on disk: record batches in, one Parquet file out, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.conversation import CONVERSATION
from schemas.files import sha256_file, written_whole
from schemas.manifest import Artefact

_DICTIONARY_COLUMNS = ["source", "origin.file", "messages.list.element.role"]


def write_part(path: Path, batches: Iterator[pa.RecordBatch]) -> Artefact | None:
    """Write batches of CONVERSATION to `path`; no file, and None, where there are none."""
    first = next(batches, None)
    if first is None:
        return None
    rows = 0
    with written_whole(path) as temporary, _writer(temporary) as writer:
        while first is not None:
            writer.write_batch(first)
            rows += first.num_rows
            first = next(batches, None)
    return Artefact(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256_file(path))


def drop_rows(path: Path, dropped: NDArray[np.bool_]) -> tuple[Artefact | None, pa.Table]:
    """Write the part anew without the rows that `dropped` (one flag a row) marks; gives those as a table, too.

    Where no row is left the file is removed, and None given for it.
    """
    lost: list[pa.RecordBatch] = []

    def kept() -> Iterator[pa.RecordBatch]:
        start = 0
        with pq.ParquetFile(path) as parquet:
            for batch in (batch for group in range(parquet.num_row_groups) for batch in _group(parquet, group)):
                chosen = pa.array(dropped[start : start + batch.num_rows])
                start += batch.num_rows
                lost.append(batch.filter(chosen))
                own = batch.filter(pa.compute.invert(chosen))
                if own.num_rows:
                    yield own

    artefact = write_part(path, kept())
    if artefact is None:
        path.unlink()
    return artefact, pa.Table.from_batches(lost, schema=CONVERSATION)


def _group(parquet: pq.ParquetFile, group: int) -> list[pa.RecordBatch]:
    return parquet.read_row_group(group).cast(CONVERSATION).combine_chunks().to_batches()


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        CONVERSATION,
        compression="lz4",  # read as fast as nothing packed; Zstandard takes a quarter less room
        use_dictionary=_DICTIONARY_COLUMNS,
        write_statistics=False,
    )
