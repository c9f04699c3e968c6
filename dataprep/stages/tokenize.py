"""Tokenize: a chunk of conversations in; examples out: ids, loss mask and turn bounds, or the reason there are none.

What is shown for each conversation that is kept: its text is the chat template's own rendering (stages/render.py), its
ids spell that text (core/encode.py), its control tokens are those the template wrote and no others, and each target
span begins and ends on token bounds. All of it is array work over the whole chunk.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.columns import Columns, read_columns, rich_parts
from dataprep.core.encode import Encoder, Encoding
from dataprep.stages.render import Dialogue, Plan, RefusedError, Renderer
from schemas.example import EXAMPLE

FIXES = {
    "template-refuses": "change the order of roles to what this model's chat template takes",
    "template-untraceable": "the targets can't be proven for this template; use another template",
    "rendering-differs": "report this chat template: its rendering could not be reproduced",
    "turn-not-found": "the targets can't be proven for this conversation; simplify its messages",
    "no-end-token": "use a chat template that ends assistant turns with a special token",
    "message-dropped": "use a chat template that renders this kind of message, or remove the message",
    "control-token-in-text": "remove the control token from the text",
    "not-spelled": "the tokenizer can't represent this text; remove the characters it doesn't know",
    "bound-inside-token": "remove blanks at the start or end of the assistant's text",
    "no-targets": "give the conversation an assistant message with train unset or true",
    "no-eos-token": "use a tokenizer that has an end-of-text token",
}


_NO_TURNS = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class _Job:
    """The texts of a chunk to encode, and for each its place, pieces and plan; filled conversation by conversation."""

    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    plans: list[Plan | None] = field(default_factory=list)  # None: a document
    piece_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    refused: dict[int, RefusedError] = field(default_factory=dict)


def tokenize_chunk(
    table: pa.Table, renderer: Renderer | None, encoder: Encoder, tokens: "SpecialIds"
) -> pa.RecordBatch:
    """Turn a table of conversations into a batch of examples, row for row (schemas/example.md)."""
    columns = read_columns(table)
    job = _render_all(columns, renderer, encoder)
    encoding = encoder.encode(job.texts)
    examples: list[_Example | None] = [None] * len(table)
    for example in _masked(columns, job, encoding, tokens):
        examples[example.row] = example
    return _batch(examples, job.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids of control tokens, as a lookup over the vocabulary, and the one that ends a document."""

    is_control: NDArray[np.bool_]  # (vocabulary,)
    eos: int | None


def _render_all(columns: Columns, renderer: Renderer | None, encoder: Encoder) -> _Job:
    job = _Job()
    lengths = np.fromiter(map(encoder.length, columns.contents), dtype=np.int64, count=len(columns.contents))
    bounds = columns.offsets.tolist()
    for row, (low, high) in enumerate(pairwise(bounds)):
        if columns.roles[low] == "text":
            _add(job, row, [encoder.normalize(columns.contents[low])], None, encoder)
            continue
        try:
            if renderer is None:
                raise RefusedError("template-refuses", "this model has no chat template")
            dialogue = _dialogue(columns, row, low, high)
            plan = renderer.plan(dialogue)
            slot_texts = plan.slot_texts(dialogue.texts)
            slot_lengths = lengths[low:high] if plan.plain else None
            _add_rendered(job, row, plan, slot_texts, slot_lengths, encoder)
        except RefusedError as refused:
            job.refused[row] = refused
    return job


def _dialogue(columns: Columns, row: int, low: int, high: int) -> Dialogue:
    texts = {"content": columns.contents[low:high]}
    roles = tuple(columns.roles[low:high])
    if not columns.rich[row]:
        return Dialogue(roles=roles, texts=texts)
    messages, tools, extras = rich_parts(columns.record(row))
    texts["reasoning"] = [message.get("reasoning_content", "") for message in messages]
    return Dialogue(roles=roles, texts=texts, messages=messages, tools=tools, extras=extras)


def _add_rendered(
    job: _Job, row: int, plan: Plan, slot_texts: list[str], slot_lengths: NDArray[np.int64] | None, encoder: Encoder
) -> None:
    pieces = plan.pieces(slot_texts)
    text = "".join(pieces)
    normal = encoder.normalize(text)
    if normal != text:
        pieces = [encoder.normalize(piece) for piece in pieces]
        if "".join(pieces) != normal:
            raise RefusedError("bound-inside-token", "a combining character stands at the start of a message")
        _add(job, row, pieces, plan, encoder)
        return
    piece_lengths = np.empty(2 * len(slot_texts) + 1, dtype=np.int64)
    piece_lengths[0::2] = plan.literal_lengths
    piece_lengths[1::2] = list(map(encoder.length, slot_texts)) if slot_lengths is None else slot_lengths
    job.rows.append(row)
    job.texts.append(text)
    job.plans.append(plan)
    job.piece_lengths.append(piece_lengths)


def _add(job: _Job, row: int, pieces: list[str], plan: Plan | None, encoder: Encoder) -> None:
    job.rows.append(row)
    job.texts.append("".join(pieces))
    job.plans.append(plan)
    job.piece_lengths.append(np.array([encoder.length(piece) for piece in pieces], dtype=np.int64))


