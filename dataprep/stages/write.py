"""Write: packed examples out of the cached chunks into Arrow shards, in the order that packing gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_lists, to_numpy
from dataprep.stages.pack import Packing
from schemas.files import sha256_file, written_whole
from schemas.manifest import ShardRecord
from schemas.shard import SHARD

PACKS_PER_BATCH = 256
TOKENS_PER_SHARD = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """E examples as spans of cached conversations; arrays are (E,)."""

    rows: NDArray[np.int64]  # row of conversations/
    starts: NDArray[np.int64]  # first token of the span in its conversation
    lengths: NDArray[np.int64]
    sources: NDArray[np.int32]
    chunks: NDArray[np.int64]  # which cached chunk
    places: NDArray[np.int64]  # first token of the span in that chunk

    def __getitem__(self, chosen: Any) -> "Examples":
        """The chosen examples."""
        return Examples(**{name: getattr(self, name)[chosen] for name in self.__slots__})


def write_shards(
    folder: Path,
    stem: str,
    suffix: str,
    examples: Examples,
    packing: Packing,
    seq_len: int,
    chunks: Sequence[pa.RecordBatch],
    there: Mapping[str, ShardRecord],
) -> list[ShardRecord]:
    """Write `<stem>-00000-<suffix>.arrow` and on into `folder`, each whole or not at all, but for those in `there`."""
    packs_per_shard = max(1, TOKENS_PER_SHARD // seq_len)
    records = []
    for number, first in enumerate(range(0, len(packing.pack_bounds) - 1, packs_per_shard)):
        path = folder / f"{stem}-{number:05d}-{suffix}.arrow"
        if path.name in there:
            records.append(there[path.name])
            continue
        bounds = packing.pack_bounds[first : first + packs_per_shard + 1]
        chosen = examples[packing.order[bounds[0] : bounds[-1]]]
        targets = _write_shard(path, chosen, bounds - bounds[0], chunks)
        records.append(
            ShardRecord(
                file=path.name,
                packs=len(bounds) - 1,
                examples=len(chosen.rows),
                tokens=int(chosen.lengths.sum()),
                targets=targets,
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
            )
        )
    return records


def _write_shard(path: Path, examples: Examples, bounds: NDArray[np.int64], chunks: Sequence[pa.RecordBatch]) -> int:
    """Write one shard; returns its number of targets."""
    targets = 0
    with written_whole(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SHARD) as out:
        for first in range(0, len(bounds) - 1, PACKS_PER_BATCH):
            own = bounds[first : first + PACKS_PER_BATCH + 1]
            batch = _batch(examples[own[0] : own[-1]], own - own[0], chunks)
            targets += int(to_numpy(batch.column("num_targets")).sum())
            out.write_batch(batch)
    return targets


def _batch(examples: Examples, bounds: NDArray[np.int64], chunks: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One record batch of packs; pack p is examples[bounds[p]:bounds[p + 1]]."""
    ids, masks = [], []
    values = {
        chunk: [chunks[chunk].column(name).values for name in ("input_ids", "assistant_masks")]
        for chunk in set(examples.chunks.tolist())
    }
    for chunk, place, length in zip(
        examples.chunks.tolist(), examples.places.tolist(), examples.lengths.tolist(), strict=True
    ):
        chunk_ids, chunk_masks = values[chunk]
        ids.append(chunk_ids.slice(place, length))
        masks.append(chunk_masks.slice(place, length))
    example_ends = np.cumsum(examples.lengths)
    mask = to_numpy(pa.concat_arrays(masks))
    mask[example_ends - examples.lengths] = False  # nothing predicts the first token of a span
    token_bounds = np.concatenate(([0], example_ends))[bounds]
    targets = np.add.reduceat(mask, token_bounds[:-1], dtype=np.int32)
    tokens, counts = np.diff(token_bounds), np.diff(bounds)
    per_example: list[NDArray[Any]] = [examples.lengths, examples.sources, examples.rows, examples.starts]
    lengths, sources, rows, starts = (to_lists(counts, to_arrow(column.astype(np.int32))) for column in per_example)
    columns = {
        "input_ids": to_lists(tokens, pa.concat_arrays(ids)),
        "assistant_masks": to_lists(tokens, to_arrow(mask)),
        "seq_lengths": lengths,
        "num_targets": to_arrow(targets),
        "source_ids": sources,
        "conversation_rows": rows,
        "conversation_starts": starts,
    }
    return pa.record_batch([columns[name] for name in SHARD.names], schema=SHARD)
