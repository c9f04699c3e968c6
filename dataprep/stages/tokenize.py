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
from dataprep.core.columns import Columns, read_columns
from dataprep.core.encode import Encoder, Encoding
from dataprep.core.trace import Slot
from dataprep.stages.chosen import dialogue_of
from dataprep.stages.control_tokens import CONTROL_TOKENS_AS_TEXT, encode_as_text
from dataprep.stages.plan import Dialogue, Growth, Plan, Plans, RefusedError, TurnCounts
from dataprep.stages.render import DEFAULT_OPTIONS, Renderer
from schemas.example import EXAMPLE
from schemas.manifest import TokenOptions

FIXES = {
    "no-chat-template": "use the model's instruct variant, or put a chat_template.jinja into its folder",
    "template-refuses": "change the order of roles to what this model's chat template takes",
    "template-untraceable": "the targets can't be proven for this template; use another template",
    "rendering-differs": "report this chat template: its rendering could not be reproduced",
    "turn-not-found": "the targets can't be proven for this conversation; simplify its messages",
    "no-end-token": "use a chat template that ends assistant turns with a special token",
    "message-dropped": "use a chat template that renders this kind of message, or remove the message",
    "control-token-in-text": "remove the control token from the text, or pass --control-tokens allow",
    "not-spelled": "the tokenizer can't represent this text; remove the characters it doesn't know",
    "bound-inside-token": "remove blanks at the start or end of the assistant's text",
    "no-targets": "give the conversation an assistant message with train unset or true, or choose another --train-on",
    "no-reasoning": "nothing to mend: --thinking only asks for conversations with reasoning",
    "no-eos-token": "use a tokenizer that has an end-of-text token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids of control tokens, as a lookup over the vocabulary, and the one that ends a document."""

    is_control: NDArray[np.bool_]  # (vocabulary,)
    eos: int | None
    tokens: tuple[str, ...]  # every control token's text


def tokenize_chunk(
    table: pa.Table,
    renderer: Renderer | None,
    encoder: Encoder,
    special: SpecialIds,
    options: TokenOptions = DEFAULT_OPTIONS,
) -> pa.RecordBatch:
    """Turn a table of conversations into a batch of their examples, row for row (schemas/example.md)."""
    rendered = _render_all(read_columns(table), renderer, encoder, options)
    tokens = _encode(rendered, encoder, special, options)
    turns = _find_turns(rendered, tokens)
    mask = _mask(rendered, tokens, turns)
    _refuse_unshown(rendered, tokens, turns, mask)
    return _batch(len(table), rendered, tokens, turns, mask)


@dataclass(slots=True)
class _Rendered:
    """The D texts of a chunk to encode, in order; and why the other conversations have none."""

    rows: list[int] = field(default_factory=list)  # a conversation's texts stand together
    texts: list[str] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)  # a document has the plan of one text and no turns
    piece_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)  # of each turn of each text
    turns: dict[int, TurnCounts] = field(default_factory=dict)  # row -> its counts
    growth: dict[int, int] = field(default_factory=dict)  # row -> how much longer --turns exact makes its text
    refused: dict[int, RefusedError] = field(default_factory=dict)  # row -> why


def _render_all(columns: Columns, renderer: Renderer | None, encoder: Encoder, options: TokenOptions) -> _Rendered:
    rendered = _Rendered()
    lengths = encoder.lengths(columns.content_array)
    for row, (low, high) in enumerate(pairwise(columns.offsets.tolist())):
        try:
            dialogue = dialogue_of(columns, row, options)
            if dialogue.roles == ("text",):
                plans = _DOCUMENT
            elif renderer is None:
                raise RefusedError("no-chat-template", "this model has no chat template")
            else:
                plans = renderer.plans(dialogue)
            _add(rendered, row, plans, dialogue, lengths[low:high], encoder, options)
        except RefusedError as refused:
            rendered.refused[row] = refused
    return rendered


