"""Examples and packs in, lengths, targets and places out; ids are never read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunk_files import open_chunk, sound_files
from dataprep.core.chunks import Chunk, find_chunks, id_digits
from dataprep.core.shards import map_shard
from dataprep.report.figures import Truncation
from dataprep.report.text import Index
from dataprep.tokenize.in_use import tokens_folder
from dataprep.tokenize.targets import keyed_chunks
from schemas.manifest import ShardsManifest

LIMITS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """E examples in P packs of one split, in the order of its shards."""

    name: str
    example_lengths: NDArray[np.int64]  # (E,)
    example_targets: NDArray[np.int64]  # (E,)
    rows: NDArray[np.int64]  # (E,): of conversations/
    packs: NDArray[np.int64]  # (E,): which pack of the split
    pack_tokens: NDArray[np.int64]  # (P,)
    pack_squares: NDArray[np.int64]  # (P,): sum of its examples' squared lengths
    pack_examples: NDArray[np.int64]  # (P,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """E examples of all conversations as they were tokenised; and what truncation would lose."""

    lengths: NDArray[np.int64]  # (E,)
    rows: NDArray[np.int64]  # (E,): of conversations/
    targets: int
    truncation: list[Truncation]


def read_packed(folder: Path, manifest: ShardsManifest) -> list[Packed]:
    """Read the shape of every split. Raises CacheError for a damaged shard."""
    return [_read_split(folder, manifest, name) for name in manifest.splits]


def _read_split(folder: Path, manifest: ShardsManifest, name: str) -> Packed:
    pieces = []
    for record in manifest.splits[name]:
        pieces += [_read_batch(batch) for batch in map_shard(folder, record).to_batches()]
    columns = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    packs = np.repeat(np.arange(len(columns["pack_examples"])), columns["pack_examples"])
    return Packed(name=name, packs=packs, **columns)


def _read_batch(batch: pa.RecordBatch) -> dict[str, NDArray[np.int64]]:
    lists = batch.column("seq_lengths")
    bounds = to_numpy(lists.offsets).astype(np.int64)
    bounds -= bounds[0]
    lengths = to_numpy(lists.flatten()).astype(np.int64)
    ends = np.cumsum(lengths)
    marks = _running(to_numpy(batch.column("assistant_masks").flatten()))
    return {
        "example_lengths": lengths,
        "example_targets": marks[ends] - marks[ends - lengths],
        "rows": to_numpy(batch.column("conversation_rows").flatten()).astype(np.int64),
        "pack_tokens": np.diff(_running(lengths)[bounds]),
        "pack_squares": np.diff(_running(lengths * lengths)[bounds]),
        "pack_examples": np.diff(bounds),
    }


def read_cached(cache: Path, index: Index, manifest: ShardsManifest) -> Cached | None:
    """Find the cached examples that the shards were made of, and measure them; None where they are gone."""
    chunks = keyed_chunks(find_chunks(id_digits(index.ids)), index.names, index.sources, manifest.targets)
    found = _read_folder(tokens_folder(cache, manifest.tokens_fingerprint), chunks)
    return found if found is not None and found.lengths.sum() == manifest.ledger.tokens.tokens else None


def _read_folder(folder: Path, chunks: Sequence[Chunk]) -> Cached | None:
    all_lengths, all_rows = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    lost = np.zeros((len(LIMITS), 3), dtype=np.int64)
    targets = 0
    for chunk, file in zip(chunks, sound_files(folder, chunks), strict=True):
        if file is None:
            return None
        batch = open_chunk(file)
        examples = batch.column("example_lengths")
        own = to_numpy(examples.flatten()).astype(np.int64)
        if batch.num_rows != chunk.stop - chunk.start or own.sum() != len(batch.column("input_ids").flatten()):
            return None
        ends = np.cumsum(own)
        marks = _running(to_numpy(batch.column("assistant_masks").flatten()))
        all_lengths.append(own)
        all_rows.append(np.repeat(np.arange(chunk.start, chunk.stop), np.diff(to_numpy(examples.offsets))))
        targets += int(marks[-1])
        for number, limit in enumerate(LIMITS):
            longer = np.flatnonzero(own > limit)
            beyond = marks[ends[longer]] - marks[ends[longer] - own[longer] + limit]
            lost[number] += (len(longer), int((own[longer] - limit).sum()), int(beyond.sum()))
    truncation = [
        Truncation(limit=limit, conversations=conversations, tokens=tokens, targets=cut)
        for limit, (conversations, tokens, cut) in zip(LIMITS, lost.tolist(), strict=True)
    ]
    return Cached(
        lengths=np.concatenate(all_lengths), rows=np.concatenate(all_rows), targets=targets, truncation=truncation
    )


def _running(values: NDArray[Any]) -> NDArray[np.int64]:
    """Sums of the first 0, 1, 2, … values."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)))
