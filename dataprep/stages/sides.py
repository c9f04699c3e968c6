"""Sides: the examples of the corpus in; what each split packs, copies included, and who is left out, out.

The split comes first, then the mixture of the side that is trained on: no recipe moves a conversation to another side,
and each one that is held out is there once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataprep.stages.fetch import Examples
from dataprep.stages.mixture import num_copies
from dataprep.stages.split import split_off
from schemas.manifest import PackOptions, SourceMix

EQUAL, BY_RECIPE = "equal-to-held-out", "left-out-by-recipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """E examples of one split."""

    examples: Examples
    copies: NDArray[np.int64]  # (E,): 0 for an example's first copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What is packed, and the rows and tokens of what isn't, by reason."""

    splits: dict[str, Side]  # "train" and, where something is held out, "val"
    num_trainable: int  # conversations on the side that is trained on, before the recipe
    left_out: dict[str, NDArray[np.int64]]  # rows
    left_out_tokens: dict[str, int]


def choose_sides(
    examples: Examples,
    keys: NDArray[np.uint64],
    names: Sequence[str],
    options: PackOptions,
    mixture: dict[str, SourceMix],
) -> Sides:
    """Divide examples by their conversations, and repeat or leave out those to train on.

    `keys` are those of all rows' contents; `names` are what the examples' sources index. All pieces of a conversation
    share its side and its number of copies.
    """
    first = np.diff(examples.rows, prepend=-1) != 0  # examples are in the order of rows
    conversation = np.cumsum(first) - 1
    rows, sources = examples.rows[first], examples.sources[first]
    tokens = np.bincount(conversation, weights=examples.lengths, minlength=len(rows)).astype(np.int64)
    whole_sources = [number for number, name in enumerate(names) if name in options.val_sources]
    split = split_off(keys[rows], sources, options.val_fraction, whole_sources)
    trained = ~split.held_out & ~split.equal
    copies = np.zeros(len(rows), dtype=np.int64)
    mixes = [mixture.get(name, SourceMix()) for name in names]
    copies[trained] = num_copies(keys[rows[trained]], sources[trained], tokens[trained], mixes, options.seed)
    left_out = {EQUAL: split.equal, BY_RECIPE: trained & (copies == 0)}
    splits = {"train": _repeated(examples, copies[conversation])}
    if split.held_out.any():
        splits["val"] = _repeated(examples, split.held_out[conversation].astype(np.int64))
    return Sides(
        splits=splits,
        num_trainable=int(trained.sum()),
        left_out={reason: rows[out] for reason, out in left_out.items() if out.any()},
        left_out_tokens={reason: int(tokens[out].sum()) for reason, out in left_out.items() if out.any()},
    )


def _repeated(examples: Examples, counts: NDArray[np.int64]) -> Side:
    if (counts == 1).all():
        return Side(examples=examples, copies=np.zeros(len(counts), dtype=np.int64))
    chosen = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts
    return Side(examples=examples[chosen], copies=np.arange(len(chosen)) - np.repeat(firsts, counts))
