"""A folder of shards in, packs out: mapped, never copied or read ahead. What does not fit its manifest is refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.errors import CacheError
from schemas.manifest import ShardRecord, ShardsManifest, read_shards_manifest
from schemas.shard import SHARD

REBUILD = "run `dataprep tokenize` again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """One row of a shard, as views of the mapped file."""

    input_ids: np.ndarray  # int32
    is_target: np.ndarray  # bool, as long
    seq_lengths: np.ndarray  # int32, sums to as much


class Packs:
    """The packs of one split, in the order of its shards. Opening reads only the offsets and counts of the packs."""

    def __init__(self, batches: list[pa.RecordBatch]) -> None:
        self._batches = batches
        # first pack of each record batch, and one past the last: 256 packs each -> [0, 256, 512, …]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        counts = [batch.column("num_targets").to_numpy() for batch in batches]
        self.num_targets = np.concatenate(counts) if counts else np.zeros(0, dtype=np.int32)
        lengths = [np.diff(batch.column("input_ids").offsets.to_numpy()) for batch in batches]
        self.num_tokens = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Pack:
        at = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, row = self._batches[at], index - int(self._starts[at])
        return Pack(
            input_ids=_values(batch, "input_ids", row).to_numpy(),
            is_target=_values(batch, "assistant_masks", row).to_numpy(zero_copy_only=False),
            seq_lengths=_values(batch, "seq_lengths", row).to_numpy(),
        )

    def source_ids(self, index: int) -> np.ndarray:
        """Of each example of a pack, which of the manifest's sources it is from."""
        at = int(np.searchsorted(self._starts, index, side="right")) - 1
        return _values(self._batches[at], "source_ids", index - int(self._starts[at])).to_numpy()

    @cached_property
    def squares(self) -> np.ndarray:
        """Of each pack the sum of its examples' squared lengths, by which attention grows; reads all lengths once."""
        sums = [np.zeros(0, dtype=np.int64)]
        for batch in self._batches:
            column = batch.column("seq_lengths")
            ends = np.concatenate([[0], np.cumsum(column.flatten().to_numpy().astype(np.int64) ** 2)])
            offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
            sums.append(np.diff(ends[offsets]))
        return np.concatenate(sums)

    @property
    def heaviest(self) -> int:
        """The pack with the most tokens, and of those the one with the most targets."""
        return int(np.lexsort((self.num_targets, self.num_tokens))[-1])

    def largest_id(self) -> int:
        """The largest token id of all packs; reads every token."""
        return max(int(np.max(batch.column("input_ids").flatten().to_numpy(), initial=0)) for batch in self._batches)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shards:
    """A folder that `dataprep tokenize` finished."""

    folder: Path
    manifest: ShardsManifest
    train: Packs
    val: Packs | None

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder, chat template included."""
        return self.folder / self.manifest.tokenizer.folder


def find_shards(path: Path) -> Path:
    """The folder of shards: `path` itself, or its subfolder shards/ where `path` is a whole cache."""
    return path if path.name == "shards" or (path / "manifest.json").is_file() else path / "shards"


def open_shards(path: Path) -> Shards:
    """Map the shards under `path` (a cache, or its folder shards/).

    Raises CacheError when there are none yet, or a file is missing, of another size, or not as its manifest says.
    """
    folder = find_shards(path)
    manifest = read_shards_manifest(folder)
    tokenizer = folder / manifest.tokenizer.folder
    if not (tokenizer / "tokenizer_config.json").is_file():
        raise CacheError(f"{tokenizer}: the tokenizer's files are missing; {REBUILD}")
    train = _open_split(folder, manifest.splits.get("train", []))
    if len(train) == 0:
        raise CacheError(
            f"{folder}: holds no packs to train on; give `dataprep tokenize` more rows or a longer --seq-len"
        )
    val = _open_split(folder, manifest.splits.get("val", []))
    return Shards(folder=folder, manifest=manifest, train=train, val=val if len(val) else None)


def _open_split(folder: Path, records: list[ShardRecord]) -> Packs:
    return Packs([batch for record in records for batch in _open_shard(folder / record.file, record)])


def _open_shard(path: Path, record: ShardRecord) -> Iterator[pa.RecordBatch]:
    if not path.is_file():
        raise CacheError(f"{path}: named in manifest.json but missing; {REBUILD}")
    if (size := path.stat().st_size) != record.bytes:
        raise CacheError(f"{path}: is {size} bytes, manifest.json says {record.bytes}; {REBUILD}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise CacheError(f"{path}: not an Arrow file: {error}; {REBUILD}".replace("\n", " ")) from error
    if not reader.schema.equals(SHARD):
        raise CacheError(f"{path}: its columns are not those of a shard; {REBUILD}")
    if (rows := sum(batch.num_rows for batch in batches)) != record.packs:
        raise CacheError(f"{path}: holds {rows} packs, manifest.json says {record.packs}; {REBUILD}")
    yield from batches


def _values(batch: pa.RecordBatch, column: str, row: int) -> pa.Array:
    """The values of one list of a list column, without boxing it."""
    array = batch.column(column)
    start, end = array.offsets[row].as_py(), array.offsets[row + 1].as_py()
    return array.values.slice(start, end - start)
