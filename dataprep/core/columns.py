"""Conversations as columns: flat lists over all messages of a batch, so that stages loop over strings, not dicts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_numpy
from dataprep.core.contents import Contents
from schemas.conversation import chat_messages, chat_tools
from schemas.manifest import ConversationsManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """M messages of C conversations."""

    offsets: NDArray[np.int64]  # (C + 1,): messages of conversation c are [offsets[c], offsets[c + 1])
    role_names: list[str]  # each once
    role_numbers: NDArray[np.int32]  # (M,): places in role_names
    contents: Contents  # (M,)
    trains: list[bool | None] | None  # (M,); None where nothing is set
    rich: NDArray[np.bool_]  # (C,): holds more than roles and contents
    records: dict[int, dict[str, Any]]  # those conversations as records

    def roles(self, row: int) -> tuple[str, ...]:
        """The roles of a conversation's messages."""
        numbers = self.role_numbers[self.offsets[row] : self.offsets[row + 1]]
        return tuple(self.role_names[number] for number in numbers.tolist())


def read_columns(table: pa.Table) -> Columns:
    """Lay out a table of conversations as columns."""
    lists = table.column("messages").combine_chunks()
    offsets = to_numpy(lists.offsets).astype(np.int64)
    messages = lists.flatten()
    offsets -= offsets[0]
    unusual = np.zeros(len(messages), dtype=bool)
    for name in ("reasoning", "tool_calls", "name", "tool_call_id"):
        field = messages.field(name)
        if field.null_count < len(field):
            unusual |= to_numpy(pc.is_valid(field))
    before = np.concatenate(([0], np.cumsum(unusual)))
    rich = before[offsets[1:]] > before[offsets[:-1]]
    if table.column("tools").null_count < len(table):
        rich |= to_numpy(pc.is_valid(table.column("tools")).combine_chunks())
    trains = messages.field("train")
    roles = messages.field("role").dictionary_encode()
    return Columns(
        offsets=offsets,
        role_names=roles.dictionary.to_pylist(),
        role_numbers=to_numpy(roles.indices),
        contents=Contents(messages.field("content")),
        trains=trains.to_pylist() if trains.null_count < len(trains) else None,
        rich=rich,
        records=dict(zip(np.flatnonzero(rich).tolist(), table.filter(to_arrow(rich)).to_pylist(), strict=True)),
    )


def rich_parts(record: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Chat messages and tools of a record."""
    return chat_messages(record["messages"]), chat_tools(record["tools"])


def read_rows(folder: Path, manifest: ConversationsManifest, start: int, stop: int, columns: list[str]) -> pa.Table:
    """Rows [start, stop) of a conversations folder, decoding only the row groups that hold them."""
    tables = [
        table.slice(max(start - first, 0), min(stop, first + len(table)) - max(start, first))
        for first, table in row_groups(folder, manifest, columns, lambda low, high: low < stop and start < high)
    ]
    return pa.concat_tables(tables)


class RowReader:
    """Rows of a conversations folder, read from front to back: no row group is decoded twice where reads meet."""

    def __init__(self, folder: Path, manifest: ConversationsManifest, columns: list[str]) -> None:
        self._folder, self._manifest, self._columns = folder, manifest, columns
        self._last: dict[tuple[int, int], pa.Table] = {}  # the row group of [first, stop) that was decoded last

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop)."""

        def is_missing(low: int, high: int) -> bool:
            return low < stop and start < high and (low, high) not in self._last

        groups = self._last | {
            (first, first + len(table)): table
            for first, table in row_groups(self._folder, self._manifest, self._columns, is_missing)
        }
        bounds = sorted(groups)
        self._last = {bounds[-1]: groups[bounds[-1]]}
        return pa.concat_tables(
            groups[low, high].slice(max(start - low, 0), min(stop, high) - max(start, low))
            for low, high in bounds
            if low < stop and start < high
        )


def row_groups(
    folder: Path, manifest: ConversationsManifest, columns: list[str], wanted: Callable[[int, int], bool] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Row groups of a conversations folder, one after another, each with the number of its first row.

    Only those are decoded of whose rows [low, high) `wanted` holds.
    """
    base = 0
    for part in manifest.parts:
        end = base + part.rows
        if wanted is None or wanted(base, end):
            with pq.ParquetFile(folder / part.file) as file:
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if wanted is None or wanted(base, base + rows):
                        yield base, file.read_row_group(group, columns=columns, use_threads=False)
                    base += rows
        base = end


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, for hashing."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
