"""Write: packed examples out of the cached chunks into Arrow shards, in the order that packing gave."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_lists, to_numpy
from dataprep.stages.fetch import Examples, fetch_tokens
from dataprep.stages.pack import Packing
from schemas.files import sha256_file, written_whole
from schemas.manifest import ShardRecord
from schemas.shard import SHARD

PACKS_PER_BATCH = 256
TOKENS_PER_SHARD = 16 << 20
SHARDS_AT_ONCE = 6  # half a gigabyte of ids and masks: 100 million tokens in one pass over the chunks
_WRITE_THREADS = 2


def write_shards(
    folder: Path,
    stem: str,
    suffix: str,
    examples: Examples,
    packing: Packing,
    seq_len: int,
    files: Sequence[Path],
    there: Mapping[str, ShardRecord],
) -> list[ShardRecord]:
    """Write `<stem>-00000-<suffix>.arrow` and on into `folder`, each whole or not at all, but for those in `there`.

    `files` are those of all chunks.
    """
    packs_per_shard = max(1, TOKENS_PER_SHARD // seq_len)
    firsts = range(0, len(packing.pack_bounds) - 1, packs_per_shard)
    names = [f"{stem}-{number:05d}-{suffix}.arrow" for number in range(len(firsts))]
    records = dict(there)
    missing = [number for number, name in enumerate(names) if name not in there]
    groups = [missing[at : at + SHARDS_AT_ONCE] for at in range(0, len(missing), SHARDS_AT_ONCE)]
    bounds_of = {
        number: packing.pack_bounds[firsts[number] : firsts[number] + packs_per_shard + 1] for number in missing
    }
    tokens_of = _tokens_of(examples, packing, bounds_of)
    most = max((sum(tokens_of[number] for number in group) for group in groups), default=0)
    ids, mask = np.empty(most, dtype=np.int32), np.empty(most, dtype=bool)  # for all groups: to touch memory is slow
    for group in groups:
        chosen = examples[np.concatenate([packing.order[bounds_of[n][0] : bounds_of[n][-1]] for n in group])]
        fetch_tokens(chosen, files, ids, mask)
        work: list[tuple[Path, Examples, NDArray[np.int64], NDArray[np.int32], NDArray[np.bool_]]] = []
        first = token = 0
        for number in group:
            own, stop = bounds_of[number], token + tokens_of[number]
            of_shard = chosen[first : first + own[-1] - own[0]]
            work.append((folder / names[number], of_shard, own - own[0], ids[token:stop], mask[token:stop]))
            first, token = first + len(of_shard.rows), stop
        with ThreadPoolExecutor(_WRITE_THREADS) as pool:  # while one waits for the disk, another hashes
            records |= {record.file: record for record in pool.map(_write_shard, *zip(*work, strict=True))}
    return [records[name] for name in names]


def _tokens_of(examples: Examples, packing: Packing, bounds_of: Mapping[int, NDArray[np.int64]]) -> dict[int, int]:
    """Tokens of each shard."""
    ends = np.concatenate(([0], np.cumsum(examples.lengths[packing.order])))
    return {number: int(ends[own[-1]] - ends[own[0]]) for number, own in bounds_of.items()}


def _record(path: Path, examples: Examples, packs: int, targets: int) -> ShardRecord:
    return ShardRecord(
        file=path.name,
        packs=packs,
        examples=len(examples.rows),
        tokens=int(examples.lengths.sum()),
        targets=targets,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )


def _write_shard(
    path: Path, examples: Examples, bounds: NDArray[np.int64], ids: NDArray[np.int32], mask: NDArray[np.bool_]
) -> ShardRecord:
    """Write one shard."""
    targets = start = 0
    with written_whole(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SHARD) as out:
        for first in range(0, len(bounds) - 1, PACKS_PER_BATCH):
            own = bounds[first : first + PACKS_PER_BATCH + 1]
            chosen = examples[own[0] : own[-1]]
            stop = start + int(chosen.lengths.sum())
            batch = _batch(chosen, own - own[0], ids[start:stop], mask[start:stop])
            targets += int(to_numpy(batch.column("num_targets")).sum())
            out.write_batch(batch)
            start = stop
    return _record(path, examples, len(bounds) - 1, targets)


def _batch(
    examples: Examples, bounds: NDArray[np.int64], ids: NDArray[np.int32], mask: NDArray[np.bool_]
) -> pa.RecordBatch:
    """One record batch of packs; pack p is examples[bounds[p]:bounds[p + 1]]."""
    example_ends = np.cumsum(examples.lengths)
    mask[example_ends - examples.lengths] = False  # nothing predicts the first token of a span
    token_bounds = np.concatenate(([0], example_ends))[bounds]
    targets = np.add.reduceat(mask, token_bounds[:-1], dtype=np.int32)
    tokens, counts = np.diff(token_bounds), np.diff(bounds)
    per_example: list[NDArray[Any]] = [examples.lengths, examples.sources, examples.rows, examples.starts]
    lengths, sources, rows, starts = (to_lists(counts, to_arrow(column.astype(np.int32))) for column in per_example)
    columns = {
        "input_ids": to_lists(tokens, to_arrow(ids)),
        "assistant_masks": to_lists(tokens, to_arrow(mask)),
        "seq_lengths": lengths,
        "num_targets": to_arrow(targets),
        "source_ids": sources,
        "conversation_rows": rows,
        "conversation_starts": starts,
    }
    return pa.record_batch([columns[name] for name in SHARD.names], schema=SHARD)
