"""Splits of the shards: no conversation on both, and copies and counts by source as the manifest says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.shards import map_shard
from schemas.manifest import ShardsManifest, SourceCounts

_COLUMNS = ("conversation_rows", "conversation_starts", "source_ids", "seq_lengths")


def split_problems(folder: Path, manifest: ShardsManifest) -> list[str]:
    """What is wrong with the splits of sound shards, a line each."""
    problems = []
    repeated = 0
    rows_of: dict[str, NDArray[np.int64]] = {}
    for split, records in manifest.splits.items():
        tables = [map_shard(folder, record) for record in records]
        rows, starts, sources, lengths = (_values(tables, name) for name in _COLUMNS)
        _, first = np.unique(rows << 32 | starts, return_index=True)
        copied = int(lengths.sum() - lengths[first].sum())
        repeated += copied
        problems += [
            f"{split}: {problem}" for problem in _pack_problems(tables, rows << 32 | starts, manifest.options.pack)
        ]
        if split != "train" and copied:
            problems.append(f"{split}: holds examples more than once")
        if _counts(rows, sources, lengths, manifest.sources) != manifest.by_source.get(split):
            problems.append(f"{split}: its counts by source are not the manifest's")
        rows_of[split] = np.unique(rows)
    both = np.intersect1d(rows_of["train"], rows_of.get("val", []))
    if len(both):
        problems.append(f"conversation {both[0]}: trained on and held out, as are {len(both) - 1} more")
    if repeated != manifest.ledger.tokens.repeated:
        problems.append("ledger: repeated are not the tokens of second and further copies")
    return [f"{folder}: {problem}; run `dataprep tokenize` again" for problem in problems]


def _pack_problems(tables: list[pa.Table], examples: NDArray[np.int64], pack: str) -> list[str]:
    """What in packs isn't as the option has it; `examples` are numbers that ascend with rows and starts."""
    if pack == "none" and len(examples) != sum(table.num_rows for table in tables):
        return ["a pack doesn't hold one example"]
    most = np.unique(examples, return_counts=True)[1].max(initial=1)
    if pack != "best-fit" and (np.diff(examples) < 0).sum() >= most:  # first copies come first, then second ones
        return ["examples aren't in the order of conversations"]
    return []


def _values(tables: list[pa.Table], name: str) -> NDArray[np.int64]:
    pieces = [to_numpy(batch.column(name).flatten()) for table in tables for batch in table.to_batches()]
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces]).astype(np.int64)


def _counts(
    rows: NDArray[np.int64], sources: NDArray[np.int64], lengths: NDArray[np.int64], names: list[str]
) -> dict[str, SourceCounts]:
    _, first = np.unique(rows, return_index=True)
    conversations, examples = np.bincount(sources[first]).tolist(), np.bincount(sources).tolist()
    tokens = np.bincount(sources, weights=lengths).astype(np.int64).tolist()
    return {
        names[number]: SourceCounts(conversations=conversations[number], examples=count, tokens=tokens[number])
        for number, count in enumerate(examples)
        if count
    }
