"""Write: packed examples out of the cached chunks into Arrow shards, in the order that packing gave.

Shards don't hang on each other: worker processes take runs of them, each run in one pass over the chunks. What all
processes hold at once is the same, however many they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_lists, to_numpy
from dataprep.core.workers import run_tasks
from dataprep.stages.fetch import Examples, fetch_tokens
from dataprep.stages.pack import Packing
from schemas.files import sha256_file, written_whole
from schemas.manifest import ShardRecord
from schemas.shard import SHARD

PACKS_PER_BATCH = 256
TOKENS_PER_SHARD = 16 << 20
SHARDS_AT_ONCE = 6  # half a gigabyte of ids and masks in all processes: 100 million tokens
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
    workers: int = 1,
) -> list[ShardRecord]:
    """Write `<stem>-00000-<suffix>.arrow` and on into `folder`, each whole or not at all, but for those in `there`.

    `files` are those of all chunks. No more workers than shards are started.
    """
    shards = [
        _Shard(path=folder / f"{stem}-{number:05d}-{suffix}.arrow", bounds=bounds, tokens=tokens)
        for number, (bounds, tokens) in enumerate(_cut(examples, packing, max(1, TOKENS_PER_SHARD // seq_len)))
    ]
    missing = [shard for shard in shards if shard.path.name not in there]
    workers = max(1, min(workers, len(missing), SHARDS_AT_ONCE))
    runs = _runs(missing, workers)
    most = max((sum(shard.tokens for shard in run) for run in runs), default=0)
    records = dict(there)
    for _, made in run_tasks(_write_run, runs, workers, _prepare, (examples, packing, files, most)):
        records |= {record.file: record for record in made}
    _release()
    return [records[shard.path.name] for shard in shards]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A shard of P packs."""

    path: Path
    bounds: NDArray[np.int64]  # (P + 1,): its pack p is order[bounds[p]:bounds[p + 1]] of the packing
    tokens: int


def _cut(examples: Examples, packing: Packing, packs_per_shard: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The bounds of each shard's packs, and its tokens."""
    ends = np.concatenate(([0], np.cumsum(examples.lengths[packing.order])))
    for first in range(0, len(packing.pack_bounds) - 1, packs_per_shard):
        bounds = packing.pack_bounds[first : first + packs_per_shard + 1]
        yield bounds, int(ends[bounds[-1]] - ends[bounds[0]])


def _runs(shards: Sequence[_Shard], workers: int) -> list[list[_Shard]]:
    """About even runs, as many for each worker, of no more shards than it may hold at once."""
    rounds = -(-len(shards) // (SHARDS_AT_ONCE // workers * workers))
    ends = np.linspace(0, len(shards), rounds * workers + 1).astype(np.int64).tolist()
    return [list(shards[first:end]) for first, end in pairwise(ends) if end > first]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What a process that writes runs of shards holds."""

    examples: Examples
    packing: Packing
    files: Sequence[Path]
    ids: NDArray[np.int32]  # room for the tokens of any run: to touch memory is slow
    mask: NDArray[np.bool_]


_desk: _Desk | None = None  # of this process


def _prepare(examples: Examples, packing: Packing, files: Sequence[Path], most_tokens: int) -> None:
    global _desk
    ids, mask = np.empty(most_tokens, dtype=np.int32), np.empty(most_tokens, dtype=bool)
    _desk = _Desk(examples=examples, packing=packing, files=files, ids=ids, mask=mask)


def _release() -> None:
    global _desk
    _desk = None


def _write_run(shards: list[_Shard]) -> list[ShardRecord]:
    """Write some shards, their tokens fetched in one pass over the chunks."""
    assert _desk is not None
    order = np.concatenate([_desk.packing.order[shard.bounds[0] : shard.bounds[-1]] for shard in shards])
    chosen = _desk.examples[order]
    fetch_tokens(chosen, _desk.files, _desk.ids, _desk.mask)
    work: list[tuple[Path, Examples, NDArray[np.int64], NDArray[np.int32], NDArray[np.bool_]]] = []
    first = token = 0
    for shard in shards:
        own, stop = shard.bounds - shard.bounds[0], token + shard.tokens
        of_shard = chosen[first : first + own[-1]]
        work.append((shard.path, of_shard, own, _desk.ids[token:stop], _desk.mask[token:stop]))
        first, token = first + own[-1], stop
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:  # while one waits for the disk, another hashes
        return list(pool.map(_write_shard, *zip(*work, strict=True)))


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