_DOCUMENT = Plans(
    examples=(
        Plan(
            num_messages=1,
            literals=["", ""],
            slots=[Slot(0, "content")],
            literal_lengths=np.zeros(2, dtype=np.int64),
            point_pieces=np.empty(0, dtype=np.int64),
            point_offsets=np.empty(0, dtype=np.int64),
            turn_messages=[],
            turn_trained=[],
            turn_prompts=[],
            turn_differences=[],
            num_controls=0,
            plain=True,
        ),
    ),
    turns=TurnCounts(trained=0, differ={}, remain=0, left_out={}, prompts={}),
    growth=None,
)


def _add(
    rendered: _Rendered,
    row: int,
    plans: Plans,
    dialogue: Dialogue,
    lengths: NDArray[np.int64],
    encoder: Encoder,
    options: TokenOptions,
) -> None:
    """Add the examples of a conversation; `lengths` are those of its contents."""
    filled = [_filled(plan, dialogue, lengths, encoder) for plan in plans.examples]
    wanted = dialogue.trains()
    for plan, (text, piece_lengths) in zip(plans.examples, filled, strict=True):
        rendered.rows.append(row)
        rendered.texts.append(text)
        rendered.plans.append(plan)
        rendered.piece_lengths.append(piece_lengths)
        if options.train_on == "all":
            _refuse_unfound(plan, wanted, dialogue.roles)
            rendered.trained += [wanted[message] for message in plan.turn_messages]
        else:
            rendered.trained += plan.turn_trained
    rendered.turns[row] = plans.turns
    if plans.growth is not None:
        rendered.growth[row] = _grown(plans.growth, dialogue, lengths, encoder)


def _filled(
    plan: Plan, dialogue: Dialogue, lengths: NDArray[np.int64], encoder: Encoder
) -> tuple[str, NDArray[np.int64]]:
    """The text of an example, and the lengths of its pieces."""
    slot_texts = plan.slot_texts(dialogue.texts)
    pieces = plan.pieces(slot_texts)
    text = "".join(pieces)
    normal = encoder.normalize(text)
    if normal is not text and normal != text:
        pieces = [encoder.normalize(piece) for piece in pieces]
        text = "".join(pieces)
        if text != normal:
            raise RefusedError("bound-inside-token", "a combining character stands at the start of a message")
        return text, np.array(list(map(encoder.length, pieces)), dtype=np.int64)
    piece_lengths = np.empty(len(pieces), dtype=np.int64)
    piece_lengths[0::2] = plan.literal_lengths
    piece_lengths[1::2] = lengths[: plan.num_messages] if plan.plain else list(map(encoder.length, slot_texts))
    return text, piece_lengths


def _grown(growth: Growth, dialogue: Dialogue, lengths: NDArray[np.int64], encoder: Encoder) -> int:
    """How much longer than the whole its exact examples are, but for blanks that the template strips."""
    grown = growth.literals + int(growth.contents @ lengths)
    for slot, times in growth.others:
        grown += times * encoder.length(slot.value(dialogue.texts))
    return grown


def _refuse_unfound(plan: Plan, wanted: tuple[bool, ...], roles: tuple[str, ...]) -> None:
    """Where everything is trained on: an assistant message that is marked otherwise must be found."""
    for number, role in enumerate(roles):
        if role == "assistant" and not wanted[number] and number not in plan.turn_messages:
            raise RefusedError("turn-not-found", f"message {number + 1}: marked as not to be trained on, and not found")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """N tokens of the D texts; bounds in the encoder's unit over the texts laid end to end."""

    ids: NDArray[np.int32]  # (N,)
    bounds: NDArray[np.int64]  # (D + 1,)
    starts: NDArray[np.int64]  # (N,)
    ends: NDArray[np.int64]  # (N,)
    faithful: NDArray[np.bool_]  # (D,)
    num_controls: NDArray[np.int64]  # (D,)
    is_target: NDArray[np.bool_]  # (D,): all of it but its first token, such as a document
    text_lengths: NDArray[np.int64]  # (D,)
    as_text: frozenset[int]  # texts in which strings of control tokens stayed text


