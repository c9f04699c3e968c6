"""Mixture: how often each conversation is trained on, by its source's weight and caps; 0 is left out.

A source's conversations stand in the order of a hash of their content. The caps take the first of them, so a higher
cap only adds; then the weight gives each its whole part of copies, and the fraction's part of them one more, by another
hash. No source depends on another, and no conversation's copies but for the caps depend on other conversations.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataprep.stages.pack import mixed
from schemas.manifest import SourceMix

_CAPPED, _WEIGHED = 1, 2  # what the hashes are for
_NO_CAP = np.iinfo(np.int64).max


def num_copies(
    keys: NDArray[np.uint64],
    sources: NDArray[np.int32],
    tokens: NDArray[np.int64],
    mixes: Sequence[SourceMix],
    seed: int,
) -> NDArray[np.int64]:
    """Copies of each of C conversations of so many tokens; `sources` index `mixes`."""
    scrambled = mixed(keys, seed)
    weights = np.array([mix.weight for mix in mixes])
    fractions, whole = np.modf(weights)
    limits = (fractions * 2.0**64).astype(np.uint64)
    copies = whole.astype(np.int64)[sources] + (mixed(scrambled, _WEIGHED) < limits[sources])
    copies[~_within_caps(mixed(scrambled, _CAPPED), sources, tokens, mixes)] = 0
    return copies


def _within_caps(
    hashes: NDArray[np.uint64], sources: NDArray[np.int32], tokens: NDArray[np.int64], mixes: Sequence[SourceMix]
) -> NDArray[np.bool_]:
    """The first of each source, in the order of `hashes`, that both of its caps hold."""
    max_conversations = np.array([mix.max_conversations or _NO_CAP for mix in mixes])
    max_tokens = np.array([mix.max_tokens or _NO_CAP for mix in mixes])
    within = np.ones(len(hashes), dtype=bool)
    capped = np.flatnonzero(np.minimum(max_conversations, max_tokens)[sources] < _NO_CAP)
    order = capped[np.lexsort((hashes[capped], sources[capped]))]
    counts = np.bincount(sources[order], minlength=len(mixes))
    firsts = np.cumsum(counts) - counts
    totals = np.concatenate(([0], np.cumsum(tokens[order])))
    of = sources[order]
    nth = np.arange(len(order)) - firsts[of]  # 0 for the first of its source
    spent = totals[1:] - totals[firsts[of]]
    within[order] = (nth < max_conversations[of]) & (spent <= max_tokens[of])
    return within
