"""Reading shards back: map one, and find packs and examples in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from schemas.errors import CacheError
from schemas.manifest import ShardRecord, ShardsManifest
from schemas.shard import SHARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One row of a shard, as arrays over its tokens and over its examples."""

    input_ids: NDArray[np.int32]
    targets: NDArray[np.bool_]
    seq_lengths: NDArray[np.int32]
    num_targets: int
    source_ids: NDArray[np.int32]
    conversation_rows: NDArray[np.int32]
    conversation_starts: NDArray[np.int32]

    def bounds(self) -> list[tuple[int, int]]:
        """First and one past the last token of each example."""
        ends = np.cumsum(self.seq_lengths)
        return list(zip((ends - self.seq_lengths).tolist(), ends.tolist(), strict=True))


def map_shard(folder: Path, record: ShardRecord) -> pa.Table:
    """Map a shard's packs. Raises CacheError where the file is missing, damaged or of another schema."""
    path = folder / record.file
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise CacheError(f"{path}: missing or damaged; run `dataprep tokenize` again") from error
    if not table.schema.equals(SHARD):
        raise CacheError(f"{path}: its columns are not those of a shard; run `dataprep tokenize` again")
    return table


def read_pack(table: pa.Table, row: int) -> Pack:
    """Pack `row` of a mapped shard."""
    record = {name: table.column(name)[row] for name in SHARD.names}
    num_targets = record.pop("num_targets").as_py()
    arrays = {name: to_numpy(value.values) for name, value in record.items()}
    return Pack(targets=arrays.pop("assistant_masks"), num_targets=num_targets, **arrays)


def all_packs(folder: Path, manifest: ShardsManifest) -> Iterator[tuple[str, int, Pack]]:
    """Every pack with its shard's file name and its row there, splits in order."""
    for records in manifest.splits.values():
        for record in records:
            table = map_shard(folder, record)
            for row in range(table.num_rows):
                yield record.file, row, read_pack(table, row)


def shards_folder(cache: Path) -> Path:
    """The shards of a cache, which may be given as the cache or as its shards/ folder."""
    return cache if (cache / "manifest.json").is_file() and not (cache / "shards").is_dir() else cache / "shards"
