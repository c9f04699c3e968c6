"""Select: cached chunks in; the spans that fit into a pack out, and what became of the rest.

A conversation that fits is one span; a longer one gives what stages/pack.py's `fit` finds in it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunks import Chunk
from dataprep.stages.pack import fit
from dataprep.stages.write import Examples
from schemas.manifest import PackOptions

TOO_LONG = "too-long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which spans of the corpus can become examples, and what became of the rest."""

    examples: Examples  # in the order of rows and starts
    tokens: int  # of all tokenised conversations
    cut: dict[str, int]  # tokens left out, by reason
    turned_away: dict[int, tuple[str, str]]  # row -> reason, detail


def select_spans(
    corpus: Sequence[pa.RecordBatch], chunks: Sequence[Chunk], sources: NDArray[np.int32], options: PackOptions
) -> Selection:
    """Find the spans of at most seq_len tokens in all chunks; `sources` are those of the conversations' rows."""
    spans: list[NDArray[np.int64]] = [np.empty((0, 5), dtype=np.int64)]
    turned_away: dict[int, tuple[str, str]] = {}
    cut: Counter[str] = Counter()
    tokens = 0
    for number, (chunk, batch) in enumerate(zip(chunks, corpus, strict=True)):
        offsets = to_numpy(batch.column("input_ids").offsets).astype(np.int64)
        lengths = np.diff(offsets)
        tokens += int(lengths.sum())
        kept = np.flatnonzero((lengths > 0) & (lengths <= options.seq_len))
        zero = np.zeros(len(kept), dtype=np.int64)
        spans.append(np.stack([kept + chunk.start, zero, lengths[kept], zero + number, offsets[kept]], axis=1))
        for row in np.flatnonzero(lengths == 0).tolist():
            turned_away[chunk.start + row] = (batch["reason"][row].as_py(), batch["detail"][row].as_py())
        for row in np.flatnonzero(lengths > options.seq_len).tolist():
            pieces = _pieces(batch, row, int(lengths[row]), options)
            reason = f"overflow-{options.overflow}" if pieces else TOO_LONG
            cut[reason] += int(lengths[row]) - sum(stop - start for start, stop in pieces)
            if not pieces:
                detail = f"{lengths[row]} tokens, no turn of it fits into {options.seq_len}"
                turned_away[chunk.start + row] = (TOO_LONG, detail)
            for start, stop in pieces:
                spans.append(np.array([[chunk.start + row, start, stop - start, number, offsets[row] + start]]))
    rows, starts, lengths, numbers, places = np.concatenate(spans).T
    in_order = np.lexsort((starts, rows))
    examples = Examples(rows=rows, starts=starts, lengths=lengths, sources=sources[rows], chunks=numbers, places=places)
    return Selection(
        examples=examples[in_order], tokens=tokens, cut={r: n for r, n in cut.items() if n}, turned_away=turned_away
    )


def _pieces(batch: pa.RecordBatch, row: int, length: int, options: PackOptions) -> list[tuple[int, int]]:
    starts, ends = batch["turn_starts"][row].as_py(), batch["turn_ends"][row].as_py()
    targets = to_numpy(batch["assistant_masks"][row].values)
    return fit(length, starts, ends, targets, options.seq_len, options.overflow)
