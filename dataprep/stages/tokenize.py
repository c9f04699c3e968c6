"""Tokenize: a chunk of conversations in; examples out: ids, loss mask and turn bounds, or the reason there are none.

What is shown for each conversation that is kept: its text is the chat template's own rendering (stages/render.py), its
ids spell that text (core/encode.py), its control tokens are those the template wrote and no others, and each target
span begins and ends on token bounds. All of it is array work over the whole chunk.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_arrow, to_lists
from dataprep.core.columns import Columns, read_columns, rich_parts
from dataprep.core.encode import Encoder
from dataprep.core.trace import Slot
from dataprep.stages.render import Dialogue, Plan, RefusedError, Renderer
from schemas.example import EXAMPLE

FIXES = {
    "no-chat-template": "use the model's instruct variant, or put a chat_template.jinja into its folder",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids of control tokens, as a lookup over the vocabulary, and the one that ends a document."""

    is_control: NDArray[np.bool_]  # (vocabulary,)
    eos: int | None


def tokenize_chunk(table: pa.Table, renderer: Renderer | None, encoder: Encoder, special: SpecialIds) -> pa.RecordBatch:
    """Turn a table of conversations into a batch of examples, row for row (schemas/example.md)."""
    rendered = _render_all(read_columns(table), renderer, encoder)
    tokens = _encode(rendered, encoder, special)
    turns = _find_turns(rendered, tokens)
    mask = _mask(rendered, tokens, turns)
    _refuse_unshown(rendered, tokens, turns, mask)
    return _batch(len(table), rendered, tokens, turns, mask)


@dataclass(slots=True)
class _Rendered:
    """The D texts of a chunk to encode, in order; and why the other conversations have none."""

    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)  # a document has the plan of one text and no turns
    piece_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)  # of each turn of each text
    refused: dict[int, RefusedError] = field(default_factory=dict)  # row -> why


def _render_all(columns: Columns, renderer: Renderer | None, encoder: Encoder) -> _Rendered:
    rendered = _Rendered()
    lengths = encoder.lengths(columns.content_array)
    for row, (low, high) in enumerate(pairwise(columns.offsets.tolist())):
        try:
            dialogue = _dialogue(columns, row, low, high)
            if dialogue.roles == ("text",):
                plan = _DOCUMENT
            elif renderer is None:
                raise RefusedError("no-chat-template", "this model has no chat template")
            else:
                plan = renderer.plan(dialogue)
            _add(rendered, row, plan, dialogue, lengths[low:high], encoder)
        except RefusedError as refused:
            rendered.refused[row] = refused
            continue
        trains = columns.trains
        rendered.trained += [
            ended and (trains is None or trains[low + message] is not False)
            for message, ended in zip(plan.turn_messages, plan.turn_trained, strict=True)
        ]
    return rendered


_DOCUMENT = Plan(
    literals=["", ""],
    slots=[Slot(0, "content")],
    literal_lengths=np.zeros(2, dtype=np.int64),
    point_pieces=np.empty(0, dtype=np.int64),
    point_offsets=np.empty(0, dtype=np.int64),
    turn_messages=[],
    turn_trained=[],
    num_controls=0,
    plain=True,
)


def _dialogue(columns: Columns, row: int, low: int, high: int) -> Dialogue:
    texts = {"content": columns.contents[low:high]}
    roles = tuple(columns.roles[low:high])
    if not columns.rich[row]:
        return Dialogue(roles=roles, texts=texts)
    messages, tools, extras = rich_parts(columns.record(row))
    texts["reasoning"] = [message.get("reasoning_content", "") for message in messages]
    return Dialogue(roles=roles, texts=texts, messages=messages, tools=tools, extras=extras)