def _encode(rendered: _Rendered, encoder: Encoder, special: SpecialIds, options: TokenOptions) -> _Tokens:
    """Encode the texts; a document gets its end-of-text token, of no length."""
    text_lengths = np.array([lengths.sum() for lengths in rendered.piece_lengths], dtype=np.int64)
    encoding = encoder.encode(rendered.texts, text_lengths)
    num_controls = _num_controls(encoding, special)
    own_controls = np.array([plan.num_controls for plan in rendered.plans], dtype=np.int64)
    as_text: dict[int, Encoding] = {}
    if options.control_tokens == "text":
        for text in np.flatnonzero(num_controls != own_controls).tolist():
            given = (rendered.texts[text], rendered.piece_lengths[text], rendered.plans[text])
            anew = encode_as_text(*given, encoder, special.tokens)
            if anew is not None:
                as_text[text] = anew
    if as_text:
        encoding = encoding.with_texts(as_text, text_lengths)
    num_controls = own_controls if options.control_tokens == "allow" else _num_controls(encoding, special)
    is_document = np.array([plan is _DOCUMENT.examples[0] for plan in rendered.plans], dtype=bool)
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
        as_text=frozenset(as_text),
        is_target=is_document | (options.train_on == "all"),
        text_lengths=text_lengths,
    )


def _num_controls(encoding: Encoding, special: SpecialIds) -> NDArray[np.int64]:
    """Control tokens of each text."""
    controls = np.concatenate(([0], np.cumsum(special.is_control[encoding.ids], dtype=np.int64)))
    return np.diff(controls[encoding.text_tokens])


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
    in_target = tokens.is_target[turns.texts]
    edges = np.zeros(len(tokens.ids) + 1, dtype=np.int8)
    for chosen, sign in ((trained & ~in_target, 1), (~trained & in_target, -1)):
        np.add.at(edges, turns.starts[chosen], sign)
        np.add.at(edges, turns.ends[chosen], -sign)
    np.add.at(edges, tokens.bounds[:-1][tokens.is_target], 1)
    np.add.at(edges, tokens.bounds[1:][tokens.is_target], -1)
    mask = np.cumsum(edges[:-1], dtype=np.int8) > 0
    firsts = tokens.bounds[:-1]
    mask[firsts[firsts < len(mask)]] = False
    return mask


def _refuse_unshown(rendered: _Rendered, tokens: _Tokens, turns: _Turns, mask: NDArray[np.bool_]) -> None:
    """Note each text for which ids or targets aren't shown; the first thing that is wrong is its reason."""
    targets = np.diff(np.concatenate(([0], np.cumsum(mask)))[tokens.bounds])
    own_controls = np.array([plan.num_controls for plan in rendered.plans], dtype=np.int64)
    proven = (
        np.array(rendered.trained, dtype=bool) ^ tokens.is_target[turns.texts]
    )  # what isn't trained on among targets
    bad_turns = np.flatnonzero(~turns.exact & proven)
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
    all_rows = np.array(rendered.rows, dtype=np.int64)
    rows = all_rows[kept]
    counts = np.diff(tokens.bounds)
    ids = tokens.ids
    if not kept.all():
        of_kept = np.repeat(kept, counts)
        ids, mask = ids[of_kept], mask[of_kept]
    token_counts = _sums(rows, counts[kept], num_rows)
    turn_counts = _sums(rows, np.bincount(turns.texts, minlength=len(kept))[kept], num_rows)
    own = kept[turns.texts]
    starts, ends = _exchanges(all_rows, tokens, turns)
    exact_tokens = token_counts + _grown_tokens(all_rows, rendered, tokens, num_rows)
    reasons: pa.Array = pa.nulls(num_rows, pa.string())
    details = reasons
    if rendered.refused:
        errors = [rendered.refused.get(row) for row in range(num_rows)]
        reasons = pa.array([error and error.reason for error in errors], pa.string())
        details = pa.array([error and str(error) for error in errors], pa.string())
    columns = [
        to_lists(token_counts, to_arrow(ids.astype(np.int32, copy=False))),
        to_lists(token_counts, to_arrow(mask)),
        to_lists(np.bincount(rows, minlength=num_rows), to_arrow(counts[kept].astype(np.int32))),
        to_lists(turn_counts, to_arrow(starts[own].astype(np.int32))),
        to_lists(turn_counts, to_arrow(ends[own].astype(np.int32))),
        *_turn_columns(num_rows, rendered),
        _notes(num_rows, rendered, tokens),
        to_arrow(np.where(token_counts, exact_tokens, 0).astype(np.int32)),
        reasons,
        details,
    ]
    return pa.record_batch(columns, schema=EXAMPLE)


