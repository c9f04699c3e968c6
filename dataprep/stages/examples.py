"""Examples: what tokenising a table gave, laid out as the columns of a cached chunk (schemas/example.md)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_lists
from dataprep.stages.agree import INSIDE_TOKEN
from dataprep.stages.control_tokens import CONTROL_TOKENS_AS_TEXT
from dataprep.stages.fill import Filled
from dataprep.stages.plan import TurnCounts
from dataprep.stages.shown import Tokens, Turns
from schemas.example import EXAMPLE

_NO_TURNS = TurnCounts(trained=0, differ={}, remain=0, left_out={}, prompts={})
_COUNT_COLUMNS = ("differing_turns", "left_out_turns", "prompts")


def examples_batch(
    num_rows: int, filled: Filled, tokens: Tokens, turns: Turns, mask: NDArray[np.bool_]
) -> pa.RecordBatch:
    """One row a conversation; those that were turned away hold nothing but why."""
    all_rows = filled.rows
    is_refused = np.zeros(num_rows, dtype=bool)
    is_refused[list(filled.refused)] = True
    kept = ~is_refused[all_rows]
    rows = all_rows[kept]
    counts = np.diff(tokens.bounds)
    ids = tokens.ids
    if not kept.all():
        of_kept = np.repeat(kept, counts)
        ids, mask = ids[of_kept], mask[of_kept]
    token_counts = _sums(rows, counts[kept], num_rows)
    turn_counts = _sums(rows, filled.turn_counts[kept], num_rows)
    own = kept[turns.texts]
    starts, ends = _exchanges(all_rows, tokens, turns)
    exact_tokens = token_counts + _grown_tokens(all_rows, filled, tokens, num_rows)
    reasons: pa.Array = pa.nulls(num_rows, pa.string())
    details = reasons
    if filled.refused:
        errors = [filled.refused.get(row) for row in range(num_rows)]
        reasons = pa.array([error and error.reason for error in errors], pa.string())
        details = pa.array([error and str(error) for error in errors], pa.string())
    columns = [
        to_lists(token_counts, to_arrow(ids.astype(np.int32, copy=False))),
        to_lists(token_counts, to_arrow(mask)),
        to_lists(np.bincount(rows, minlength=num_rows), to_arrow(counts[kept].astype(np.int32))),
        to_lists(turn_counts, to_arrow(starts[own].astype(np.int32))),
        to_lists(turn_counts, to_arrow(ends[own].astype(np.int32))),
        *_turn_columns(num_rows, filled, _inside_tokens(num_rows, filled, turns)),
        _notes(num_rows, filled, tokens),
        to_arrow(np.where(token_counts, exact_tokens, 0).astype(np.int32)),
        reasons,
        details,
    ]
    return pa.record_batch(columns, schema=EXAMPLE)


def _grown_tokens(rows: NDArray[np.int64], filled: Filled, tokens: Tokens, num_rows: int) -> NDArray[np.int64]:
    """About how many tokens --turns exact would add to each row: as its text grows, so do they."""
    per_length = np.diff(tokens.bounds) / np.maximum(1, filled.text_lengths)
    added = np.zeros(num_rows)
    added[rows] = per_length  # where a row grows, it has one text
    return np.rint(np.minimum(added * filled.growth, 2**30)).astype(np.int64)  # a column of int32 holds it


def _exchanges(rows: NDArray[np.int64], tokens: Tokens, turns: Turns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each exchange starts and ends, in its conversation's ids; an example's first begins with the example."""
    first_texts = np.flatnonzero(np.diff(rows, prepend=-1))
    base = tokens.bounds[first_texts][np.cumsum(np.diff(rows, prepend=-1) != 0) - 1][turns.texts]
    starts = np.concatenate(([0], turns.next_starts[:-1]))[: len(base)]
    firsts = np.flatnonzero(np.diff(turns.texts, prepend=-1))
    starts[firsts] = tokens.bounds[:-1][turns.texts[firsts]]
    return starts - base, turns.ends - base


def _notes(num_rows: int, filled: Filled, tokens: Tokens) -> pa.Array:
    """What is to be known of each conversation that is kept: the notes of its plans, and of its encoding."""
    noted = np.array([bool(plan.notes) for plan in filled.plans], dtype=bool)[filled.plan_numbers]
    noted[list(tokens.as_text)] = True
    notes: dict[int, list[str]] = {}
    for text in np.flatnonzero(noted).tolist():
        row = int(filled.rows[text])
        if row not in filled.refused:
            of_plan = filled.plans[filled.plan_numbers[text]].notes
            own = (*of_plan, *([CONTROL_TOKENS_AS_TEXT] if text in tokens.as_text else []))
            notes[row] = list(dict.fromkeys((*notes.get(row, []), *own)))
    counts = np.zeros(num_rows, dtype=np.int64)
    counts[list(notes)] = list(map(len, notes.values()))
    values = [note for row in sorted(notes) for note in notes[row]]
    return to_lists(counts, pa.array(values, pa.string())).cast(EXAMPLE.field("notes").type)


def _inside_tokens(num_rows: int, filled: Filled, turns: Turns) -> dict[int, int]:
    """Row -> its trained turns that differ from inference in nothing but that its prompt ends inside a token."""
    if not turns.inside_token.any():
        return {}
    chosen = turns.inside_token & filled.trained & ~filled.differs
    counts = np.bincount(filled.rows[turns.texts[chosen]], minlength=num_rows)
    rows = np.flatnonzero(counts)
    return dict(zip(rows.tolist(), counts[rows].tolist(), strict=True))


def _turn_columns(num_rows: int, filled: Filled, inside_tokens: dict[int, int]) -> list[pa.Array]:
    """Counts of turns; conversations of one plan have the same ones, so each is written once and taken often."""
    each = [_NO_TURNS, *filled.kinds]
    own = filled.row_kinds + 1
    own[list(filled.refused)] = 0
    grown: dict[tuple[int, int], int] = {}
    for row, number in inside_tokens.items():
        if own[row]:
            place = grown.setdefault((int(own[row]), number), len(each))
            if place == len(each):
                each.append(_with_inside_tokens(each[own[row]], number))
            own[row] = place
    names = ("differ", "left_out", "prompts")
    kinds = {name: EXAMPLE.field(column).type for name, column in zip(names, _COUNT_COLUMNS, strict=True)}
    columns = [
        pa.array([counts.trained for counts in each], pa.int32()),
        *(pa.array([list(getattr(counts, name).items()) for counts in each], kinds[name]) for name in names),
        pa.array([counts.remain for counts in each], pa.int32()),
    ]
    return [column.take(to_arrow(own)) for column in columns]


def _with_inside_tokens(counts: TurnCounts, number: int) -> TurnCounts:
    differ = {**counts.differ, INSIDE_TOKEN: number}
    return replace(counts, differ=differ, remain=counts.remain + number)


def _sums(rows: NDArray[np.int64], counts: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """The sum of the counts of each row."""
    sums = np.zeros(num_rows, dtype=np.int64)
    np.add.at(sums, rows, counts)
    return sums