def _add(
    rendered: _Rendered, row: int, plan: Plan, dialogue: Dialogue, lengths: NDArray[np.int64], encoder: Encoder
) -> None:
    """Add the text of a conversation, and the lengths of its pieces; `lengths` are those of its contents."""
    slot_texts = plan.slot_texts(dialogue.texts)
    pieces = plan.pieces(slot_texts)
    text = "".join(pieces)
    normal = encoder.normalize(text)
    if normal is not text and normal != text:
        pieces = [encoder.normalize(piece) for piece in pieces]
        text = "".join(pieces)
        if text != normal:
            raise RefusedError("bound-inside-token", "a combining character stands at the start of a message")
        piece_lengths = np.array(list(map(encoder.length, pieces)), dtype=np.int64)
    else:
        piece_lengths = np.empty(len(pieces), dtype=np.int64)
        piece_lengths[0::2] = plan.literal_lengths
        piece_lengths[1::2] = lengths if plan.plain else list(map(encoder.length, slot_texts))
    rendered.rows.append(row)
    rendered.texts.append(text)
    rendered.plans.append(plan)
    rendered.piece_lengths.append(piece_lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """N tokens of the D texts; bounds in the encoder's unit over the texts laid end to end."""

    ids: NDArray[np.int32]  # (N,)
    bounds: NDArray[np.int64]  # (D + 1,)
    starts: NDArray[np.int64]  # (N,)
    ends: NDArray[np.int64]  # (N,)
    faithful: NDArray[np.bool_]  # (D,)
    num_controls: NDArray[np.int64]  # (D,)
    is_document: NDArray[np.bool_]  # (D,)


def _encode(rendered: _Rendered, encoder: Encoder, special: SpecialIds) -> _Tokens:
    """Encode the texts; a document gets its end-of-text token, of no length."""
    text_lengths = np.array([lengths.sum() for lengths in rendered.piece_lengths], dtype=np.int64)
    encoding = encoder.encode(rendered.texts, text_lengths)
    controls = np.concatenate(([0], np.cumsum(special.is_control[encoding.ids], dtype=np.int64)))
    num_controls = np.diff(controls[encoding.text_tokens])
    is_document = np.array([plan is _DOCUMENT for plan in rendered.plans], dtype=bool)
    ids, bounds, starts, ends = encoding.ids, encoding.text_tokens, encoding.starts, encoding.ends
    if is_document.any() and special.eos is not None:
        places = bounds[1:][is_document]
        text_ends = np.cumsum(text_lengths)[is_document]
        ids = np.insert(ids, places, special.eos)
        starts, ends = np.insert(starts, places, text_ends), np.insert(ends, places, text_ends)
        bounds = bounds + np.concatenate(([0], np.cumsum(is_document)))
    return _Tokens(
        ids=ids,
        bounds=bounds,
        starts=starts,
        ends=ends,
        faithful=encoding.faithful & (~is_document | (special.eos is not None)),
        num_controls=num_controls,
        is_document=is_document,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turns:
    """The T assistant turns of all texts, as tokens over the texts laid end to end."""

    texts: NDArray[np.int64]  # (T,): whose turn
    messages: NDArray[np.int64]  # (T,)
    starts: NDArray[np.int64]  # (T,): first target
    ends: NDArray[np.int64]  # (T,): one past the end token
    next_starts: NDArray[np.int64]  # (T,): first token of what follows
    exact: NDArray[np.bool_]  # (T,): tokens begin right at `starts` and `ends`


def _find_turns(rendered: _Rendered, tokens: _Tokens) -> _Turns:
    """For each point of each plan, the first token at or after it, and whether a token begins right there."""
    piece_starts = np.concatenate(([0], np.cumsum(_joined(rendered.piece_lengths))))
    num_pieces = np.array([len(lengths) for lengths in rendered.piece_lengths], dtype=np.int64)
    piece_bases = np.cumsum(num_pieces) - num_pieces
    num_turns = np.array([len(plan.turn_messages) for plan in rendered.plans], dtype=np.int64)
    texts = np.repeat(np.arange(len(num_turns)), num_turns)
    pieces = _joined([plan.point_pieces for plan in rendered.plans]) + np.repeat(piece_bases, 3 * num_turns)
    places = piece_starts[pieces] + _joined([plan.point_offsets for plan in rendered.plans])
    first = np.searchsorted(tokens.starts, places, side="left")
    total = piece_starts[-1]
    begins_there = np.append(tokens.starts, total)[first] == places
    nothing_reaches_over = np.concatenate(([0], tokens.ends))[first] <= places
    exact = (begins_there & nothing_reaches_over).reshape(-1, 3)
    starts, ends, next_starts = first.reshape(-1, 3).T
    messages = np.array([message for plan in rendered.plans for message in plan.turn_messages], dtype=np.int64)
    return _Turns(
        texts=texts,
        messages=messages,
        starts=starts,
        ends=ends,
        next_starts=next_starts,
        exact=exact[:, 0] & exact[:, 1],
    )


def _mask(rendered: _Rendered, tokens: _Tokens, turns: _Turns) -> NDArray[np.bool_]:
    """True for the targets: (N,). A document's are all but its first token, which nothing predicts."""
    trained = np.array(rendered.trained, dtype=bool)
    edges = np.zeros(len(tokens.ids) + 1, dtype=np.int8)
    np.add.at(edges, turns.starts[trained], 1)
    np.add.at(edges, turns.ends[trained], -1)
    np.add.at(edges, tokens.bounds[:-1][tokens.is_document], 1)
    np.add.at(edges, tokens.bounds[1:][tokens.is_document], -1)
    mask = np.cumsum(edges[:-1], dtype=np.int8) > 0
    firsts = tokens.bounds[:-1]
    mask[firsts[firsts < len(mask)]] = False
    return mask


def _refuse_unshown(rendered: _Rendered, tokens: _Tokens, turns: _Turns, mask: NDArray[np.bool_]) -> None:
    """Note each text for which ids or targets aren't shown; the first thing that is wrong is its reason."""
    targets = np.diff(np.concatenate(([0], np.cumsum(mask)))[tokens.bounds])
    own_controls = np.array([plan.num_controls for plan in rendered.plans], dtype=np.int64)
    bad_turns = np.flatnonzero(~turns.exact & np.array(rendered.trained, dtype=bool))
    wrong = [(text, "no-targets", "no assistant message is to be trained on") for text in np.flatnonzero(targets == 0)]
    for turn in bad_turns[::-1].tolist():
        detail = f"message {turns.messages[turn] + 1}: a token reaches across its bounds"
        wrong.append((turns.texts[turn], "bound-inside-token", detail))
    for text in np.flatnonzero(tokens.num_controls != own_controls):
        wrong.append((text, "control-token-in-text", "a message holds the text of a control token"))
    for text in np.flatnonzero(~tokens.faithful):
        wrong.append((text, "not-spelled", "the ids don't spell the text"))
    for text, reason, detail in wrong:
        rendered.refused[rendered.rows[text]] = RefusedError(reason, detail)


def _batch(
    num_rows: int, rendered: _Rendered, tokens: _Tokens, turns: _Turns, mask: NDArray[np.bool_]
) -> pa.RecordBatch:
    kept = np.array([row not in rendered.refused for row in rendered.rows], dtype=bool)
    rows = np.array(rendered.rows, dtype=np.int64)[kept]
    counts = np.diff(tokens.bounds)
    ids = tokens.ids
    if not kept.all():
        of_kept = np.repeat(kept, counts)
        ids, mask = ids[of_kept], mask[of_kept]
    token_counts = np.zeros(num_rows, dtype=np.int64)
    token_counts[rows] = counts[kept]
    turn_counts = np.zeros(num_rows, dtype=np.int64)
    turn_counts[rows] = np.bincount(turns.texts, minlength=len(kept))[kept]
    own = kept[turns.texts]
    base = tokens.bounds[:-1][turns.texts]
    turn_starts = np.concatenate(([0], (turns.next_starts - base)[:-1])) if len(base) else base
    turn_starts[np.flatnonzero(np.diff(turns.texts, prepend=-1))] = 0  # the first exchange begins with the text
    reasons: pa.Array = pa.nulls(num_rows, pa.string())
    details = reasons
    if rendered.refused:
        errors = [rendered.refused.get(row) for row in range(num_rows)]
        reasons = pa.array([error and error.reason for error in errors], pa.string())
        details = pa.array([error and str(error) for error in errors], pa.string())
    columns = [
        to_lists(token_counts, to_arrow(ids.astype(np.int32, copy=False))),
        to_lists(token_counts, to_arrow(mask)),
        to_lists(turn_counts, to_arrow(turn_starts[own].astype(np.int32))),
        to_lists(turn_counts, to_arrow((turns.ends - base)[own].astype(np.int32))),
        reasons,
        details,
    ]
    return pa.record_batch(columns, schema=EXAMPLE)


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