def _grown_tokens(rows: NDArray[np.int64], rendered: _Rendered, tokens: _Tokens, num_rows: int) -> NDArray[np.int64]:
    """About how many tokens --turns exact would add to each row: as its text grows, so do they."""
    grown = np.zeros(num_rows)
    grown[list(rendered.growth)] = list(rendered.growth.values())
    per_length = np.diff(tokens.bounds) / np.maximum(1, tokens.text_lengths)
    added = np.zeros(num_rows)
    added[rows] = per_length  # where a row grows, it has one text
    return np.rint(added * grown).astype(np.int64)


def _exchanges(rows: NDArray[np.int64], tokens: _Tokens, turns: _Turns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each exchange starts and ends, in its conversation's ids; an example's first begins with the example."""
    first_texts = np.flatnonzero(np.diff(rows, prepend=-1))
    base = tokens.bounds[first_texts][np.cumsum(np.diff(rows, prepend=-1) != 0) - 1][turns.texts]
    starts = np.concatenate(([0], turns.next_starts[:-1]))[: len(base)]
    firsts = np.flatnonzero(np.diff(turns.texts, prepend=-1))
    starts[firsts] = tokens.bounds[:-1][turns.texts[firsts]]
    return starts - base, turns.ends - base


def _notes(num_rows: int, rendered: _Rendered, tokens: _Tokens) -> pa.Array:
    """What is to be known of each conversation that is kept: the notes of its plans, and of its encoding."""
    notes: list[list[str]] = [[] for _ in range(num_rows)]
    for text, (row, plan) in enumerate(zip(rendered.rows, rendered.plans, strict=True)):
        if row not in rendered.refused and (plan.notes or text in tokens.as_text):
            own = (*plan.notes, *([CONTROL_TOKENS_AS_TEXT] if text in tokens.as_text else []))
            notes[row] = list(dict.fromkeys((*notes[row], *own)))
    return pa.array(notes, EXAMPLE.field("notes").type)


def _turn_columns(num_rows: int, rendered: _Rendered) -> list[pa.Array]:
    none = _DOCUMENT.turns
    turns = [none if row in rendered.refused else rendered.turns[row] for row in range(num_rows)]
    names = ("differ", "left_out", "prompts")
    kinds = {name: EXAMPLE.field(column).type for name, column in zip(names, _COUNT_COLUMNS, strict=True)}
    return [
        pa.array([each.trained for each in turns], pa.int32()),
        *(pa.array([list(getattr(each, name).items()) for each in turns], kinds[name]) for name in names),
        pa.array([each.remain for each in turns], pa.int32()),
    ]


_COUNT_COLUMNS = ("differing_turns", "left_out_turns", "prompts")


def _sums(rows: NDArray[np.int64], counts: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """The sum of the counts of each row."""
    sums = np.zeros(num_rows, dtype=np.int64)
    np.add.at(sums, rows, counts)
    return sums


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
