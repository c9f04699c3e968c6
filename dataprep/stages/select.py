"""Select: cached chunks in; the spans that fit into a pack out, and what became of the rest.

Each example of a conversation that fits is one span; a longer one gives what stages/pack.py's `fit` finds in it. Chunks
may be gone through apart from each other, in any order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunks import Chunk
from dataprep.stages.fetch import Examples
from dataprep.stages.pack import fit
from schemas.manifest import PackOptions

TOO_LONG = "too-long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which spans of the corpus can become examples, and what became of the rest."""

    examples: Examples  # in the order of rows and starts
    tokens: int  # of all tokenised conversations
    cut: dict[str, int]  # tokens left out, by reason
    turned_away: dict[int, tuple[str, str]]  # row -> reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The same of some of the chunks."""

    columns: list[NDArray[np.int32]]  # each (…, 5): row, start in the conversation, length, chunk, place in the chunk
    tokens: int
    cut: Counter[str]
    turned_away: dict[int, tuple[str, str]]


def select_spans(corpus: Iterable[tuple[int, Chunk, pa.RecordBatch]], options: PackOptions) -> Spans:
    """Find the spans of at most seq_len tokens in chunks, each given with its number among all."""
    spans: list[NDArray[np.int32]] = []
    turned_away: dict[int, tuple[str, str]] = {}
    cut: Counter[str] = Counter()
    tokens = 0
    for number, chunk, batch in corpus:
        rows, starts, lengths, places = _examples(batch)
        tokens += int(lengths.sum())
        fits = lengths <= options.seq_len
        own = [rows + chunk.start, starts, lengths, np.full(len(rows), number), places]
        spans.append(np.stack([column[fits] for column in own], axis=1, dtype=np.int32, casting="same_kind"))
        for row in np.flatnonzero(np.bincount(rows, minlength=len(batch)) == 0).tolist():
            turned_away[chunk.start + row] = (batch["reason"][row].as_py(), batch["detail"][row].as_py())
        if fits.all():
            continue
        given = set(rows[fits].tolist())
        for row, start, length, place in np.stack([rows, starts, lengths, places], axis=1)[~fits].tolist():
            pieces = _pieces(batch, row, start, length, options)
            reason = f"overflow-{options.overflow}" if pieces else TOO_LONG
            cut[reason] += length - sum(stop - first for first, stop in pieces)
            if pieces:
                given.add(row)
            for first, stop in pieces:
                span = [chunk.start + row, start + first, stop - first, number, place + first]
                spans.append(np.array([span], dtype=np.int32))
        for row in sorted(set(rows[~fits].tolist()) - given):
            length = int(lengths[rows == row].sum())
            turned_away[chunk.start + row] = (TOO_LONG, f"{length} tokens, no turn of it fits into {options.seq_len}")
    columns = [np.concatenate(spans)] if spans else []
    return Spans(columns=columns, tokens=tokens, cut=cut, turned_away=turned_away)


def selection_of(parts: Sequence[Spans], sources: NDArray[np.int32]) -> Selection:
    """What was selected of all chunks; `sources` are those of the conversations' rows. The parts' spans are let go."""
    spans = [np.empty((0, 5), dtype=np.int32)]
    for part in parts:
        spans += part.columns
        part.columns.clear()
    cut = sum((part.cut for part in parts), Counter[str]())
    return Selection(
        examples=_in_order(spans, sources),
        tokens=sum(part.tokens for part in parts),
        cut={reason: cut[reason] for reason in sorted(cut) if cut[reason]},
        turned_away={row: why for part in parts for row, why in part.turned_away.items()},
    )


def _in_order(spans: list[NDArray[np.int32]], sources: NDArray[np.int32]) -> Examples:
    """Spans, (…, 5), as examples in the order of rows and starts; the list is emptied."""
    columns = np.concatenate(spans)
    spans.clear()
    rows, starts, lengths, numbers, places = columns[np.lexsort((columns[:, 1], columns[:, 0]))].T.copy()
    return Examples(rows=rows, starts=starts, lengths=lengths, sources=sources[rows], chunks=numbers, places=places)


def _examples(
    batch: pa.RecordBatch,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The row, start in its conversation, length, and place in the chunk of each example."""
    lists = batch.column("example_lengths")
    lengths = to_numpy(lists.flatten()).astype(np.int64)
    rows = np.repeat(np.arange(len(batch)), np.diff(to_numpy(lists.offsets)))
    places = np.cumsum(lengths) - lengths
    firsts = to_numpy(batch.column("input_ids").offsets).astype(np.int64)[rows]
    return rows, places - firsts, lengths, places


def _pieces(batch: pa.RecordBatch, row: int, start: int, length: int, options: PackOptions) -> list[tuple[int, int]]:
    """The spans of the example [start, start + length) of a conversation, from its own first token on."""
    starts, ends = (to_numpy(batch[name][row].values) for name in ("turn_starts", "turn_ends"))
    own = (starts >= start) & (starts < start + length)
    targets = to_numpy(batch["assistant_masks"][row].values)[start : start + length]
    turn_starts, turn_ends = (starts[own] - start).tolist(), (ends[own] - start).tolist()
    return fit(length, turn_starts, turn_ends, targets, options.seq_len, options.overflow)
