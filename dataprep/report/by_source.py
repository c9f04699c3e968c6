"""Columns in, one line a source out: what was kept, what became of the rest, how long, how many targets."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.report.figures import RowLedger, SourceFigures
from dataprep.report.text import Index, Texts
from dataprep.report.tokens import Cached, Packed
from dataprep.report.turned_away import Quarantined


def figures_by_source(
    names: Sequence[str],
    index: Index,
    texts: Texts | None,
    packed: Sequence[Packed],
    cached: Cached | None,
    quarantined: Quarantined,
    ledger: RowLedger,
) -> list[SourceFigures]:
    """Sum up each source, the one with the most tokens first; `names` are the sources, in the order of `index` first.

    Sources of which only quarantined rows are known come after them.
    """
    turned_away = quarantined.by_source()
    every = list(dict.fromkeys([*names, *turned_away]))
    columns = _columns(index.sources, len(every), texts, packed, cached)
    left = dict(zip(every, (columns["kept"] - columns["ready"]).tolist(), strict=True))
    for name, reasons in _unlisted(quarantined, ledger, left).items():
        turned_away[name].update(reasons)
    figures = [
        SourceFigures(
            name=name,
            turned_away=dict(turned_away[name].most_common()),
            **{column: int(values[number]) for column, values in columns.items()},
        )
        for number, name in enumerate(every)
    ]
    return sorted(figures, key=lambda source: (-source.tokens, -source.kept, source.name))


def _columns(
    of_row: NDArray[np.int32], size: int, texts: Texts | None, packed: Sequence[Packed], cached: Cached | None
) -> dict[str, NDArray[Any]]:
    """Sums over each of the `size` sources; `of_row` gives the source of each conversation."""
    blank = np.zeros(len(of_row), dtype=np.int64)
    turns, characters = (texts.turns, texts.characters) if texts else (blank, blank)
    rows = _joined([split.rows for split in packed])
    lengths = _joined([split.example_lengths for split in packed])
    targets = _joined([split.example_targets for split in packed])
    held_out = _joined([split.rows for split in packed if split.name == "val"])
    kept = np.bincount(of_row, minlength=size)
    by_row, by_length = (of_row[cached.rows], cached.lengths) if cached else (of_row[rows], lengths)
    return {
        "kept": kept,
        "ready": np.bincount(of_row[np.unique(rows)], minlength=size) if packed else kept,
        "held_out": np.bincount(of_row[np.unique(held_out)], minlength=size),
        "turns": np.bincount(of_row, turns, size),
        "characters": np.bincount(of_row, characters, size),
        "longest_characters": _largest(of_row, characters, size),
        "tokens": np.bincount(of_row[rows], lengths, size),
        "targets": np.bincount(of_row[rows], targets, size),
        "longest_tokens": _largest(by_row, by_length, size),
    }


def _unlisted(quarantined: Quarantined, ledger: RowLedger, left: dict[str, int]) -> dict[str, dict[str, int]]:
    """Of the conversations that tokenize left out, by source, those that its quarantine file doesn't list."""
    listed: Counter[str] = Counter()
    reasons = dict(ledger.refused)
    for (stage, source, reason), count in quarantined.counts.items():
        if stage == "tokenize":
            listed[source] += count
            reasons.pop(reason, None)
    name = ", ".join(reasons)
    return {source: {name: count - listed[source]} for source, count in left.items() if name and count > listed[source]}


def _largest(groups: NDArray[Any], values: NDArray[Any], size: int) -> NDArray[np.int64]:
    largest = np.zeros(size, dtype=np.int64)
    np.maximum.at(largest, groups, values)
    return largest


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
