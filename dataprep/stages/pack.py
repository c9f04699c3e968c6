"""Pack: lengths of examples in; which pack each goes to, out. Lengths only: no token is touched here.

Order is a pure function of contents and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataprep.stages.best_fit import best_fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """E examples in P packs, in the order they are written."""

    order: NDArray[np.int64]  # (E,): which example comes next
    pack_bounds: NDArray[np.int64]  # (P + 1,): pack p is order[pack_bounds[p]:pack_bounds[p + 1]]


def pack_examples(
    lengths: NDArray[np.int64],
    shuffle_keys: NDArray[np.uint64],
    copies: NDArray[np.int64],
    seq_len: int,
    seed: int,
    pack: str = "best-fit",
) -> Packing:
    """Pack examples of these lengths, at most `seq_len` tokens a pack; `copies` number those of an example from 0.

    `pack` is best-fit, the fewest packs, in an order that `seed` decides; sequential, the examples as they come, a new
    pack where the next one doesn't fit; or none, one example a pack, as they come. All first copies come before the
    second ones. `shuffle_keys` order examples of equal length for best-fit; they are the same for all copies of one. No
    pack of best-fit holds two copies unless keeping them apart takes over 3% (and two) more packs.
    """
    if pack == "best-fit":
        return _best_fit(lengths, shuffle_keys, copies, seq_len, seed)
    order = np.argsort(copies, kind="stable")
    bounds = _next_fit(lengths[order], seq_len) if pack == "sequential" else np.arange(len(order) + 1)
    return Packing(order=order, pack_bounds=bounds)


def _next_fit(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Where packs begin, and the end, if each takes the next examples as long as they fit."""
    ends = np.cumsum(lengths)
    following = np.searchsorted(ends, ends - lengths + capacity, side="right")  # of a pack that begins there
    bounds = [0] if len(lengths) else []
    while bounds and bounds[-1] < len(lengths):
        bounds.append(following.item(bounds[-1]))
    return np.array(bounds or [0], dtype=np.int64)


def _best_fit(
    lengths: NDArray[np.int64], shuffle_keys: NDArray[np.uint64], copies: NDArray[np.int64], seq_len: int, seed: int
) -> Packing:
    shuffled = np.lexsort((shuffle_keys, copies))
    packs, num_packs = _bins(lengths[shuffled], copies[shuffled], seq_len)
    pack_rank = np.argsort(np.argsort(mixed(np.arange(num_packs, dtype=np.uint64), seed), kind="stable"))
    ranks = pack_rank[packs]
    order = shuffled[np.argsort(ranks, kind="stable")]
    counts = np.bincount(ranks, minlength=num_packs)
    return Packing(order=order, pack_bounds=np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def _bins(lengths: NDArray[np.int64], copies: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], int]:
    if not copies.any():
        return best_fit(lengths, capacity)
    apart, num_bins = best_fit(lengths, capacity, copies)
    if num_bins <= _affordable(int(lengths.sum()) / capacity):
        return apart, num_bins
    tight, num_tight = best_fit(lengths, capacity)
    return (apart, num_bins) if num_bins <= _affordable(num_tight) else (tight, num_tight)


def _affordable(num_bins: float) -> float:
    """How many bins keeping copies apart may take in place of these."""
    return 1.03 * num_bins + 2


def mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Scramble 64-bit keys by a seed (splitmix64, Steele, Lea and Flood 2014); the same everywhere."""
    with np.errstate(over="ignore"):
        z = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fit(
    length: int,
    turn_starts: Sequence[int],
    turn_ends: Sequence[int],
    targets: NDArray[np.bool_],
    seq_len: int,
    overflow: str,
) -> list[tuple[int, int]]:
    """The spans [start, stop) of an over-long conversation that become examples; none: it is dropped.

    `cut` keeps its first turns, `split` makes an example of every run of turns that fits, `drop` gives it up. A
    document (no turns) is divided into pieces of seq_len unless it is dropped. Every span holds a target. A token that
    ends a turn and begins the following message, as some templates have it, is given to the span that it begins.
    """
    if overflow == "drop":
        return []
    if not turn_ends:
        return [(at, min(at + seq_len, length)) for at in range(0, length, seq_len) if at + 1 < length]
    spans: list[tuple[int, int]] = []
    first = 0
    while first < len(turn_ends):
        last = first
        while last < len(turn_ends) and turn_ends[last] - turn_starts[first] <= seq_len:
            last += 1
        if last > first:
            spans.append((turn_starts[first], turn_ends[last - 1]))
        if overflow == "cut":
            break
        first = max(last, first + 1)
    spans = [(start, stop) for start, stop in spans if targets[start + 1 : stop].any()]
    next_starts = [*(start for start, _ in spans[1:]), length]
    spans = [(start, min(stop, after)) for (start, stop), after in zip(spans, next_starts, strict=False)]
    return [(start, stop) for start, stop in spans if targets[start + 1 : stop].any()]
