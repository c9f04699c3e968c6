"""Tokenize: a chunk of conversations in; examples out: ids, loss mask and turn bounds, or the reason there are none.

What is shown for each conversation that is kept: its text is the chat template's own rendering (stages/render.py), its
ids spell that text (core/encode.py), its control tokens are those the template wrote and no others, and each target
span begins and ends on token bounds. All of it is array work over the whole chunk.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.columns import read_columns
from dataprep.core.encode import Encoder, Encoding
from dataprep.stages.control_tokens import encode_as_text
from dataprep.stages.examples import examples_batch
from dataprep.stages.fill import Filled, fill
from dataprep.stages.render import DEFAULT_OPTIONS, Renderer
from dataprep.stages.shown import Tokens, find_turns, refuse_unshown, target_mask
from schemas.manifest import TokenOptions

FIXES = {
    "no-chat-template": "use the model's instruct variant, or put a chat_template.jinja into its folder",
    "template-refuses": "change the order of roles to what this model's chat template takes",
    "template-untraceable": "the targets can't be proven for this template; use another template",
    "rendering-differs": "report this chat template: its rendering could not be reproduced",
    "turn-not-found": "the targets can't be proven for this conversation; simplify its messages",
    "no-end-token": "use a chat template that ends assistant turns with a special token",
    "too-many-turns": "split the conversation, or use --turns whole or last",
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
    filled = fill(read_columns(table), renderer, encoder, options)
    tokens = _encode(filled, encoder, special, options)
    turns = find_turns(filled, tokens, special.is_control)
    mask = target_mask(filled, tokens, turns)
    refuse_unshown(filled, tokens, turns, mask)
    return examples_batch(len(table), filled, tokens, turns, mask)


def _encode(filled: Filled, encoder: Encoder, special: SpecialIds, options: TokenOptions) -> Tokens:
    """Encode the texts; a document gets its end-of-text token, of no length."""
    encoding = encoder.encode(filled.texts, filled.text_lengths, filled.joined)
    num_controls, own_controls = _num_controls(encoding, special), filled.num_controls
    as_text: dict[int, Encoding] = {}
    if options.control_tokens == "text":
        for text in np.flatnonzero(num_controls != own_controls).tolist():
            given = (filled.texts[text], filled.lengths_of(text), filled.plans[filled.plan_numbers[text]])
            anew = encode_as_text(*given, encoder, special.tokens)
            if anew is not None:
                as_text[text] = anew
    if as_text:
        encoding = encoding.with_texts(as_text, filled.text_lengths)
        num_controls = _num_controls(encoding, special)
    if options.control_tokens == "allow":
        num_controls = own_controls
    is_document = filled.is_document
    ids, bounds, starts, ends = encoding.ids, encoding.text_tokens, encoding.starts, encoding.ends
    if is_document.any() and special.eos is not None:
        places = bounds[1:][is_document]
        text_ends = np.cumsum(filled.text_lengths)[is_document].astype(starts.dtype)
        ids = np.insert(ids, places, special.eos)
        starts, ends = np.insert(starts, places, text_ends), np.insert(ends, places, text_ends)
        bounds = bounds + np.concatenate(([0], np.cumsum(is_document)))
    return Tokens(
        ids=ids,
        bounds=bounds,
        starts=starts,
        ends=ends,
        faithful=encoding.faithful & (~is_document | (special.eos is not None)),
        num_controls=num_controls,
        as_text=frozenset(as_text),
        is_target=is_document | (options.train_on == "all"),
    )


def _num_controls(encoding: Encoding, special: SpecialIds) -> NDArray[np.int64]:
    """Control tokens of each text."""
    places = np.flatnonzero(special.is_control[encoding.ids])
    return np.diff(np.searchsorted(places, encoding.text_tokens))
