"""Shown: where each turn's targets lie among the tokens of a table's texts, and what can't be shown of them.

A target span must begin and end on token bounds, ids must spell their text, and the control tokens in them must be
those that the template wrote. What isn't so is turned away with its reason.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.stages.fill import Filled
from dataprep.stages.plan import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """N tokens of the D texts; bounds in the encoder's unit over the texts laid end to end."""

    ids: NDArray[np.int32]  # (N,)
    bounds: NDArray[np.int64]  # (D + 1,)
    starts: NDArray[Any]  # (N,)
    ends: NDArray[Any]  # (N,)
    faithful: NDArray[np.bool_]  # (D,)
    num_controls: NDArray[np.int64]  # (D,)
    is_target: NDArray[np.bool_]  # (D,): all of it but its first token, such as a document
    as_text: frozenset[int]  # texts in which strings of control tokens stayed text


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The T assistant turns of all texts, as tokens over the texts laid end to end."""

    texts: NDArray[np.int64]  # (T,): whose turn
    messages: NDArray[np.int64]  # (T,)
    starts: NDArray[np.int64]  # (T,): first target
    ends: NDArray[np.int64]  # (T,): one past the end token
    next_starts: NDArray[np.int64]  # (T,): first token of what follows
    exact: NDArray[np.bool_]  # (T,): tokens begin right at `starts` and `ends`


def find_turns(filled: Filled, tokens: Tokens) -> Turns:
    """For each point of each plan, the first token at or after it, and whether a token begins right there."""
    piece_starts = np.concatenate(([0], np.cumsum(filled.piece_lengths)))
    texts = np.repeat(np.arange(len(filled.turn_counts)), filled.turn_counts)
    pieces = filled.point_pieces + np.repeat(filled.piece_bounds[:-1], 3 * filled.turn_counts)
    places = (piece_starts[pieces] + filled.point_offsets).astype(tokens.starts.dtype)
    first = np.searchsorted(tokens.starts, places, side="left")
    total, last = piece_starts[-1], len(tokens.ids) - 1
    begins_there = np.where(first > last, total, tokens.starts[np.minimum(first, last)]) == places
    nothing_reaches_over = np.where(first == 0, 0, tokens.ends[np.maximum(first, 1) - 1]) <= places
    exact = (begins_there & nothing_reaches_over).reshape(-1, 3)
    starts, ends, next_starts = first.reshape(-1, 3).T
    return Turns(
        texts=texts,
        messages=filled.turn_messages,
        starts=starts,
        ends=ends,
        next_starts=next_starts,
        exact=exact[:, 0] & exact[:, 1],
    )


def target_mask(filled: Filled, tokens: Tokens, turns: Turns) -> NDArray[np.bool_]:
    """True for the targets: (N,). A document's are all but its first token, which nothing predicts."""
    trained = filled.trained
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


def refuse_unshown(filled: Filled, tokens: Tokens, turns: Turns, mask: NDArray[np.bool_]) -> None:
    """Note each text for which ids or targets aren't shown; the first thing that is wrong is its reason."""
    targets = np.diff(np.concatenate(([0], np.cumsum(mask)))[tokens.bounds])
    proven = filled.trained ^ tokens.is_target[turns.texts]  # what isn't trained on among targets
    bad_turns = np.flatnonzero(~turns.exact & proven)
    wrong = [(text, "no-targets", "no assistant message is to be trained on") for text in np.flatnonzero(targets == 0)]
    for turn in bad_turns[::-1].tolist():
        detail = f"message {turns.messages[turn] + 1}: a token reaches across its bounds"
        wrong.append((turns.texts[turn], "bound-inside-token", detail))
    for text in np.flatnonzero(tokens.num_controls != filled.num_controls):
        wrong.append((text, "control-token-in-text", "a message holds the text of a control token"))
    for text in np.flatnonzero(~tokens.faithful):
        wrong.append((text, "not-spelled", "the ids don't spell the text"))
    for text, reason, detail in wrong:
        filled.refused[int(filled.rows[text])] = RefusedError(reason, detail)
