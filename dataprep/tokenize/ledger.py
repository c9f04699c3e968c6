"""The account of `dataprep tokenize`: rows and tokens by what became of them, counts by source, the quarantine file.

What a recipe leaves out is counted and not listed one by one: that was asked for, and may be most of a corpus.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dataprep.core.arrays import to_numpy
from dataprep.core.columns import row_groups
from dataprep.stages.select import TOO_LONG, Selection
from dataprep.stages.sides import EQUAL, Side, Sides
from dataprep.stages.tokenize import FIXES
from schemas.files import sha256_file, write_text_whole
from schemas.manifest import Artefact, ConversationsManifest, Ledger, ShardRecord, SourceCounts, TokenLedger, TurnLedger

_FIXES = FIXES | {
    TOO_LONG: "raise --seq-len, or pass --overflow split",
    EQUAL: "nothing to mend: it is held out where it equals one of a --val-source",
}
_EQUAL_DETAIL = "its content is that of a conversation held out by --val-source"


def close_ledger(
    source: ConversationsManifest,
    selection: Selection,
    sides: Sides,
    splits: dict[str, list[ShardRecord]],
    counts: "RowCounts",
) -> Ledger:
    """Account for every row and token."""
    records = [record for shards in splits.values() for record in shards]
    targets, packed = sum(r.targets for r in records), sum(r.tokens for r in records)
    repeated = sum(int(side.examples.lengths[side.copies > 0].sum()) for side in sides.splits.values())
    cut = selection.cut | sides.left_out_tokens
    assert packed + sum(cut.values()) == selection.tokens + repeated, "every token is packed or counted as cut"
    reasons = Counter(source.turned_away) + Counter(reason for reason, _ in selection.turned_away.values())
    reasons.update({reason: len(rows) for reason, rows in sides.left_out.items()})
    num_left_out = sum(map(len, sides.left_out.values()))
    return Ledger(
        rows=source.rows,
        branched=source.branched,
        joined=source.joined,
        kept=source.kept - len(selection.turned_away) - num_left_out,
        turned_away=dict(sorted(reasons.items())),
        tokens=TokenLedger(
            tokens=selection.tokens, repeated=repeated, targets=targets, context=packed - targets, cut=cut
        ),
        turns=counts.turns(),
        notes=counts.notes(),
    )


class RowCounts:
    """Sums of what the cached chunks tell of their conversations."""

    def __init__(self) -> None:
        self._names: dict[str, Counter[str]] = {
            name: Counter() for name in ("differing_turns", "left_out_turns", "prompts")
        }
        self._sums: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        """Count what is in a chunk."""
        for name, counter in self._names.items():
            for key, number in _sums(batch.column(name)):
                counter[key] += number
        for name in ("trained_turns", "remaining_turns", "exact_tokens"):
            self._sums[name] += int(to_numpy(batch.column(name)).sum(dtype=np.int64))
        self._notes.update(batch.column("notes").flatten().to_pylist())

    def join(self, other: "RowCounts") -> None:
        """Add what was counted in other chunks."""
        for name, counter in self._names.items():
            counter.update(other._names[name])
        self._sums.update(other._sums)
        self._notes.update(other._notes)

    def notes(self) -> dict[str, int]:
        """Conversations by the notes on them."""
        return dict(sorted(self._notes.items()))

    def turns(self) -> TurnLedger:
        """What the conversations' turns come to."""
        by_name = {name: dict(sorted(counter.items())) for name, counter in self._names.items()}
        return TurnLedger(
            trained=self._sums["trained_turns"],
            differing=by_name["differing_turns"],
            left_out=by_name["left_out_turns"],
            prompts=by_name["prompts"],
            exact_differing=self._sums["remaining_turns"],
            exact_tokens=self._sums["exact_tokens"],
        )


def _sums(maps: pa.MapArray) -> list[tuple[str, int]]:
    """Each key of maps with the sum of its numbers."""
    if not len(maps.keys):
        return []
    keys = maps.keys.dictionary_encode()
    sums = np.bincount(to_numpy(keys.indices), weights=to_numpy(maps.items))
    return list(zip(keys.dictionary.to_pylist(), sums.astype(np.int64).tolist(), strict=True))


def count_by_source(side: Side, names: Sequence[str]) -> dict[str, SourceCounts]:
    """What each source gives to a split; those that give nothing aren't in it."""
    sources = side.examples.sources
    first = (side.copies == 0) & (np.diff(side.examples.rows, prepend=-1) != 0)
    conversations = np.bincount(sources[first], minlength=len(names)).tolist()
    examples = np.bincount(sources, minlength=len(names)).tolist()
    tokens = np.bincount(sources, weights=side.examples.lengths, minlength=len(names)).astype(np.int64).tolist()
    return {
        name: SourceCounts(conversations=conversations[i], examples=examples[i], tokens=tokens[i])
        for i, name in enumerate(names)
        if examples[i]
    }


def write_quarantine(
    path: Path, conversations: Path, source: ConversationsManifest, selection: Selection, sides: Sides
) -> Artefact:
    """Write a line for each conversation that was turned away here, in the order of rows."""
    equal = dict.fromkeys(sides.left_out.get(EQUAL, np.empty(0)).tolist(), (EQUAL, _EQUAL_DETAIL))
    turned_away = selection.turned_away | equal
    lines = []
    for row, record in _records(conversations, source, sorted(turned_away)):
        reason, detail = turned_away[row]
        line = {**record["origin"], "id": record["id"], "reason": reason, "detail": detail, "fix": _FIXES[reason]}
        lines.append(orjson.dumps(line).decode() + "\n")
    write_text_whole(path, "".join(lines))
    return Artefact(file=path.name, rows=len(lines), bytes=path.stat().st_size, sha256=sha256_file(path))


def _records(
    conversations: Path, source: ConversationsManifest, rows: list[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Ids and origins of rows, which are sorted; a row group at a time."""

    def are_in(low: int, high: int) -> bool:
        return bisect_left(rows, low) < bisect_left(rows, high)

    for first, table in row_groups(conversations, source, ["id", "origin"], are_in):
        own = rows[bisect_left(rows, first) : bisect_left(rows, first + len(table))]
        yield from zip(own, table.take(pa.array([row - first for row in own])).to_pylist(), strict=True)
