"""Best fit: lengths in, the bin of each out; bins full to the last tokens, and about even in what attention costs.

Best fit decreasing over the whole corpus, grouped: all items of one length are placed at once, in the order that
placing them one by one would give. Left alone it puts long items together and short ones together. So the longest go
first, each to the bin whose sum of squares is least, and best fit puts the rest into the room that is left.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

_BEST_FIT_TOKENS = 0.4  # of all tokens, those of the shortest items: enough to fill what the others leave
_MOST_BINS = 1.001  # even bins may be so many times those of best fit alone


def best_fit(
    lengths: NDArray[np.int64], capacity: int, copies: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], int]:
    """The bin of each item and the number of bins; `copies` as best_fit_decreasing has it.

    Sums of squared lengths are evened out where that takes at most 0.1% more bins.
    """
    tight = best_fit_decreasing(lengths, capacity, copies)
    num_tight = int(tight.max(initial=-1)) + 1
    even, rooms = _spread(lengths, capacity)
    rest = np.flatnonzero(even < 0)
    even[rest] = best_fit_decreasing(lengths[rest], capacity, None if copies is None else copies[rest], rooms)
    num_even = int(even.max(initial=-1)) + 1
    return (even, num_even) if num_even <= _MOST_BINS * num_tight else (tight, num_tight)


def best_fit_decreasing(
    lengths: NDArray[np.int64],
    capacity: int,
    copies: NDArray[np.int64] | None = None,
    rooms: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The bin of each item, bins counted from 0 in the order they are opened (Johnson 1973, best fit decreasing).

    Items go longest first, each into the fullest bin that still holds it. Where r is the least room that holds length
    L, the bins with room r take floor(r / L) items each before any other bin takes one, so a whole group goes at once.

    With `copies` (ascending: first all items' first copies, then the second ones in the same order, …) no bin holds two
    copies: of items that have one length, any m in a row are different ones, m being how many have the last copy.
    `rooms` are those of bins that are open already, the first ones; each is below the capacity.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    waiting: list[list[NDArray[np.int64]]] = [[] for _ in range(capacity + 1)]  # room -> bins with that room
    has_bins = np.zeros(capacity + 1, dtype=bool)
    has_bins[capacity] = True  # new bins, as many as needed
    opened = 0
    if rooms is not None:
        opened = len(rooms)
        for room, own in _groups(rooms):
            waiting[room].append(own)
            has_bins[room] = True
    for length, items in _groups(lengths):
        most = len(items) if copies is None else int((copies[items] == copies[items[-1]]).sum())
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


def _spread(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each of the longest items, longest first, the bin with the least sum of squares, as far as it has room.

    All items of a length go to different bins, or none does. Returns the bin of each item, -1 for the rest, and the
    room left in each bin that was used.
    """
    bins = np.full(len(lengths), -1, dtype=np.int64)
    rest = int(lengths.sum())
    num_bins, enough = -(-rest // capacity), _BEST_FIT_TOKENS * rest
    # bins that are alike: sum of squares, a number that orders equal ones, room, which bins
    alike: list[tuple[int, int, int, NDArray[np.int64]]] = [(0, 0, capacity, np.arange(num_bins))]
    rooms = np.full(num_bins, capacity)
    serial = 0
    for length, items in _groups(lengths):
        rest -= length * len(items)
        if rest < enough:
            break
        used: list[tuple[int, int, NDArray[np.int64]]] = []
        placed = 0
        while alike and placed < len(items):
            cost, _, room, own = heapq.heappop(alike)
            if room >= length:
                taken, left = own[: len(items) - placed], own[len(items) - placed :]
                bins[items[placed : placed + len(taken)]] = taken
                rooms[taken] -= length
                placed += len(taken)
                used.append((cost + length * length, room - length, taken))
                if len(left):
                    used.append((cost, room, left))
        if placed < len(items):
            rooms[bins[items[:placed]]] += length
            bins[items] = -1
            break
        for cost, room, own in used:
            serial += 1
            heapq.heappush(alike, (cost, serial, room, own))
    return bins, rooms[rooms < capacity]


def _groups(values: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each value, greatest first, with the places where it stands, in order."""
    if not len(values):
        return []
    greatest = int(values.max())
    below = greatest - values
    counts = np.bincount(below)
    small = len(counts) <= 1 << 16  # two bytes are sorted by their digits, many times as fast
    places = np.argsort(below.astype(np.uint16) if small else below, kind="stable")
    less = np.flatnonzero(counts)
    stops = np.cumsum(counts[less])
    return [
        (greatest - number, places[stop - counts[number] : stop])
        for number, stop in zip(less.tolist(), stops.tolist(), strict=True)
    ]
