"""Near duplicates: conversations whose text is almost that of an earlier one, by MinHash and LSH (Broder 1997).

A text is the set of its runs of five tokens (core/grams.py: words; single characters in Chinese). A signature keeps of
128 hash functions the smallest value over that set (rensa), cut to 16 bits: the share of equal places in two signatures
estimates the Jaccard similarity of the sets, give or take 0.035 at 0.8. Signatures are made in worker processes; one
process then compares them, in order. Signatures that agree in a whole band of places are candidates, and each candidate
is judged by all 128 places.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from dataprep.core.grams import find_tokens, mixed, run_hashes
from schemas.errors import InputError

NUM_PLACES = 128
SHINGLE_TOKENS = 5

_SEED = 42
_TEXTS_AT_ONCE = 512
_ROWS_AT_ONCE = 4096
_PAIRS_AT_ONCE = 1 << 17
_NO_TEXT = np.uint16(0xFFFF)
_RECALL = 0.995  # of pairs exactly as similar as the threshold, the share that the bands must find


def signatures(texts: Sequence[str]) -> NDArray[np.uint16]:
    """Sign texts: (N, 128), a row of 0xFFFF for a text without words."""
    rows = [_sign(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE)]
    return np.concatenate(rows) if rows else np.empty((0, NUM_PLACES), dtype=np.uint16)


def _sign(texts: Sequence[str]) -> NDArray[np.uint16]:
    rensa = _rensa()
    tokens = find_tokens(texts)
    counts = np.diff(tokens.offsets)
    lengths = np.minimum(counts, SHINGLE_TOKENS)  # a shorter text is one shingle
    shingles = np.where(counts > 0, counts - lengths + 1, 0)
    bounds = np.concatenate(([0], np.cumsum(shingles)))
    starts = np.arange(bounds[-1]) + np.repeat(tokens.offsets[:-1] - bounds[:-1], shingles)
    hashes = run_hashes(tokens.hashes, starts, starts + np.repeat(lengths, shingles))
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, bounds.astype(np.uint64), NUM_PLACES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16)


def _rensa() -> ModuleType:
    try:
        import rensa
    except ModuleNotFoundError as missing:
        raise InputError(
            "near duplicates are found with rensa, which isn't here: pip install 'rensa>=0.5,<1'"
        ) from missing
    return rensa


def band_places(threshold: float) -> int:
    """How many places a band has: as many as still find 99.5% of the pairs that are just as similar as `threshold`."""
    fitting = [
        places
        for places in range(1, NUM_PLACES + 1)
        if 1 - (1 - threshold**places) ** (NUM_PLACES // places) >= _RECALL
    ]
    return max(fitting, default=1)


class NearDuplicates:
    """The conversations seen so far of which none nearly equals another, in 264 bytes each and 12 for each band."""

    def __init__(self, threshold: float) -> None:
        self._least_equal = int(np.ceil(threshold * NUM_PLACES - 1e-9))
        self._places = band_places(threshold)
        self._signatures = np.empty((0, NUM_PLACES), dtype=np.uint16)
        self._numbers = np.empty(0, dtype=np.int64)  # of each that is kept, its number among all that were seen
        self._kept = 0
        self._seen = 0
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []  # sorted keys of bands, and whose they are

    def first_of(self, signatures: NDArray[np.uint16]) -> NDArray[np.int64]:
        """For each conversation the number of the first earlier one that it nearly equals, or -1: (N,).

        Numbers count over all calls. What is found to be a duplicate is not compared with later ones.
        """
        parts = [
            self._first_of(signatures[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(signatures), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _first_of(self, signatures: NDArray[np.uint16]) -> NDArray[np.int64]:
        keys = _band_keys(signatures, self._places)
        firsts = self._among_kept(signatures, keys)
        worded = (signatures != _NO_TEXT).any(axis=1)
        new = np.flatnonzero((firsts < 0) & worded)
        within = self._among_new(signatures[new], keys[new])
        firsts[new[within >= 0]] = self._seen + new[within[within >= 0]]
        self._keep(signatures, keys, new[within < 0])
        self._seen += len(signatures)
        return firsts

    def _among_kept(self, signatures: NDArray[np.uint16], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The number of the first kept conversation that each nearly equals, or -1."""
        firsts = np.full(len(signatures), np.iinfo(np.int64).max)
        order = np.argsort(keys, axis=None)
        wanted, rows = keys.reshape(-1)[order], order // keys.shape[1]
        for run_keys, owners in self._runs:
            left, right = np.searchsorted(run_keys, wanted), np.searchsorted(run_keys, wanted, side="right")
            hit = np.flatnonzero(right > left)
            counts = (right - left)[hit]
            ends = np.cumsum(counts)
            start = 0
            while start < len(hit):  # as many keys at once as have no more than so many pairs
                before = ends[start] - counts[start]
                stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
                some = counts[start:stop]
                shift = left[hit[start:stop]] - (ends[start:stop] - some - before)
                kept = owners[np.arange(ends[stop - 1] - before) + np.repeat(shift, some)]
                row = np.repeat(rows[hit[start:stop]], some)
                equal = (signatures[row] == self._signatures[kept]).sum(axis=1) >= self._least_equal
                np.minimum.at(firsts, row[equal], self._numbers[kept[equal]])
                start = stop
        return np.where(firsts == np.iinfo(np.int64).max, -1, firsts)

    def _among_new(self, signatures: NDArray[np.uint16], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The first row among these that each nearly equals, or -1; only rows that share a key are compared."""
        firsts = np.full(len(signatures), -1)
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = (counts > 1)[inverse.reshape(keys.shape)]
        owners: dict[int, list[int]] = {}
        for row in np.flatnonzero(shared.any(axis=1)).tolist():
            names = keys[row][shared[row]].tolist()
            candidates = sorted({owner for name in names for owner in owners.get(name, ())})
            if candidates:
                equal = (signatures[candidates] == signatures[row]).sum(axis=1) >= self._least_equal
                if equal.any():
                    firsts[row] = candidates[int(equal.argmax())]
                    continue
            for name in names:
                owners.setdefault(name, []).append(row)
        return firsts

    def _keep(self, signatures: NDArray[np.uint16], keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        stop = self._kept + len(rows)
        if stop > len(self._signatures):
            size = max(stop, len(self._signatures) * 5 // 4)
            self._signatures.resize((size, NUM_PLACES), refcheck=False)
            self._numbers.resize(size, refcheck=False)
        self._signatures[self._kept : stop] = signatures[rows]
        self._numbers[self._kept : stop] = self._seen + rows
        owners = np.repeat(np.arange(self._kept, stop, dtype=np.uint32), keys.shape[1])
        self._kept = stop
        run = _sorted_run(keys[rows].reshape(-1), owners)
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):  # few runs, each merged a few times
            last = self._runs.pop()
            run = _sorted_run(np.concatenate((last[0], run[0])), np.concatenate((last[1], run[1])))
        self._runs.append(run)


def _sorted_run(keys: NDArray[np.uint64], owners: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    order = np.argsort(keys, kind="stable")
    return keys[order], owners[order]


def _band_keys(signatures: NDArray[np.uint16], places: int) -> NDArray[np.uint64]:
    """(N, bands): a hash of the places of each band and of the band's number."""
    bands = NUM_PLACES // places
    parts = signatures[:, : bands * places].reshape(len(signatures), bands, places).astype(np.uint64)
    keys = np.broadcast_to(np.arange(bands, dtype=np.uint64), parts.shape[:2])
    for place in range(places):
        keys = mixed((keys << np.uint64(16)) ^ (keys >> np.uint64(48)) ^ parts[:, :, place])
    return keys
