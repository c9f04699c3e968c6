"""Shown: where each turn's targets lie among the tokens of a table's texts, and what can't be shown of them.

A target span must begin and end on token bounds, ids must spell their text, and the control tokens in them must be
those that the template wrote. What isn't so is turned away with its reason. Where a token reaches over a bound with
nothing but the template's own text in it, targets start behind it: it loses no text of the message. Such a token at the
end is the end token itself, with the blanks that it takes in.
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
    on_bounds: NDArray[np.bool_]  # (T,): no token reaches over a bound, but for those of the template alone
    inside_token: NDArray[np.bool_]  # (T,): the bound before `starts` is inside such a token


def find_turns(filled: Filled, tokens: Tokens, is_control: NDArray[np.bool_]) -> Turns:
    """For each point of each plan, the first token at or after it, and whether a token begins right there.

    `is_control` is a lookup over the vocabulary.
    """
    piece_starts = np.concatenate(([0], np.cumsum(filled.piece_lengths)))
    texts = np.repeat(np.arange(len(filled.turn_counts)), filled.turn_counts)
    pieces = filled.point_pieces + np.repeat(filled.piece_bounds[:-1], 3 * filled.turn_counts)
    places = (piece_starts[pieces] + filled.point_offsets).astype(tokens.starts.dtype)
    first = np.searchsorted(tokens.starts, places, side="left")
    total, last = piece_starts[-1], len(tokens.ids) - 1
    following = np.where(first > last, total, tokens.starts[np.minimum(first, last)])
    reached = np.where(first == 0, 0, tokens.ends[np.maximum(first, 1) - 1])
    exact = ((following == places) & (reached <= places)).reshape(-1, 3)
    starts, ends, next_starts = first.reshape(-1, 3).T
    over = ((reached > places) & (following >= reached)).reshape(-1, 3)  # one token, and the next begins behind it
    over &= (starts < ends)[:, None]
    inside_token = np.zeros(len(starts), dtype=bool)
    on_bounds = exact[:, 0] & exact[:, 1]
    if not on_bounds.all() and over.any():
        limits = places.reshape(-1, 3)[:, :2].astype(np.int64) + filled.rooms
        inside_token = over[:, 0] & _is_own(filled, tokens, starts - 1, limits[:, 0])
        inside_token &= ~is_control[tokens.ids[starts - 1]]
        takes_blanks = over[:, 1] & (tokens.ends[ends - 1] <= limits[:, 1]) & is_control[tokens.ids[ends - 1]]
        on_bounds = (exact[:, 0] | inside_token) & (exact[:, 1] | takes_blanks)
    return Turns(
        texts=texts,
        messages=filled.turn_messages,
        starts=starts,
        ends=ends,
        next_starts=next_starts,
        on_bounds=on_bounds,
        inside_token=inside_token & on_bounds,
    )


def _is_own(filled: Filled, tokens: Tokens, chosen: NDArray[np.int64], limits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether these tokens hold no text of a slot, and end at `limits` at the latest."""
    lengths = filled.piece_lengths
    number = np.arange(len(lengths)) - np.repeat(filled.piece_bounds[:-1], np.diff(filled.piece_bounds))
    of_slots = np.append(np.where(number % 2, lengths, 0), 0)
    piece_starts = np.concatenate(([0], np.cumsum(lengths)))
    before = np.concatenate(([0], np.cumsum(of_slots[:-1])))

    def held(places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How much text of slots stands before places."""
        pieces = np.searchsorted(piece_starts, places, side="right") - 1
        return before[pieces] + np.minimum(of_slots[pieces], places - piece_starts[pieces])

    starts, ends = tokens.starts[chosen].astype(np.int64), tokens.ends[chosen].astype(np.int64)
    return (held(starts) == held(ends)) & (ends <= limits)


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
    bad_turns = np.flatnonzero(~turns.on_bounds & proven)
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
