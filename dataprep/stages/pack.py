"""Pack: lengths of examples in; which pack each goes to, out. Lengths only: no token is touched here.

Best fit decreasing over the whole corpus, grouped: all examples of one length are placed at once, in the order that
placing them one by one would give. Order is a pure function of contents and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERFLOWS = ("cut", "drop", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """E examples in P packs, in the order they are written."""

    order: NDArray[np.int64]  # (E,): which example comes next
    pack_bounds: NDArray[np.int64]  # (P + 1,): pack p is order[pack_bounds[p]:pack_bounds[p + 1]]


def pack_examples(
    lengths: NDArray[np.int64], shuffle_keys: NDArray[np.uint64], copies: NDArray[np.int64], seq_len: int, seed: int
) -> Packing:
    """Pack examples of these lengths, at most `seq_len` tokens a pack.

    `shuffle_keys` order those of equal length; they are the same for the copies of an example, which `copies` numbers
    from 0. No pack holds two copies unless keeping them apart takes over 3% (and two) more packs.
    """
    shuffled = np.lexsort((shuffle_keys, copies))
    packs = np.empty(len(lengths), dtype=np.int64)
    packs[shuffled] = _bins(lengths[shuffled], copies[shuffled], seq_len)
    num_packs = int(packs.max()) + 1 if len(packs) else 0
    pack_rank = np.argsort(np.argsort(mixed(np.arange(num_packs, dtype=np.uint64), seed), kind="stable"))
    rank = np.empty(len(lengths), dtype=np.int64)
    rank[shuffled] = np.arange(len(lengths))
    order = np.lexsort((rank, pack_rank[packs]))
    counts = np.bincount(pack_rank[packs], minlength=num_packs)
    return Packing(order=order, pack_bounds=np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def _bins(lengths: NDArray[np.int64], copies: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    apart = best_fit_decreasing(lengths, capacity, copies)
    num_bins = int(apart.max(initial=-1)) + 1
    if not copies.any() or num_bins <= _affordable(int(lengths.sum()) / capacity):
        return apart
    tight = best_fit_decreasing(lengths, capacity)
    return apart if num_bins <= _affordable(int(tight.max()) + 1) else tight


def _affordable(num_bins: float) -> float:
    """How many bins keeping copies apart may take in place of these."""
    return 1.03 * num_bins + 2


def best_fit_decreasing(
    lengths: NDArray[np.int64], capacity: int, copies: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The bin of each item, bins counted from 0 in the order they are opened (Johnson 1973, best fit decreasing).

    Items go longest first, each into the fullest bin that still holds it. Where r is the least room that holds length
    L, the bins with room r take floor(r / L) items each before any other bin takes one, so a whole group goes at once.

    With `copies` (ascending: first all items' first copies, then the second ones in the same order, …) no bin holds two
    copies: of items that have one length, any m in a row are different ones, m being how many have the last copy.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    by_length = np.argsort(-lengths, kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    waiting: list[list[NDArray[np.int64]]] = [[] for _ in range(capacity + 1)]  # room -> bins with that room
    has_bins = np.zeros(capacity + 1, dtype=bool)
    has_bins[capacity] = True  # new bins, as many as needed
    opened, done = 0, 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        items = by_length[done : done + count]
        done += count
        most = count if copies is None else int((copies[items] == copies[items[-1]]).sum())
        used_bins: list[tuple[int, NDArray[np.int64]]] = []  # room left, bins; not for this length again
        while len(items):
            room = length + int(np.argmax(has_bins[length:]))
            each = min(room // length, most)
            needed = -(-len(items) // each)
            if room == capacity:
                taken = np.arange(opened, opened + needed)
                opened += needed
            else:
                available = np.concatenate(waiting[room])
                taken, left = available[:needed], available[needed:]
                waiting[room] = [left] if len(left) else []
                has_bins[room] = len(left) > 0
            placed = min(len(items), len(taken) * each)
            bins[items[:placed]] = np.repeat(taken, each)[:placed]
            items = items[placed:]
            full = placed // each
            for some, used in ((taken[:full], each), (taken[full:], placed - full * each)):
                if len(some):
                    used_bins.append((room - used * length, some))
        for room, some in used_bins:
            waiting[room].append(some)
            has_bins[room] = True
    return bins


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
