"""Survey: what the chunks of a corpus hold, each looked through once: those in the cache first, then each that is made.

Worker processes check and look through those that are there. What is made is looked through here while workers make
more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.chunk_files import chunk_files, is_sound, open_chunk
from dataprep.core.chunks import Chunk
from dataprep.core.workers import num_cores, run_tasks
from dataprep.stages.select import Selection, Spans, select_spans, selection_of
from dataprep.tokenize.fill import num_rows
from dataprep.tokenize.ledger import RowCounts
from schemas.manifest import PackOptions

_CHUNKS_AT_ONCE = 128
_MIN_ROWS_PER_WORKER = 50_000  # below this, starting another worker costs more than it saves


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Some chunks of a corpus, by their numbers."""

    files: dict[int, Path]
    spans: Spans
    counts: RowCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """What worker processes look through."""

    chunks: Sequence[Chunk]
    files: Mapping[str, list[Path]]
    options: PackOptions


_cache: _Cache | None = None  # of this process


def survey_cache(
    folder: Path, chunks: Sequence[Chunk], options: PackOptions, workers: int | None = None
) -> list[Survey]:
    """Look through those of all chunks whose files' bytes are those that were written."""
    files = chunk_files(folder)
    there = [number for number, chunk in enumerate(chunks) if chunk.key in files]
    rows = num_rows([chunks[number] for number in there])
    tasks = [there[first : first + _CHUNKS_AT_ONCE] for first in range(0, len(there), _CHUNKS_AT_ONCE)]
    workers = min(workers or num_cores(), rows // _MIN_ROWS_PER_WORKER)
    found = [one for _, one in run_tasks(_survey, tasks, workers, _prepare, (chunks, files, options))]
    _release()
    return found


def survey(made: Iterable[tuple[int, Chunk, Path]], options: PackOptions) -> Survey:
    """Look through chunks, each given with its number and its file. Raises CacheError where one can't be read."""
    files, counts = {}, RowCounts()

    def batches() -> Iterator[tuple[int, Chunk, pa.RecordBatch]]:
        for number, chunk, path in made:
            files[number] = path
            batch = open_chunk(path)
            counts.add(batch)
            yield number, chunk, batch

    return Survey(spans=select_spans(batches(), options), counts=counts, files=files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """All chunks of a corpus."""

    files: list[Path]
    selection: Selection
    counts: RowCounts


def joined(parts: Sequence[Survey], sources: NDArray[np.int32]) -> Surveyed:
    """What all chunks hold, of surveys that have each of them once; their spans are let go."""
    files: dict[int, Path] = {}
    counts = RowCounts()
    for part in parts:
        files |= part.files
        counts.join(part.counts)
    return Surveyed(
        files=[files[number] for number in range(len(files))],
        selection=selection_of([part.spans for part in parts], sources),
        counts=counts,
    )


def _prepare(chunks: Sequence[Chunk], files: Mapping[str, list[Path]], options: PackOptions) -> None:
    global _cache
    _cache = _Cache(chunks=chunks, files=files, options=options)


def _release() -> None:
    global _cache
    _cache = None


def _survey(numbers: list[int]) -> Survey:
    assert _cache is not None
    return survey(_sound(_cache, numbers), _cache.options)


def _sound(cache: _Cache, numbers: list[int]) -> Iterator[tuple[int, Chunk, Path]]:
    for number in numbers:
        chunk = cache.chunks[number]
        rows = chunk.stop - chunk.start
        if path := next((path for path in cache.files[chunk.key] if is_sound(path, rows)), None):
            yield number, chunk, path
