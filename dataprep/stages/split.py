"""Split: keys and sources of conversations in; which of them are held out for evaluation, out.

A conversation's side follows from a hash of its content, so it stays there when data is added, and equal ones never
straddle. Where that leaves a source without any on one side, its conversation with the smallest hash is held out (or
the one with the largest is trained on). Such a lone one may change sides when conversations are added to its source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataprep.stages.pack import mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The sides of C conversations; those on neither are trained on."""

    held_out: NDArray[np.bool_]  # (C,)
    equal: NDArray[np.bool_]  # (C,): left out, being equal to one of a source that is held out as a whole


def split_off(
    keys: NDArray[np.uint64], sources: NDArray[np.int32], fraction: float, whole_sources: Sequence[int]
) -> Split:
    """Hold out `whole_sources`, and `fraction` (in [0, 1)) of the other conversations; equal keys are equal content."""
    held_out = np.isin(sources, np.array(whole_sources, dtype=np.int32))
    equal = np.zeros(len(keys), dtype=bool)
    if held_out.any():
        equal = ~held_out & np.isin(keys, keys[held_out])
    if fraction > 0:
        free = np.flatnonzero(~held_out & ~equal)
        held_out[free] = _held_out_by_hash(mixed(keys[free], 0), sources[free], fraction)
    return Split(held_out=held_out, equal=equal)


def _held_out_by_hash(hashes: NDArray[np.uint64], sources: NDArray[np.int32], fraction: float) -> NDArray[np.bool_]:
    limit = np.uint64(int(fraction * 2**64))
    order = np.lexsort((sources, hashes))
    own = order[np.diff(hashes[order], prepend=hashes[order[:1]] + np.uint64(1)) != 0]  # equal ones: the first source's
    owners, own_hashes = sources[own], hashes[own]
    counts = np.bincount(owners)
    held = np.bincount(owners[own_hashes < limit], minlength=len(counts))
    smallest, largest = np.zeros_like(counts), np.zeros_like(counts)
    smallest[owners[::-1]] = np.arange(len(owners))[::-1]  # the last assignment stands
    largest[owners] = np.arange(len(owners))
    lone = np.concatenate((smallest[(counts > 1) & (held == 0)], largest[(counts > 1) & (held == counts)]))
    held_out: NDArray[np.bool_] = (hashes < limit) ^ np.isin(hashes, own_hashes[lone])
    return held_out