@dataclass(slots=True, kw_only=True)
class _Example:
    row: int
    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    turn_starts: NDArray[np.int64]
    turn_ends: NDArray[np.int64]


def _masked(columns: Columns, job: _Job, encoding: Encoding, tokens: SpecialIds) -> list[_Example]:
    """Find the tokens of every turn's bounds and mark the targets; what can't be shown goes to `job.refused`."""
    first, exact = _point_tokens(job, encoding)
    control_counts = np.concatenate(([0], np.cumsum(tokens.is_control[encoding.ids])))[encoding.text_tokens]
    num_controls = np.diff(control_counts).tolist()
    bounds = encoding.text_tokens.tolist()
    examples, point = [], 0
    for number, (row, plan) in enumerate(zip(job.rows, job.plans, strict=True)):
        low, high = bounds[number], bounds[number + 1]
        own = slice(point, point + (3 * len(plan.turn_messages) if plan else 0))
        point = own.stop
        try:
            if not encoding.faithful[number]:
                raise RefusedError("not-spelled", "the ids don't spell the text")
            if num_controls[number] != (plan.num_controls if plan else 0):
                raise RefusedError("control-token-in-text", "a message holds the text of a control token")
            ids = encoding.ids[low:high]
            if plan is None:
                examples.append(_document(row, ids, tokens))
            else:
                places = (first[own] - low).reshape(-1, 3)
                examples.append(_dialogue_example(columns, row, plan, ids, places, exact[own].reshape(-1, 3)))
        except RefusedError as refused:
            job.refused[row] = refused
    return examples


def _point_tokens(job: _Job, encoding: Encoding) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each point of each plan, the first token at or after it, and whether that token begins right there.

    A point at the end of the text is exact, one past the last token.
    """
    pieces = np.concatenate([np.empty(0, np.int64), *job.piece_lengths])
    piece_starts = np.concatenate(([0], np.cumsum(pieces)))
    num_pieces = [len(lengths) for lengths in job.piece_lengths]
    piece_bases = np.cumsum([0, *num_pieces])[:-1].tolist()
    empty = np.empty(0, np.int64)
    where = [plan.point_pieces + base for plan, base in zip(job.plans, piece_bases, strict=True) if plan]
    offsets = np.concatenate([empty, *(plan.point_offsets for plan in job.plans if plan)])
    places = piece_starts[np.concatenate([empty, *where])] + offsets
    first = np.searchsorted(encoding.starts, places, side="left")
    total = int(piece_starts[-1])
    starts = np.append(encoding.starts, total)
    ends_before = np.concatenate(([0], encoding.ends))[first]
    exact = (starts[first] == places) | ((first == len(encoding.ids)) & (places == total))
    return first, exact & (ends_before <= places)


def _dialogue_example(
    columns: Columns,
    row: int,
    plan: Plan,
    ids: NDArray[np.int32],
    places: NDArray[np.int64],
    exact: NDArray[np.bool_],
) -> _Example:
    base = int(columns.offsets[row])
    mask = np.zeros(len(ids), dtype=bool)
    for (start, end, _), (starts_there, ends_there, _), message in zip(
        places.tolist(), exact.tolist(), plan.turn_messages, strict=True
    ):
        if columns.trains[base + message] is False:
            continue
        if not (starts_there and ends_there):
            raise RefusedError("bound-inside-token", f"message {message + 1}: a token reaches across its bounds")
        mask[start:end] = True
    mask[:1] = False  # nothing predicts the first token of an example
    if not mask.any():
        raise RefusedError("no-targets", "no assistant message is to be trained on")
    return _Example(row=row, ids=ids, mask=mask, turn_starts=np.append(0, places[:-1, 2]), turn_ends=places[:, 1])


def _document(row: int, ids: NDArray[np.int32], tokens: SpecialIds) -> _Example:
    """A document trains on every token but the first, which nothing predicts."""
    if tokens.eos is None:
        raise RefusedError("no-eos-token", "the tokenizer has no end-of-text token")
    ids = np.append(ids, np.int32(tokens.eos))
    mask = np.ones(len(ids), dtype=bool)
    mask[0] = False
    return _Example(row=row, ids=ids, mask=mask, turn_starts=_NO_TURNS, turn_ends=_NO_TURNS)


def _batch(examples: list[_Example | None], refused: dict[int, RefusedError]) -> pa.RecordBatch:
    ids = [example.ids if example else np.empty(0, np.int32) for example in examples]
    masks = [example.mask if example else np.empty(0, bool) for example in examples]
    starts = [example.turn_starts if example else _NO_TURNS for example in examples]
    ends = [example.turn_ends if example else _NO_TURNS for example in examples]
    errors = [refused.get(row) for row in range(len(examples))] if refused else []
    no_text = pa.nulls(len(examples), pa.string())
    columns = [
        _lists(ids, pa.int32()),
        _lists(masks, pa.bool_()),
        _lists(starts, pa.int32()),
        _lists(ends, pa.int32()),
        pa.array([error and error.reason for error in errors], pa.string()) if errors else no_text,
        pa.array([error and str(error) for error in errors], pa.string()) if errors else no_text,
    ]
    return pa.record_batch(columns, schema=EXAMPLE)


def _lists(rows: list[NDArray[Any]], kind: pa.DataType) -> pa.ListArray:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows), kind), type=pa.list_(kind))
